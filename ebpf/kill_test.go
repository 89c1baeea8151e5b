package ebpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// held is a connection to a VIP, or straight to a backend, in a namespace.
type held struct {
	what string
	net.Conn
	via     vip.Frontend // whose sockets it is one of
	forgets bool         // the socket remembers no VIP
}

// told reports whether somebody has ended the socket.
func (h held) told() (bool, error) {
	if err := h.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return false, err
	}
	_, err := h.Write([]byte("x"))
	if err == nil {
		_, err = h.Read(make([]byte, 100))
	}
	if err == nil {
		return false, nil
	}
	for _, told := range []error{unix.ECONNABORTED, unix.EDESTADDRREQ, unix.EPIPE} {
		if errors.Is(err, told) {
			return true, nil
		}
	}
	return false, fmt.Errorf("%s: %w", h.what, err)
}

// killBed has two services of each protocol in front of one backend, both by
// IPv4 and by IPv6, and a second namespace whose clients reach them too.
type killBed struct {
	*bed
	d      *Dataplane
	spaces []*testnet.Namespace
	to     map[vip.Frontend]netip.AddrPort
}

func newKillBed(t *testing.T, tracked bool) *killBed {
	t.Helper()
	k := &killBed{bed: newBed(t), to: map[vip.Frontend]netip.AddrPort{}}
	t.Cleanup(k.occupy(t))
	other := testnet.New(t)
	t.Cleanup((&bed{ns: other}).occupy(t))
	testnet.Link(t, k.ns, netip.MustParsePrefix("10.7.0.1/24"), other, netip.MustParsePrefix("10.7.0.2/24"))
	k.ns.Addr(t, "wt1", netip.MustParsePrefix("fd07::1/64"))
	other.Addr(t, "wt1", netip.MustParsePrefix("fd07::2/64"))
	k.spaces = []*testnet.Namespace{k.ns, other}
	k.d = k.open(t)
	var services []*lb.Service
	for _, family := range []struct{ own, a, b string }{
		{"10.7.0.1:0", "11.0.0.1:80", "11.0.0.2:80"}, {"[fd07::1]:0", "[fd01::1]:80", "[fd01::2]:80"},
	} {
		stream, datagram := k.ns.Echo(t, addr(family.own)), k.answer(t, family.own)
		for _, v := range []string{family.a, family.b} {
			s := service(v, stream)
			s.Peername = tracked
			u := udpService(v, datagram)
			services = append(services, s, u)
			k.to[s.Frontend], k.to[u.Frontend] = stream, datagram
		}
	}
	apply(t, k.d, services...)
	return k
}

// all opens a connection to each VIP, to each backend and, from a socket of
// IPv6, to each VIP of IPv4, in each namespace.
func (k *killBed) all(t *testing.T, tracked bool) (out []held) {
	t.Helper()
	for n, ns := range k.spaces {
		for f, backend := range k.to {
			network := f.Proto.String()
			forgets := f.Proto == model.TCP && !tracked
			open := func(a netip.AddrPort, direct bool) {
				h := held{what: fmt.Sprintf("%s to %s in namespace %d", network, a, n), via: f, forgets: forgets || direct}
				ns.Must(t, func() (err error) { h.Conn, err = openTo(f.Proto, a); return err })
				t.Cleanup(func() { h.Close() })
				out = append(out, h)
			}
			open(f.Addr, false)
			if f.Addr.Addr().Is4() {
				open(mapped4(f.Addr), false)
			}
			open(backend, true)
		}
	}
	return out
}

// openTo connects from a socket of the address's family, as it is written.
func openTo(proto model.Proto, a netip.AddrPort) (net.Conn, error) {
	kind := unix.SOCK_STREAM
	if proto == model.UDP {
		kind = unix.SOCK_DGRAM
	}
	s := socket{family: unix.AF_INET6}
	if a.Addr().Is4() {
		s.family = unix.AF_INET
	}
	fd, err := unix.Socket(s.family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), a.String())
	defer file.Close()
	if err := unix.Connect(fd, s.sockaddr(a)); err != nil {
		return nil, err
	}
	return net.FileConn(file)
}

// newKernel reports whether the kernel has bpf_sock_destroy.
func newKernel(t *testing.T) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 5
}

// Row 4 of the balancers' issues: a backend that has left one service and stays
// in another loses the sockets of the first only.
func TestOnlySocketsOfTheServiceWhoseDrainEndedAreTold(t *testing.T) {
	for _, tracked := range []bool{true, false} {
		t.Run(fmt.Sprintf("TCP is tracked %v", tracked), func(t *testing.T) {
			k := newKillBed(t, tracked)
			precise := newKernel(t)
			if err := k.d.killer.ready(); (err == nil) != precise {
				t.Fatalf("has bpf_sock_destroy: %v, should be %v", err, precise)
			}
			conns := k.all(t, tracked)
			var first, second []lb.Drain
			for f, backend := range k.to {
				d := lb.Drain{Frontend: f, Backend: backend}
				if h := f.Addr.Addr().AsSlice(); h[len(h)-1] == 1 {
					d.Shared = true
					first = append(first, d)
				} else {
					second = append(second, d)
				}
			}
			isFirst := map[vip.Frontend]bool{}
			for _, d := range first {
				isFirst[d.Frontend] = true
			}
			// What remembers nothing is told apart by nothing, and lives.
			conns = k.expect(t, conns, first, func(h held) bool { return precise && isFirst[h.via] && !h.forgets })
			conns = k.expect(t, conns, second, func(h held) bool { return !precise || h.forgets || !isFirst[h.via] })
			if len(conns) != 0 {
				t.Errorf("%d sockets were never told", len(conns))
			}
		})
	}
}

// expect ends drains, holds that just those are told that should be, and
// returns the others.
func (k *killBed) expect(t *testing.T, conns []held, drains []lb.Drain, should func(held) bool) (living []held) {
	t.Helper()
	want := 0
	for _, h := range conns {
		if should(h) {
			want++
		}
	}
	n, err := k.d.Disconnect(drains)
	// A backend of this machine has the other end of TCP to itself.
	if err != nil || n != want {
		t.Errorf("Disconnect = %d, %v, want %d", n, err, want)
	}
	for _, h := range conns {
		told, err := h.told()
		if err != nil || told != should(h) {
			t.Errorf("%s: told %v, %v; want %v", h.what, told, err, should(h))
		}
		if !told {
			living = append(living, h)
		}
	}
	return living
}
