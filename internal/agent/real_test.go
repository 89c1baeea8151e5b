package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"waggle/ebpf"
	"waggle/internal/testnet"
	"waggle/vip"
)

// startReal runs an Agent over the real kernel, for what runs in a cgroup and a
// namespace of its own. It returns where its kernel state is pinned as well.
func startReal(t *testing.T, cfg Config) (*harness, *testnet.Namespace, string) {
	t.Helper()
	ns, cgroup := testnet.New(t), testnet.Cgroup(t)
	testnet.Enter(t, cgroup)
	ns.Inhabit(t)
	kernel := ebpf.DefaultConfig()
	kernel.PinDir, kernel.Cgroup = testnet.PinDir(t), cgroup
	plane, err := ebpf.Open(kernel, zap.NewNop(), nil)
	if errors.Is(err, ebpf.ErrNotSupported) {
		testnet.Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{source: make(script)}
	h.agent = New(cfg, h.source, plane, zap.NewNop(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := plane.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, ns, kernel.PinDir
}

// eventually tries until it works, for a minute, and returns how long that took.
func eventually(t *testing.T, what string, try func() error) time.Duration {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	err := try()
	for ; err != nil && time.Since(start) < time.Minute; err = try() {
		<-tick.C
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return time.Since(start)
}

// applied returns where the VIP of the app web is, once the kernel has it.
func (h *harness) applied(t *testing.T) (f vip.Frontend) {
	t.Helper()
	eventually(t, "the VIP is in the kernel", func() error {
		s := h.agent.State()
		if s == nil || s.Applied == nil || s.Applied.Services.Len() == 0 {
			return errors.New("not yet")
		}
		f = frontend(t, s, "web")
		return nil
	})
	return f
}

// TestDamageFromOutsideIsRepairedWithinSeconds does to the kernel's state what
// somebody with the tools of the kernel may do.
func TestDamageFromOutsideIsRepairedWithinSeconds(t *testing.T) {
	const soon = 5 * time.Second
	h, ns, dir := startReal(t, DefaultConfig())
	pins, err := filepath.Glob(filepath.Join(dir, "v*"))
	if err != nil || len(pins) != 1 {
		t.Fatalf("pins: %v, %v", pins, err)
	}
	at := func(name string) string { return filepath.Join(pins[0], name) }
	bpftool := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("bpftool", args...).CombinedOutput(); err != nil {
			t.Fatalf("bpftool %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	h.source <- single(ns.Echo(t, netip.MustParseAddrPort("127.0.0.1:0")))
	f := h.applied(t)
	ip := f.Addr.Addr().As4()
	key := strings.Fields(fmt.Sprintf("%d %d %d %d %d %d %d 0", ip[0], ip[1], ip[2], ip[3], f.Addr.Port()>>8, f.Addr.Port()&255, f.Proto))
	zero := func(name string, size int) []string {
		args := []string{"map", "update", "pinned", at(name), "key", "0", "0", "0", "0", "value"}
		return append(args, strings.Fields(strings.Repeat("0 ", size))...)
	}
	connects := func() error {
		return ns.Do(func() error {
			c, err := net.DialTimeout("tcp", f.Addr.String(), time.Second)
			if err == nil {
				err = c.Close()
			}
			return err
		})
	}
	eventually(t, "the VIP is connected to", connects)
	for name, damage := range map[string]func(){
		"a VIP is removed":      func() { bpftool(append([]string{"map", "delete", "pinned", at("vip4"), "key"}, key...)...) },
		"a service is emptied":  func() { bpftool(zero("descriptors", 8)...) },
		"a backend is emptied":  func() { bpftool(zero("backends", 64)...) },
		"a program is detached": func() { bpftool("link", "detach", "pinned", at("link_connect4")) },
		"the folder is emptied": func() { all, _ := filepath.Glob(at("*")); removePin(t, all...) },
	} {
		best := time.Hour
		for range 5 { // a machine that is busy with other things is late at times
			damage()
			took := eventually(t, name, func() error {
				missing := connects()
				for _, pin := range []string{"vip4", "services", "link_connect4"} {
					_, err := os.Lstat(at(pin))
					missing = errors.Join(missing, err)
				}
				return missing
			})
			t.Logf("%s: repaired after %v", name, took)
			if best = min(best, took); best < soon {
				break
			}
		}
		if best >= soon {
			t.Errorf("%s: repaired after %v at best, want %v", name, best, soon)
		}
	}
}

func removePin(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
