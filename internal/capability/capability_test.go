package capability

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
)

func TestMissing(t *testing.T) {
	need := []Capability{NetAdmin, SysAdmin, Perfmon, BPF}
	for name, c := range map[string]struct {
		status string
		want   []Capability
	}{
		"root has all":                  {"Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n", nil},
		"nobody has none":               {"CapEff:\t0000000000000000\n", need},
		"one of the network alone":      {"CapEff:\t0000000000001000\n", []Capability{SysAdmin, Perfmon, BPF}},
		"before capabilities 38 and 39": {"CapEff:\t0000003fffffffff\n", []Capability{Perfmon, BPF}},
		"what cannot be read":           {"CapEff:\tx\n", nil},
		"nothing":                       {"", nil},
	} {
		if d := cmp.Diff(c.want, missing(c.status, need)); d != "" {
			t.Errorf("%s (-want +got): %s", name, d)
		}
	}
}

func TestWhy(t *testing.T) {
	for name, c := range map[string]struct {
		missing    []Capability
		lock, want string
	}{
		"rights":               {[]Capability{BPF, NetAdmin}, "none [integrity] confidentiality\n", " (it takes root, or CAP_BPF, CAP_NET_ADMIN, which this process lacks)"},
		"a lockdown":           {nil, "none integrity [confidentiality]\n", " (this process has the capabilities for it, but the kernel is locked down: confidentiality)"},
		"no lockdown":          {nil, "[none] integrity confidentiality\n", " (this process has the capabilities for it: a security module or a seccomp filter forbids it)"},
		"nothing is known":     {nil, "", " (this process has the capabilities for it: a security module or a seccomp filter forbids it)"},
		"what is no such file": {nil, "x [y", " (this process has the capabilities for it: a security module or a seccomp filter forbids it)"},
	} {
		if got := why(c.missing, c.lock); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := Why(errors.New("x"), BPF); got != "" {
		t.Errorf("what is not forbidden: %q", got)
	}
}

// TestAThreadThatIsNobodysLacksAll asks the kernel.
func TestAThreadThatIsNobodysLacksAll(t *testing.T) {
	testnet.NeedRoot(t)
	got := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with us
		const id = 65534
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); e != 0 {
			got <- e.Error()
			return
		}
		got <- Why(fmt.Errorf("open: %w", unix.EPERM), BPF)
	}()
	if got, want := <-got, " (it takes root, or CAP_BPF, which this process lacks)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if m := Missing(NetAdmin, SysAdmin); len(m) > 0 {
		t.Errorf("root lacks %v", m)
	}
}

func FuzzWhatTheKernelSays(f *testing.F) {
	f.Add("CapEff:\t000001ffffffffff\n", "none [integrity] confidentiality\n")
	f.Add("CapEff:", "[")
	f.Fuzz(func(t *testing.T, status, lock string) {
		if lack := missing(status, []Capability{BPF}); len(lack) > 1 && !strings.Contains(status, "\nCapEff:") {
			t.Errorf("%q lacks %v", status, lack)
		}
		if got := why(nil, lock); !strings.HasPrefix(got, " (") || !strings.HasSuffix(got, ")") {
			t.Errorf("%q", got)
		}
	})
}
