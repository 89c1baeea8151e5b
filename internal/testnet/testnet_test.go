package testnet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func echoes(addr netip.AddrPort) error {
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		return fmt.Errorf("echo sent back %q: %w", got, err)
	}
	return nil
}

func TestTwoNamespacesReachEachOther(t *testing.T) {
	a, b := New(t), New(t)
	Link(t, a, netip.MustParsePrefix("10.99.0.1/24"), b, netip.MustParsePrefix("10.99.0.2/24"))
	a.Addr(t, "wt1", netip.MustParsePrefix("fd99::1/64"))
	b.Addr(t, "wt1", netip.MustParsePrefix("fd99::2/64"))
	for _, addr := range []string{"10.99.0.1:0", "[fd99::1]:0"} {
		server := a.Echo(t, netip.MustParseAddrPort(addr))
		a.Must(t, func() error { return echoes(server) })
		b.Must(t, func() error { return echoes(server) })
		if err := echoes(server); err == nil {
			t.Errorf("%s is reached from outside", addr)
		}
	}
}

func TestADefaultRouteLeadsOut(t *testing.T) {
	a, b := New(t), New(t)
	Link(t, a, netip.MustParsePrefix("10.99.0.1/24"), b, netip.MustParsePrefix("10.99.0.2/24"))
	server := a.Echo(t, netip.MustParseAddrPort("127.0.0.1:0"))
	a.Addr(t, "lo", netip.MustParsePrefix("192.0.2.1/32"))
	outside := a.Echo(t, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), server.Port()))
	if b.Do(func() error { return echoes(outside) }) == nil {
		t.Error("reached without a route")
	}
	b.Default(t, netip.MustParseAddr("10.99.0.1"))
	b.Must(t, func() error { return echoes(outside) })
}

func TestAFunctionThatGivesUpIsAnErrorAndNotAHang(t *testing.T) {
	n := New(t)
	if err := n.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error")
	}
	sentinel := errors.New("mine")
	if err := n.Do(func() error { return sentinel }); err != sentinel {
		t.Errorf("Do = %v", err)
	}
}

func TestACgroupIsEnteredLeftAndRemoved(t *testing.T) {
	NeedRoot(t)
	before, err := ownCgroup()
	if err != nil {
		Skip(t, err.Error())
	}
	var dir string
	t.Run("inside", func(t *testing.T) {
		dir = Cgroup(t)
		nested := filepath.Join(dir, "nested")
		if err := os.Mkdir(nested, 0o755); err != nil {
			t.Fatal(err)
		}
		Enter(t, nested)
		if now, _ := ownCgroup(); now != nested {
			t.Errorf("in %s, want %s", now, nested)
		}
		// A child that nobody ended must not keep the cgroup from going.
		child := exec.Command("sleep", "60")
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = child.Process.Kill()
			_ = child.Wait()
		})
	})
	if now, _ := ownCgroup(); now != before {
		t.Errorf("in %s, want %s", now, before)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

func TestAPinDirIsOnABPFFileSystemThatGoes(t *testing.T) {
	var dir string
	t.Run("inside", func(t *testing.T) {
		dir = PinDir(t)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		// That file system has no plain files.
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err == nil {
			t.Error("a plain file can be made there")
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}
