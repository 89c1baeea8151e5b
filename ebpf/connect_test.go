package ebpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
	"waggle/lb"
)

const (
	vip4 = "11.0.0.1:80"
	vip6 = "[fd01::1]:80"
)

func TestConnectGoesToABackend(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	to4, to6 := b.sink(t, "127.0.0.1:0"), b.sink(t, "[::1]:0")
	apply(t, d,
		service(vip4, to4), service(vip6, to6),
		service("11.0.0.9:80"), service("[fd01::9]:80"), // without backends
	)
	mapped := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
	}
	for name, tc := range map[string]struct {
		connect, want netip.AddrPort
		err           error
	}{
		"over IPv4":                        {connect: addr(vip4), want: to4},
		"over IPv6":                        {connect: addr(vip6), want: to6},
		"from an IPv6 socket to IPv4":      {connect: mapped(addr(vip4)), want: mapped(to4)},
		"refused at once over IPv4":        {connect: addr("11.0.0.9:80"), err: unix.ECONNREFUSED},
		"refused at once over IPv6":        {connect: addr("[fd01::9]:80"), err: unix.ECONNREFUSED},
		"refused at once when mapped":      {connect: mapped(addr("11.0.0.9:80")), err: unix.ECONNREFUSED},
		"not for another port":             {connect: addr("11.0.0.1:81"), err: unix.ENETUNREACH},
		"not for another address":          {connect: addr("11.0.0.2:80"), err: unix.ENETUNREACH},
		"not for what is no VIP":           {connect: to4, want: to4},
		"not for what is no VIP over IPv6": {connect: to6, want: to6},
		"not for what is no VIP mapped":    {connect: mapped(to4), want: mapped(to4)},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			got, err := b.peer(tc.connect)
			if got != tc.want || !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Errorf("connect to %s: %s, %v, want %s, %v", tc.connect, got, err, tc.want, tc.err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestBytesReachTheBackendAndComeBack(t *testing.T) {
	b := newBed(t)
	apply(t, b.open(t), service(vip4, b.ns.Echo(t, addr("127.0.0.1:0"))))
	b.ns.Must(t, func() error {
		c, err := net.Dial("tcp", vip4)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		got := make([]byte, 5)
		if _, err := c.Read(got); err != nil || string(got) != "hello" {
			t.Errorf("echo: %q, %v", got, err)
		}
		return nil
	})
}

func TestMultipathTCPIsTCP(t *testing.T) {
	b := newBed(t)
	to := b.sink(t, "127.0.0.1:0")
	apply(t, b.open(t), service(vip4, to))
	var got netip.AddrPort
	err := b.ns.Do(func() (err error) {
		got, err = connectProto(addr(vip4), unix.IPPROTO_MPTCP)
		return err
	})
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOPROTOOPT) {
		testnet.Skip(t, "this kernel has no MPTCP")
	}
	if err != nil || got != to {
		t.Errorf("connect: %s, %v, want %s", got, err, to)
	}
}

func TestAnotherNamespaceAndANestedCgroupAreBalancedToo(t *testing.T) {
	b := newBed(t)
	apply(t, b.open(t), service(vip4, b.sink(t, "127.0.0.1:8080")))
	nested := filepath.Join(b.cfg.Cgroup, "nested")
	if err := os.Mkdir(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	testnet.Enter(t, nested)
	other := &bed{cfg: b.cfg, ns: testnet.New(t)}
	to := other.sink(t, "127.0.0.1:8080")
	if got, err := other.peer(addr(vip4)); err != nil || got != to {
		t.Errorf("connect: %s, %v, want %s", got, err, to)
	}
}

func TestOutsideTheCgroupNothingIsBalanced(t *testing.T) {
	b := newBed(t)
	apply(t, b.open(t), service(vip4, b.sink(t, "127.0.0.1:0")))
	root, err := testnet.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	testnet.Enter(t, root)
	if _, err := b.peer(addr(vip4)); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("connect: %v, want %v", err, unix.ENETUNREACH)
	}
}

func TestGetpeernameShowsTheVIPWhereAsked(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	to4, to6 := b.sink(t, "127.0.0.1:0"), b.sink(t, "[::1]:0")
	shown4, shown6 := service(vip4, to4), service(vip6, to6)
	shown4.Peername, shown6.Peername = true, true
	apply(t, d, shown4, shown6, service("11.0.0.2:80", to4))
	mapped := netip.AddrPortFrom(netip.AddrFrom16(addr(vip4).Addr().As16()), 80)
	for connectTo, want := range map[netip.AddrPort]netip.AddrPort{
		addr(vip4):          addr(vip4),
		addr(vip6):          addr(vip6),
		mapped:              mapped,
		addr("11.0.0.2:80"): to4,
		to4:                 to4,
	} {
		if got, err := b.peer(connectTo); err != nil || got != want {
			t.Errorf("connect to %s: getpeername shows %s, %v, want %s", connectTo, got, err, want)
		}
	}
	apply(t, d, service(vip4, to4))
	if got, err := b.peer(addr(vip4)); err != nil || got != to4 {
		t.Errorf("with the flag taken back getpeername shows %s, %v, want %s", got, err, to4)
	}
}

func TestASocketThatConnectsElsewhereForgetsTheVIP(t *testing.T) {
	b := newBed(t)
	gone, there := addr("127.0.0.1:1"), b.sink(t, "127.0.0.1:0")
	s := service(vip4, gone)
	s.Peername = true
	apply(t, b.open(t), s)
	b.ns.Must(t, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr(vip4).Addr().As4(), Port: 80}); !isRefused(err) {
			t.Errorf("connect to a dead backend: %v", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: there.Addr().As4(), Port: int(there.Port())}); err != nil {
			return err
		}
		got, err := unix.Getpeername(fd)
		if p, ok := got.(*unix.SockaddrInet4); !ok || p.Port != int(there.Port()) {
			t.Errorf("getpeername shows %+v, want %s", got, there)
		}
		return err
	})
}

// TestWeightsAreKept compares the shares of many connections with the weights.
// With 3000 connections the standard deviation of a share of 1/2 is 27; the
// bound of six of them fails by chance once in 500 million runs.
func TestWeightsAreKept(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	s := &lb.Service{Frontend: tcp(addr(vip4))}
	total := 0
	for i, w := range []uint16{100, 200, 300} {
		s.Backends = append(s.Backends, lb.Backend{Addr: b.sink(t, fmt.Sprintf("127.0.0.%d:8080", i+1)), Weight: w})
		total += int(w)
	}
	apply(t, d, s)
	const connects = 3000
	got := map[netip.AddrPort]int{}
	b.ns.Must(t, func() error {
		for range connects {
			to, err := connect(addr(vip4))
			if err != nil {
				return err
			}
			got[to]++
		}
		return nil
	})
	for _, be := range s.Backends {
		want := connects * int(be.Weight) / total
		if n := got[be.Addr]; n < want-6*27 || n > want+6*27 {
			t.Errorf("%s of weight %d got %d of %d connections, want about %d", be.Addr, be.Weight, n, connects, want)
		}
	}
}

func TestAFastOpenSocketReachesTheBackend(t *testing.T) {
	b := newBed(t)
	apply(t, b.open(t), service(vip4, b.ns.Echo(t, addr("127.0.0.1:0"))))
	b.ns.Must(t, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Addr: addr(vip4).Addr().As4(), Port: 80}); err != nil {
			return err
		}
		var got [1]byte
		if _, err := unix.Read(fd, got[:]); err != nil || got[0] != 'x' {
			t.Errorf("echo: %q, %v", got, err)
		}
		return nil
	})
}
