package ebpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrNotSupported says that this kernel, or what this process may do on it,
// does not allow balancing by eBPF. The error it is wrapped in says why.
var ErrNotSupported = errors.New("balancing by eBPF is not possible here")

// ErrInUse says that another process holds the pinned state.
var ErrInUse = errors.New("in use by another process")

// Config says where kernel state lives and how large it is. The three sizes
// count only when the maps are made: those that are pinned keep theirs.
type Config struct {
	// PinDir is the folder, on a bpf file system, of the state that outlives
	// the daemon. Where it is below /sys/fs/bpf and no bpf file system is
	// mounted there, Open mounts one.
	PinDir string
	// Cgroup is the folder of the cgroup whose processes are balanced, with all
	// below it. Empty means the root of cgroup v2, found and proven.
	Cgroup string
	// Services bounds how many VIPs there may be of either family. Each costs
	// about 220 bytes and 16 for each CPU, used or not.
	Services int
	// Slots4 and Slots6 bound the destinations of all services together, of 8
	// and 24 bytes each:
	//
	//	Slots >= sum over the services of (backends * weight / common divisor)
	//
	// What is spare beyond that decides how many changes there are between two
	// waits of some 10 ms for the kernel to let go of old ones.
	Slots4, Slots6 int
}

// DefaultConfig returns room for 32 768 VIPs, 2 M destinations over IPv4 and
// 1 M over IPv6: 49 MB of kernel memory and 0.5 MB for each CPU.
func DefaultConfig() Config {
	return Config{
		PinDir:   "/sys/fs/bpf/waggle",
		Services: 1 << 15,
		Slots4:   1 << 21,
		Slots6:   1 << 20,
	}
}

// explain marks err as ErrNotSupported if it says that the kernel lacks
// something or that we lack the right to it.
func explain(doing string, err error) error {
	var refused *ebpf.VerifierError
	lacking := errors.As(err, &refused)
	for _, sign := range []error{ebpf.ErrNotSupported, unix.EPERM, unix.EACCES, unix.ENOSYS} {
		lacking = lacking || errors.Is(err, sign)
	}
	if lacking {
		return fmt.Errorf("%s: %w: %w", doing, ErrNotSupported, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
