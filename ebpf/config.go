package ebpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"waggle/internal/capability"
)

// ErrNotSupported says that this kernel, or what this process may do on it,
// does not allow balancing by eBPF. The error it is wrapped in says why.
var ErrNotSupported = errors.New("balancing by eBPF is not possible here")

// ErrInUse says that another process holds the pinned state.
var ErrInUse = errors.New("in use by another process")

// Config says where kernel state lives and how large it is. The sizes count
// only when the maps are made: those that are pinned keep theirs.
type Config struct {
	// PinDir is the folder, on a bpf file system, of the state that outlives
	// the daemon. Where it is below /sys/fs/bpf and no bpf file system is
	// mounted there, Open mounts one.
	PinDir string
	// Cgroup is the folder of the cgroup whose processes are balanced, with all
	// below it. Empty means the root of cgroup v2, found and proven.
	Cgroup string
	// Services bounds how many VIPs there may be of either family. Each costs
	// about 210 bytes and 32 for each CPU, used or not.
	Services int
	// Backends bounds the backends of all services together, of 64 bytes each,
	// those in two services counting twice.
	Backends int
	// Slots bounds the destinations of all services together, of 4 bytes each:
	//
	//	Slots >= sum over the services of (backends * weight / common divisor)
	//
	// What is spare beyond that decides how many changes there are between two
	// waits of some 10 ms for the kernel to let go of old ones.
	Slots int
	// Clients bounds how many clients of services with affinity are remembered,
	// about 120 bytes each; beyond that those that were not seen longest are
	// forgotten.
	Clients int
	// Allow bounds the clients that may connect to services not for everyone,
	// all services together. They take memory only where there are any.
	Allow int
	// Watch makes the kernel note failed connects and how long others take, of
	// all TCP services. That needs memory for each connection, some 2 µs.
	Watch bool
	// SelfTest is the command, without its last argument, of the self-test: it
	// must call JoinProbe, connect to the TCP address given to it, host and port,
	// and exit with 0 if that worked. Empty means no self-test.
	SelfTest []string
}

// DefaultConfig returns room for 32 768 VIPs with 1 M backends and 2 M
// destinations: 83 MB of kernel memory and 1 MB for each CPU. It has no Watch
// and no SelfTest.
func DefaultConfig() Config {
	return Config{
		PinDir:   "/sys/fs/bpf/waggle",
		Services: 1 << 15,
		Backends: 1 << 20,
		Slots:    1 << 21,
		Clients:  1 << 16,
		Allow:    1 << 16,
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
		why := capability.Why(err, capability.BPF, capability.Perfmon, capability.NetAdmin)
		return fmt.Errorf("%s: %w: %w%s", doing, ErrNotSupported, err, why)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
