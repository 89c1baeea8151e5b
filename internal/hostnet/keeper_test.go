package hostnet_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"waggle/internal/hostnet"
	"waggle/internal/testnet"
)

var (
	first, second, third = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8::53")
)

// onLo returns the addresses of lo in ns, but for its own.
func onLo(t *testing.T, ns *testnet.Namespace) (out []string) {
	t.Helper()
	ns.Must(t, func() error {
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			return err
		}
		list, err := lo.Addrs()
		for _, a := range list {
			if p := netip.MustParsePrefix(a.String()); !p.Addr().IsLoopback() {
				out = append(out, p.String())
			}
		}
		return err
	})
	slices.Sort(out)
	return out
}

// keep runs a Keeper in ns and returns what ends it.
func keep(t *testing.T, ns *testnet.Namespace, memory string, addrs ...netip.Addr) (stop func()) {
	t.Helper()
	var k *hostnet.Keeper
	ns.Must(t, func() (err error) {
		k, err = hostnet.Keep(hostnet.KeeperConfig{Link: "lo", Addrs: addrs, Memory: memory}, zap.NewNop())
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "\n") {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestAddressesAreAddedKeptAndRemoved(t *testing.T) {
	ns := testnet.New(t)
	memory := filepath.Join(t.TempDir(), "state", "addresses")
	ns.Addr(t, "lo", netip.PrefixFrom(second, 32)) // somebody else's
	stop := keep(t, ns, memory, first, second, third)
	all := []string{"198.51.100.1/32", "198.51.100.2/32", "2001:db8::53/128"}
	if diff := cmp.Diff(all, onLo(t, ns)); diff != "" {
		t.Fatal(diff)
	}
	for _, gone := range []netip.Addr{first, third} {
		ns.DelAddr(t, "lo", netip.PrefixFrom(gone, gone.BitLen()))
		for deadline := time.Now().Add(time.Minute); !cmp.Equal(all, onLo(t, ns)); {
			if time.Now().After(deadline) {
				t.Fatalf("%s is not added again", gone)
			}
			<-time.After(time.Millisecond)
		}
	}
	stop()
	if diff := cmp.Diff([]string{"198.51.100.2/32"}, onLo(t, ns)); diff != "" {
		t.Errorf("afterwards: %s", diff)
	}
	if _, err := os.Stat(memory); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the memory is left: %v", err)
	}
}

func TestAddressesOfAKilledDaemonAreNotLeft(t *testing.T) {
	ns := testnet.New(t)
	memory := filepath.Join(t.TempDir(), "addresses")
	kill := func(addrs ...netip.Addr) { // one that does not get to clean up
		ns.Must(t, func() error {
			k, err := hostnet.Keep(hostnet.KeeperConfig{Link: "lo", Addrs: addrs, Memory: memory}, zap.NewNop())
			if err != nil {
				return err
			}
			text, err := os.ReadFile(memory)
			if err != nil {
				return err
			}
			// Ended as another process would be: its addresses and note stay.
			if err := os.WriteFile(memory, []byte(strings.Replace(string(text), " ", " 1", 1)), 0o600); err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := k.Run(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		})
	}
	kill(first, second)
	if got := onLo(t, ns); len(got) != 2 {
		t.Fatalf("left: %v", got)
	}
	stop := keep(t, ns, memory, first, third) // second is not configured any more
	if diff := cmp.Diff([]string{"198.51.100.1/32", "2001:db8::53/128"}, onLo(t, ns)); diff != "" {
		t.Error(diff)
	}
	stop()
	if got := onLo(t, ns); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestWhoHoldsAnAddress(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for network, addr := range map[string]string{"tcp": l.Addr().String(), "udp": c.LocalAddr().String()} {
			if got := hostnet.Holder(network, netip.MustParseAddrPort(addr)); !strings.HasPrefix(got, "hostnet.test (pid ") {
				t.Errorf("%s %s: %q", network, addr, got)
			}
		}
	}
	if got := hostnet.Holder("udp", netip.MustParseAddrPort("127.0.0.1:1")); got != "" {
		t.Errorf("a free port is held by %q", got)
	}
}
