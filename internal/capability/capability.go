// Package capability says what this process may do to the kernel and, where it
// was forbidden something, what may be why. It changes nothing.
package capability

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Capability is one of capabilities(7).
type Capability uint

// Those that this project needs.
const (
	NetAdmin Capability = unix.CAP_NET_ADMIN
	SysAdmin Capability = unix.CAP_SYS_ADMIN
	Perfmon  Capability = unix.CAP_PERFMON
	BPF      Capability = unix.CAP_BPF
)

// String returns its name.
func (c Capability) String() string {
	switch c {
	case NetAdmin:
		return "CAP_NET_ADMIN"
	case SysAdmin:
		return "CAP_SYS_ADMIN"
	case Perfmon:
		return "CAP_PERFMON"
	case BPF:
		return "CAP_BPF"
	}
	return fmt.Sprintf("capability %d", uint(c))
}

// Missing returns which of need the calling thread does not have. Where that
// cannot be read it returns none.
func Missing(need ...Capability) []Capability {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil
	}
	return missing(string(text), need)
}

func missing(status string, need []Capability) (out []Capability) {
	for line := range strings.Lines(status) {
		hex, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		has, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		for _, c := range need {
			if err == nil && has>>c&1 == 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

// Why returns what may be why err came, as an end of its sentence: " (...)". It
// is empty unless err says that something is forbidden. need is what it takes
// to be allowed.
func Why(err error, need ...Capability) string {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return ""
	}
	// Where the file system with it is not mounted nothing is known of a lockdown.
	lock, _ := os.ReadFile("/sys/kernel/security/lockdown")
	return why(Missing(need...), string(lock))
}

func why(missing []Capability, lock string) string {
	if len(missing) > 0 {
		return fmt.Sprintf(" (it takes root, or %s, which this process lacks)", list(missing))
	}
	// The mode in force is the one in brackets, as in "none [integrity] confidentiality".
	_, mode, ok := strings.Cut(lock, "[")
	mode, _, closed := strings.Cut(mode, "]")
	if ok && closed && mode != "none" {
		return fmt.Sprintf(" (this process has the capabilities for it, but the kernel is locked down: %s)", mode)
	}
	return " (this process has the capabilities for it: a security module or a seccomp filter forbids it)"
}

func list(all []Capability) string {
	names := make([]string, len(all))
	for i, c := range all {
		names[i] = c.String()
	}
	return strings.Join(names, ", ")
}
