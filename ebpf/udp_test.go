package ebpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

func udp(a netip.AddrPort) vip.Frontend { return vip.Frontend{Addr: a, Proto: model.UDP} }

func udpService(frontend string, backends ...netip.AddrPort) *lb.Service {
	s := service(frontend, backends...)
	s.Frontend.Proto = model.UDP
	return s
}

// answer serves UDP at a in the namespace until the test ends: to every
// datagram it answers its own address.
func (b *bed) answer(tb testing.TB, a string) netip.AddrPort {
	tb.Helper()
	var c *net.UDPConn
	b.ns.Must(tb, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr(a)))
		return err
	})
	own := addr(c.LocalAddr().String())
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 100)
		for {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort([]byte(own.String()), from) // the client may be gone
		}
	}()
	tb.Cleanup(func() {
		c.Close()
		<-done
	})
	return own
}

// socket is a UDP socket by the bare system calls, in the bed's namespace.
type socket struct{ fd, family int }

func (b *bed) socket(tb testing.TB, family int) socket {
	tb.Helper()
	s := socket{family: family}
	b.ns.Must(tb, func() (err error) {
		if s.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60})
	})
	tb.Cleanup(func() { unix.Close(s.fd) })
	return s
}

func (s socket) sockaddr(a netip.AddrPort) unix.Sockaddr {
	if s.family == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func fromSockaddr(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// ask sends to a and returns who answered and whom the answer is shown to be
// from. The zero address is for a connected socket.
func (s socket) ask(a netip.AddrPort) (who, from netip.AddrPort, err error) {
	if a.IsValid() {
		err = unix.Sendto(s.fd, []byte("?"), 0, s.sockaddr(a))
	} else {
		_, err = unix.Write(s.fd, []byte("?"))
	}
	if err != nil {
		return who, from, fmt.Errorf("send to %s: %w", a, err)
	}
	buf := make([]byte, 100)
	n, sa, err := unix.Recvfrom(s.fd, buf, 0)
	for errors.Is(err, unix.EINTR) { // the runtime's signals end a wait that has a limit
		n, sa, err = unix.Recvfrom(s.fd, buf, 0)
	}
	if err != nil {
		return who, from, fmt.Errorf("answer from %s: %w", a, err)
	}
	return addr(string(buf[:n])), fromSockaddr(sa), nil
}

func mapped4(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

func TestUDPGoesToABackendAndIsAnsweredByTheVIP(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	to4, to6 := b.answer(t, "127.0.0.1:0"), b.answer(t, "[::1]:0")
	apply(t, d, udpService(vip4, to4), udpService(vip6, to6), udpService("11.0.0.9:80"), udpService("[fd01::9]:80"))
	for name, tc := range map[string]struct {
		family   int
		ask, who netip.AddrPort
		refused  bool
	}{
		"over IPv4":                        {family: unix.AF_INET, ask: addr(vip4), who: to4},
		"over IPv6":                        {family: unix.AF_INET6, ask: addr(vip6), who: to6},
		"from an IPv6 socket to IPv4":      {family: unix.AF_INET6, ask: mapped4(addr(vip4)), who: to4},
		"what is no VIP":                   {family: unix.AF_INET, ask: to4, who: to4},
		"what is no VIP over IPv6":         {family: unix.AF_INET6, ask: to6, who: to6},
		"what is no VIP mapped":            {family: unix.AF_INET6, ask: mapped4(to4), who: to4},
		"refused without backends":         {family: unix.AF_INET, ask: addr("11.0.0.9:80"), refused: true},
		"refused without backends mapped":  {family: unix.AF_INET6, ask: mapped4(addr("11.0.0.9:80")), refused: true},
		"refused without backends by IPv6": {family: unix.AF_INET6, ask: addr("[fd01::9]:80"), refused: true},
	} {
		t.Run("sent "+name, func(t *testing.T) {
			who, from, err := b.socket(t, tc.family).ask(tc.ask)
			if tc.refused {
				if !isRefused(err) {
					t.Errorf("got %v, want a refusal", err)
				}
				return
			}
			if who != tc.who || from != tc.ask || err != nil {
				t.Errorf("%s answered, shown as %s, %v; want %s as %s", who, from, err, tc.who, tc.ask)
			}
		})
		t.Run("connected "+name, func(t *testing.T) {
			s := b.socket(t, tc.family)
			if err := unix.Connect(s.fd, s.sockaddr(tc.ask)); isRefused(err) != tc.refused || err != nil && !tc.refused {
				t.Fatalf("connect: %v", err)
			}
			if tc.refused {
				return
			}
			peer, err := unix.Getpeername(s.fd)
			if got := fromSockaddr(peer); got != tc.ask || err != nil {
				t.Errorf("getpeername shows %s, %v, want %s", got, err, tc.ask)
			}
			who, from, err := s.ask(netip.AddrPort{})
			if who != tc.who || from != tc.ask || err != nil {
				t.Errorf("%s answered, shown as %s, %v; want %s as %s", who, from, err, tc.who, tc.ask)
			}
		})
	}
}

// TestA03_1_AUDPSocketIsNeverPinnedToADeadBackend is row 1 of the list of what
// users of other balancers suffer from: a socket keeps its backend while the
// service has it, through any change of the list, and no longer.
func TestA03_1_AUDPSocketIsNeverPinnedToADeadBackend(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	var all []netip.AddrPort
	for i := range 8 {
		all = append(all, b.answer(t, fmt.Sprintf("127.0.0.%d:5353", i+1)))
	}
	apply(t, d, udpService(vip4, all...))
	sockets := make([]socket, 20)
	has := make([]netip.AddrPort, len(sockets))
	ask := func(i int) netip.AddrPort {
		t.Helper()
		who, from, err := sockets[i].ask(addr(vip4))
		if err != nil || from != addr(vip4) {
			t.Fatalf("%s answered, shown as %s, %v", who, from, err)
		}
		return who
	}
	for i := range sockets {
		sockets[i] = b.socket(t, unix.AF_INET)
		has[i] = ask(i)
	}
	// Again and again the first backend leaves and comes back.
	for round := range 6 {
		gone := all[round]
		left := append(append([]netip.AddrPort{}, all[:round]...), all[round+1:]...)
		apply(t, d, udpService(vip4, left...))
		for i := range sockets {
			who := ask(i)
			if who == gone || has[i] != gone && who != has[i] {
				t.Fatalf("round %d: a socket that had %s has %s, %s is gone", round, has[i], who, gone)
			}
			has[i] = who
		}
		apply(t, d, udpService(vip4, all...))
		for i := range sockets {
			if who := ask(i); who != has[i] {
				t.Fatalf("round %d: a socket that had %s has %s", round, has[i], who)
			}
		}
	}
	apply(t, d, udpService(vip4))
	if _, _, err := sockets[0].ask(addr(vip4)); !isRefused(err) {
		t.Errorf("with no backend left: %v", err)
	}
	apply(t, d, udpService(vip4, all[7]))
	if who := ask(0); who != all[7] {
		t.Errorf("with one backend again %s answers, want %s", who, all[7])
	}
}

func TestAUDPSocketKeepsItsBackendThroughARestart(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	all := []netip.AddrPort{}
	for i := range 8 {
		all = append(all, b.answer(t, fmt.Sprintf("127.0.0.%d:5353", i+1)))
	}
	apply(t, d, udpService(vip4, all...))
	s := b.socket(t, unix.AF_INET)
	before, _, err := s.ask(addr(vip4))
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	d = b.open(t)
	apply(t, d, udpService(vip4, all...))
	if who, from, err := s.ask(addr(vip4)); who != before || from != addr(vip4) || err != nil {
		t.Errorf("%s answers, shown as %s, %v; want %s", who, from, err, before)
	}
}

func TestOneUDPSocketTalksToManyVIPs(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	var services []*lb.Service
	var vips []netip.AddrPort
	for i := range 6 { // more than a socket remembers
		vips = append(vips, addr(fmt.Sprintf("11.0.0.%d:53", i+1)))
		services = append(services, udpService(vips[i].String(),
			b.answer(t, fmt.Sprintf("127.0.1.%d:5353", i+1)), b.answer(t, fmt.Sprintf("127.0.2.%d:5353", i+1))))
	}
	apply(t, d, services...)
	s := b.socket(t, unix.AF_INET)
	first := map[netip.AddrPort]netip.AddrPort{}
	for round := range 50 {
		for i, v := range vips[:4] {
			who, from, err := s.ask(v)
			if err != nil || from != v || who.Addr().As4()[3] != byte(i+1) {
				t.Fatalf("round %d: asked %s, %s answered, shown as %s, %v", round, v, who, from, err)
			}
			if round == 0 {
				first[v] = who
			} else if first[v] != who {
				t.Fatalf("round %d: %s answers for %s, %s did before", round, who, v, first[v])
			}
		}
	}
	for round := range 10 {
		for i, v := range vips {
			who, from, err := s.ask(v)
			if err != nil || from != v || who.Addr().As4()[3] != byte(i+1) {
				t.Fatalf("round %d of all: asked %s, %s answered, shown as %s, %v", round, v, who, from, err)
			}
		}
	}
}

func TestUDPSocketsAreCountedOncePerVIP(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	to := b.answer(t, "127.0.0.1:0")
	s := udpService(vip4, to)
	s.Choice = lb.LeastActive
	apply(t, d, s)
	sock := b.socket(t, unix.AF_INET)
	for range 5 {
		if _, _, err := sock.ask(addr(vip4)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[vip.Frontend][]lb.BackendStats{udp(addr(vip4)): {{Addr: to, Connections: 1, Active: 1}}}
	if diff := cmp.Diff(want, stats(d), compareFrontends); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// stats collects what BackendStats yields.
func stats(d *Dataplane) map[vip.Frontend][]lb.BackendStats {
	out := map[vip.Frontend][]lb.BackendStats{}
	for f, s := range d.BackendStats() {
		out[f] = append(out[f], s)
	}
	return out
}
