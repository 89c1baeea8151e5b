package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
)

// Every kind of client reaches a VIP: on the node and in a container's network
// namespace, in a nested cgroup, in user and other namespaces; by TCP, UDP, a
// v4-mapped address, MPTCP and TCP fast open. The node's own are hairpins, since
// the backend is on the node. Clients of TCP and UDP that ask see the VIP, where
// that is switched on; ss sees the backend.
func TestEveryKindOfClientReachesAVIP(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.state, "services.yaml")
	backend := n.Echo(t, netip.AddrPortFrom(n.addr, 0))
	rewrite(t, path, backendOf{"a", "/web:80", backend, ""}, backendOf{"b", "udp /names:80", n.speaker(t), ""})
	n.start(t, n.verb("run", "--file.paths", path, "--lb.peername")...)
	at, names := n.up(t, "web.static", 1), n.up(t, "names.static", 1)
	if names.Port() != at.Port() {
		t.Fatalf("the VIPs are %s and %s", at, names)
	}
	c, err := n.dial(t.Context(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	shell(t, n.Namespace, fmt.Sprintf("ss -Htn src %s | grep -qF %s", c.LocalAddr(), backend))
	for where, ns := range map[string]*testnet.Namespace{"the node": n.Namespace, "a container": n.client} {
		for how, try := range map[string]func(netip.AddrPort) error{
			"TCP": dialAndEcho, "getpeername": seen, "MPTCP": multipath, "a v4-mapped address": mapped, "TCP fast open": fastOpen,
		} {
			if err := ns.Do(func() error { return try(at) }); err != nil {
				t.Errorf("%s by %s: %v", where, how, err)
			}
		}
		if err := ns.Do(func() error { return askUDP(names) }); err != nil {
			t.Errorf("%s by UDP: %v", where, err)
		}
		for how, attr := range kinds(t, n.cgroup) {
			cmd := exec.Command("bash", "-ec", fmt.Sprintf(`exec 3<>/dev/tcp/%s/%d; echo x >&3; read -t 20 <&3
				exec 4<>/dev/udp/%s/%d; echo x >&4; read -t 20 -N 9 <&4`, at.Addr(), at.Port(), names.Addr(), names.Port()))
			cmd.SysProcAttr = attr
			if err := ns.Do(cmd.Start); err != nil {
				t.Fatalf("%s in %s: %v", where, how, err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s in %s: %v", where, how, err)
			}
		}
	}
}

// kinds are places that a process may be in.
func kinds(t *testing.T, cgroup string) map[string]*syscall.SysProcAttr {
	t.Helper()
	nested, err := os.MkdirTemp(cgroup, "nested-")
	if err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(nested, "deep")
	if err := os.Mkdir(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(deep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	own := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	return map[string]*syscall.SysProcAttr{
		"a nested cgroup": {UseCgroupFD: true, CgroupFD: int(dir.Fd())},
		"a user namespace": {
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
			UidMappings: own, GidMappings: own, UseCgroupFD: true, CgroupFD: int(dir.Fd()),
		},
	}
}

func dialAndEcho(at netip.AddrPort) error { return dialBy(&net.Dialer{}, at) }

func multipath(at netip.AddrPort) error {
	var d net.Dialer
	d.SetMultipathTCP(true)
	return dialBy(&d, at)
}

func dialBy(d *net.Dialer, at netip.AddrPort) error {
	c, err := d.Dial("tcp", at.String())
	if err != nil {
		return err
	}
	defer c.Close()
	return echoed(c)
}

// seen is dialAndEcho by a client that asks where it got to.
func seen(at netip.AddrPort) error {
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if c.RemoteAddr().String() != at.String() {
		return fmt.Errorf("getpeername shows %s, want %s", c.RemoteAddr(), at)
	}
	return echoed(c)
}

// askUDP asks by a connected socket and by one that is not; both are answered by
// the VIP.
func askUDP(at netip.AddrPort) error {
	c, err := net.Dial("udp", at.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := whom(c); err != nil {
		return err
	}
	open, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	defer open.Close()
	if err := open.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := open.WriteToUDPAddrPort([]byte("x"), at); err != nil {
		return err
	}
	if _, from, err := open.ReadFromUDPAddrPort(make([]byte, 100)); err != nil || from != at {
		return fmt.Errorf("answered by %s, want %s: %w", from, at, err)
	}
	return nil
}

// mapped connects an IPv6 socket to ::ffff:a.b.c.d, as every JVM does.
func mapped(at netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())}); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 1))
	return err
}

// fastOpen connects by sending.
func fastOpen(at netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 1))
	return err
}
