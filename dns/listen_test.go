package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
)

// start runs a Server and returns what stops it and waits.
func start(t *testing.T, cfg ServerConfig, z *Zone) (s *Server, stop func()) {
	t.Helper()
	s = NewServer(cfg, func() *Zone { return z }, zap.NewNop(), nil)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// burst sends n queries from sockets of their own and returns how many answers
// it is still to get.
func burst(t *testing.T, to netip.AddrPort, n int) (rest func() int) {
	t.Helper()
	var conns []net.Conn
	for i := range n {
		conn := dial(t, protoUDP, to)
		query := numbered(t, i, nameA)
		if i%4 == 0 { // one that goes the slow way
			query = withOPT(query, 0, 3, 0, 0)
		}
		if _, err := conn.Write(query); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	return func() (lost int) {
		buf := make([]byte, maxUDP)
		for _, conn := range conns {
			if _, err := conn.Read(buf); err != nil {
				lost++
			}
			_ = conn.Close()
		}
		return lost
	}
}

func TestNoQueryIsLostWhenOneServerHandsOverToTheNext(t *testing.T) {
	z := testZone()
	cfg := DefaultServerConfig()
	cfg.Handover, cfg.Loop = true, LoopRaw
	cfg.Listen = []netip.AddrPort{local(0)}
	first, stop := start(t, cfg, z)
	cfg.Listen = first.Addrs()
	for range 10 {
		_, stopNext := start(t, cfg, z)
		rest := burst(t, cfg.Listen[0], 200)
		stop()
		more := burst(t, cfg.Listen[0], 50)
		if lost := rest() + more(); lost > 0 {
			t.Fatalf("%d lost", lost)
		}
		if err := answered(protoTCP, cfg.Listen[0]); err != nil {
			t.Fatal(err)
		}
		stop = stopNext
	}
	stop()
}

// manager opens what a service manager would, a UDP socket and a TCP listener on
// an address that no other test uses, and returns what hands out duplicates.
func manager(t *testing.T) (at netip.AddrPort, files func() []*os.File) {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.77.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	l, err := net.Listen("tcp4", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return netip.MustParseAddrPort(pc.LocalAddr().String()), func() (out []*os.File) {
		for _, s := range []interface{ File() (*os.File, error) }{pc.(*net.UDPConn), l.(*net.TCPListener)} {
			f, err := s.File()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, f)
		}
		return out
	}
}

func TestInheritedSocketsOutliveTheServer(t *testing.T) {
	z := testZone()
	at, files := manager(t)
	for _, loop := range []Loop{LoopRaw, LoopPlain} {
		cfg := DefaultServerConfig()
		cfg.Loop, cfg.Listen = loop, []netip.AddrPort{at}
		for range 3 {
			rest := burst(t, at, 20) // while nobody reads
			cfg.Inherited = files()
			s, stop := start(t, cfg, z)
			if got := fmt.Sprint(s.Addrs()); got != fmt.Sprint([]netip.AddrPort{at}) {
				t.Errorf("listening on %s", got)
			}
			if lost := rest(); lost > 0 {
				t.Errorf("%s: %d lost", loop, lost)
			}
			if err := answered(protoTCP, at); err != nil {
				t.Errorf("%s: %v", loop, err)
			}
			stop()
		}
	}
}

func TestAHalfInheritedAddressIsCompleted(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.77.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	f, err := pc.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultServerConfig()
	cfg.Inherited, cfg.Listen = []*os.File{f}, []netip.AddrPort{netip.MustParseAddrPort(pc.LocalAddr().String())}
	s, stop := start(t, cfg, testZone())
	defer stop()
	for _, proto := range []string{protoUDP, protoTCP} {
		if err := answered(proto, s.Addrs()[0]); err != nil {
			t.Error(err)
		}
	}
}

func TestSocketsOfTheServiceManager(t *testing.T) {
	if os.Getenv("LISTEN_FDS") != "" { // the child
		t.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
		files := Activated()
		if len(files) != 2 || os.Getenv("LISTEN_FDS") != "" {
			t.Fatalf("got %v", files)
		}
		cfg := DefaultServerConfig()
		cfg.Inherited = files
		s, stop := start(t, cfg, testZone())
		fmt.Println("addresses", len(s.Addrs()), len(s.sockets))
		stop()
		return
	}
	_, files := manager(t)
	inherited := files()
	for _, f := range inherited {
		defer f.Close()
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "LISTEN_FDS=2")
	cmd.ExtraFiles = inherited
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "addresses 1 2\n") {
		t.Errorf("%v: %s", err, out)
	}
	t.Setenv("LISTEN_FDS", "2")
	t.Setenv("LISTEN_PID", "1")
	if got := Activated(); got != nil {
		t.Errorf("sockets of another process: %v", got)
	}
}

// answered asks until there is an answer: the kernel takes a moment to use an
// address that is new.
func answered(proto string, at netip.AddrPort) error {
	c := &dns.Client{Net: proto, Timeout: time.Second}
	for deadline := time.Now().Add(time.Minute); ; {
		r, _, err := c.Exchange(ask(nameA, dns.TypeA), at.String())
		if err == nil && len(r.Answer) == 1 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s %s: %v, %w", proto, at, r, err)
		}
	}
}

func TestRepliesLeaveInOnePiece(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		addr := netip.MustParseAddrPort(at)
		conn, err := openUDP(addr, false)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			if v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER); v != unix.IP_PMTUDISC_PROBE {
				t.Errorf("%s over IPv4: %d, %v", at, v, err)
			}
			if v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER); addr.Addr().Is6() && v != unix.IPV6_PMTUDISC_PROBE {
				t.Errorf("%s: %d, %v", at, v, err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnAddressMayComeAfterTheServer(t *testing.T) {
	ns := testnet.New(t)
	z := testZone()
	addrs := []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:53"), netip.MustParseAddrPort("[2001:db8::53]:53")}
	for _, loop := range []Loop{LoopRaw, LoopPlain} {
		cfg := DefaultServerConfig()
		cfg.Listen, cfg.Loop = addrs, loop
		var stop func()
		ns.Must(t, func() error { _, stop = start(t, cfg, z); return nil })
		for _, a := range addrs {
			prefix := netip.PrefixFrom(a.Addr(), a.Addr().BitLen())
			ns.Addr(t, "lo", prefix)
			for _, proto := range []string{protoUDP, protoTCP} {
				ns.Must(t, func() error { return answered(proto, a) })
			}
			ns.DelAddr(t, "lo", prefix)
		}
		stop()
	}
}

func TestWhoUsesAnAddressIsSaid(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	cfg := DefaultServerConfig()
	cfg.Listen = []netip.AddrPort{netip.MustParseAddrPort(pc.LocalAddr().String())}
	err = NewServer(cfg, testZone, zap.NewNop(), nil).Listen()
	want := fmt.Sprintf("address already in use by dns.test (pid %d)", os.Getpid())
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "over UDP") {
		t.Errorf("got %v", err)
	}
}
