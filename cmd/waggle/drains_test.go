package main

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
)

// container is the client's namespace with a process in it, as a container has.
func (n *node) container(t *testing.T) *testnet.Namespace {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	n.client.Must(t, cmd.Start)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	return n.client
}

// speaker answers every datagram with its own address until the test ends.
func (n *node) speaker(t *testing.T) netip.AddrPort {
	t.Helper()
	var c net.PacketConn
	n.Must(t, func() (err error) { c, err = net.ListenPacket("udp", n.addr.String()+":0"); return err })
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 100)
		for {
			_, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(c.LocalAddr().String()), from) // who asks may be gone
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

// whom returns where a connection leads: TCP's peer, or the speaker that answers.
func whom(c net.Conn) (string, error) {
	if c.RemoteAddr().Network() == "tcp" {
		return c.RemoteAddr().String(), echoed(c)
	}
	buf := make([]byte, 100)
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return "", err
	}
	size, err := c.Read(buf)
	return string(buf[:size]), err
}

// dialFrom connects to a VIP until it got to want.
func dialFrom(t *testing.T, ns *testnet.Namespace, network string, at, want netip.AddrPort) net.Conn {
	t.Helper()
	var got net.Conn
	eventually(t, at.String()+" leads to "+want.String(), func() bool {
		err := ns.Do(func() (err error) { got, err = net.Dial(network, at.String()); return err })
		if err != nil {
			return false
		}
		if to, err := whom(got); err != nil || to != want.String() {
			got.Close()
			return false
		}
		return true
	})
	t.Cleanup(func() { got.Close() })
	return got
}

// Row 2 of the balancers' issues, and a drain time for each VIP: when the drain
// of a service ends, its clients in every network namespace are told, by TCP and
// by UDP; those of a service with a longer one are not. A UDP socket that was told
// connects again, to a backend that lives.
func TestEachVIPHasADrainOfItsOwnForClientsEverywhere(t *testing.T) {
	n := newNode(t)
	path, container := filepath.Join(n.state, "services.yaml"), n.container(t)
	tcp := n.echoes(t, 3)
	stays, leaves, slow := tcp[0], tcp[1], tcp[2]
	staysUDP, leavesUDP := n.speaker(t), n.speaker(t)
	const short, long = "VIP_0_DRAIN: 1s", "VIP_0_DRAIN: 1h"
	udp := func(app string, at netip.AddrPort) backendOf { return backendOf{app, "udp /names:53", at, short} }
	remain := []backendOf{{"a", "/short:80", stays, short}, {"b", "/long:80", stays, long}, udp("c", staysUDP)}
	rewrite(t, path, append(remain, backendOf{"d", "/short:80", leaves, ""}, backendOf{"e", "/long:80", slow, ""}, udp("f", leavesUDP))...)
	n.start(t, n.verb("run", "--file.paths", path)...)
	web, late, names := n.up(t, "short.static", 2), n.up(t, "long.static", 2), n.up(t, "names.static", 2)

	var told, toldUDP, live []net.Conn
	for _, ns := range []*testnet.Namespace{n.Namespace, container} {
		told = append(told, dialFrom(t, ns, "tcp", web, leaves))
		toldUDP = append(toldUDP, dialFrom(t, ns, "udp", names, leavesUDP))
		live = append(live, dialFrom(t, ns, "tcp", web, stays), dialFrom(t, ns, "tcp", late, slow), dialFrom(t, ns, "udp", names, staysUDP))
	}
	rewrite(t, path, remain...)
	for _, vip := range []string{"short.static", "long.static", "names.static"} {
		n.up(t, vip, 1)
	}
	for _, c := range told {
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("a reader was told %v, want ECONNABORTED", err)
		}
	}
	for _, c := range toldUDP {
		eventually(t, "a connected UDP socket is told", func() bool { _, err := c.Write([]byte("x")); return err != nil })
		again(t, c, names)
		// The kernel tells twice: that there is no peer, and why.
		if _, err := c.Write([]byte("x")); err != nil && !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("connected again: %v", err)
		}
		eventually(t, "the socket leads to the backend that stays", func() bool { // after answers of before
			to, err := whom(c)
			if err != nil {
				t.Fatal(err)
			}
			return to == staysUDP.String()
		})
	}
	for _, c := range live {
		if _, err := whom(c); err != nil {
			t.Errorf("a connection to %s, which stays or drains: %v", c.RemoteAddr(), err)
		}
	}
}

// again connects the same socket once more.
func again(t *testing.T, c net.Conn, at netip.AddrPort) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	control := raw.Control(func(fd uintptr) {
		err = unix.Connect(int(fd), &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())})
	})
	if err := errors.Join(control, err); err != nil {
		t.Fatal(err)
	}
}

// Row 4: a backend leaves one of the two services that the labels of its port ask
// for. Its sockets of that service are told, those of the other live, though their
// far ends are the same and neither service asks for anything that tracks them.
func TestA03_4_SocketsOfTheServiceThatWasLeftAreTold(t *testing.T) {
	n := newNode(t)
	echoes, path := n.echoes(t, 2), filepath.Join(n.state, "services.yaml")
	stays, both := echoes[0], echoes[1]
	rest := []backendOf{{"a", "/web:80", stays, "VIP_0_DRAIN: 1s"}, {"b", "/other:80", stays, ""}}
	rewrite(t, path, append(rest, backendOf{"c", "/other:80", both, "VIP_1: '/web:80'"})...)
	n.start(t, n.verb("run", "--file.paths", path)...)
	web, other := n.up(t, "web.static", 2), n.up(t, "other.static", 2)
	told := []net.Conn{n.reach(t, web, both), n.reach(t, web, both)}
	live := []net.Conn{n.reach(t, other, both), n.reach(t, web, stays), n.reach(t, other, stays)}
	rewrite(t, path, append(rest, backendOf{"c", "/other:80", both, ""})...)
	n.up(t, "web.static", 1)
	for _, c := range told {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("%s was told %v, want ECONNABORTED", c.LocalAddr(), err)
		}
	}
	for _, c := range live {
		if err := echoed(c); err != nil {
			t.Errorf("%s: %v", c.RemoteAddr(), err)
		}
	}
}
