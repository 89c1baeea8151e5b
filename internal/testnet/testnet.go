// Package testnet gives tests a network of their own: namespaces with loopback
// up, links between them, cgroups, and echo servers, all gone when the test
// ends however it ends. Nothing here touches the machine's own network.
package testnet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"waggle/internal/hostnet"
)

// NoSkip names the environment variable that, when set, turns every skip of
// this package into a failure: CI sets it, since nothing may be skipped there.
const NoSkip = "WAGGLE_NO_SKIP"

// Skip skips the test for the given reason, or fails it where nothing may be
// skipped.
func Skip(tb testing.TB, reason string) {
	tb.Helper()
	if os.Getenv(NoSkip) != "" {
		tb.Fatalf("may not be skipped here (%s is set): %s", NoSkip, reason)
	}
	tb.Skip(reason)
}

// NeedRoot skips the test unless it runs as root.
func NeedRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Skip(tb, "needs root")
	}
}

// Namespace is a network namespace with loopback up. Its methods are safe for
// concurrent use.
type Namespace struct {
	handle netns.NsHandle
	links  atomic.Uint32 // made so far, to name the next
}

// New makes a namespace that lasts as long as the test. It needs root.
func New(tb testing.TB) *Namespace {
	tb.Helper()
	NeedRoot(tb)
	n := &Namespace{handle: netns.None()}
	err := hostnet.OnThread(func() (err error) {
		if n.handle, err = netns.New(); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	tb.Cleanup(func() {
		if n.handle.IsOpen() {
			n.handle.Close()
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// Do runs f on a thread inside the namespace. Sockets that f makes stay in the
// namespace wherever they are used; goroutines that f starts do not.
func (n *Namespace) Do(f func() error) error {
	return hostnet.OnThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// Must is Do for what a test cannot go on without.
func (n *Namespace) Must(tb testing.TB, f func() error) {
	tb.Helper()
	if err := n.Do(f); err != nil {
		tb.Fatal(err)
	}
}

// File makes the namespace a file, as ip-netns(8) does, and returns its path.
// It is there as long as the test.
func (n *Namespace) File(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	n.Must(tb, func() error { return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "") })
	tb.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			tb.Errorf("unmount %s: %v", path, err)
		}
	})
	return path
}

// Link connects two namespaces by a veth pair and gives each end an address,
// with the prefix that reaches the other.
func Link(tb testing.TB, a *Namespace, addrA netip.Prefix, b *Namespace, addrB netip.Prefix) {
	tb.Helper()
	nameA, nameB := a.linkName(), b.linkName()
	a.Must(tb, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.handle)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make veth pair: %w", err)
		}
		return setUp(nameA, addrA)
	})
	b.Must(tb, func() error { return setUp(nameB, addrB) })
}

// Cut takes the namespace's first link down: whoever is on the other end hears
// nothing more, and is told nothing. Mend takes it up again.
func (n *Namespace) Cut(tb testing.TB) {
	tb.Helper()
	n.Must(tb, func() error { return onFirstLink(netlink.LinkSetDown) })
}

// Mend undoes Cut.
func (n *Namespace) Mend(tb testing.TB) {
	tb.Helper()
	n.Must(tb, func() error { return onFirstLink(netlink.LinkSetUp) })
}

func onFirstLink(do func(netlink.Link) error) error {
	link, err := netlink.LinkByName("wt1")
	if err != nil {
		return err
	}
	return do(link)
}

func (n *Namespace) linkName() string { return fmt.Sprintf("wt%d", n.links.Add(1)) }

// Addr gives the named interface a further address.
func (n *Namespace) Addr(tb testing.TB, link string, addr netip.Prefix) {
	tb.Helper()
	n.Must(tb, func() error { return setUp(link, addr) })
}

// DelAddr takes an address from the named interface.
func (n *Namespace) DelAddr(tb testing.TB, link string, addr netip.Prefix) {
	tb.Helper()
	n.Must(tb, func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr.String())
		if err != nil {
			return err
		}
		return netlink.AddrDel(l, a)
	})
}

func setUp(name string, addr netip.Prefix) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(addr.String())
	if err != nil {
		return err
	}
	if addr.Addr().Is6() {
		a.Flags = 0x02 // IFA_F_NODAD: usable at once
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, addr, err)
	}
	return netlink.LinkSetUp(l)
}

// Default gives the namespace a default route by way of gateway.
func (n *Namespace) Default(tb testing.TB, gateway netip.Addr) {
	tb.Helper()
	n.Must(tb, func() error { return netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}) })
}

// Inhabit keeps a process in the namespace until the test ends, as a container's
// is.
func (n *Namespace) Inhabit(tb testing.TB) {
	tb.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	n.Must(tb, cmd.Start)
	tb.Cleanup(func() { in.Close(); _ = cmd.Wait() })
}

// Echo serves TCP on addr inside the namespace until the test ends: it sends
// back what it receives. Port 0 picks a free one; the result has it.
func (n *Namespace) Echo(tb testing.TB, addr netip.AddrPort) netip.AddrPort {
	tb.Helper()
	return n.Serve(tb, addr, func(c net.Conn) {
		_, _ = io.Copy(c, c) // a client may go away at any moment
	})
}

// Serve is Echo with another answer. The connection is closed when handle
// returns, and when the test ends.
func (n *Namespace) Serve(tb testing.TB, addr netip.AddrPort, handle func(c net.Conn)) netip.AddrPort {
	tb.Helper()
	var l net.Listener
	n.Must(tb, func() (err error) {
		l, err = net.Listen("tcp", addr.String())
		return err
	})
	over, end := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				defer context.AfterFunc(over, func() { c.Close() })()
				handle(c)
			})
		}
	})
	tb.Cleanup(func() {
		end()
		l.Close()
		conns.Wait()
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

// PinDir mounts a bpf file system of the test's own and returns a folder on it
// that does not exist yet.
func PinDir(tb testing.TB) string {
	tb.Helper()
	NeedRoot(tb)
	dir := tb.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		Skip(tb, fmt.Sprintf("mount a bpf file system: %v", err))
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Errorf("unmount %s: %v", dir, err)
		}
	})
	return filepath.Join(dir, "waggle")
}
