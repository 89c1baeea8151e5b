package hostnet_test

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"waggle/internal/hostnet"
	"waggle/internal/testnet"
	"waggle/model"
)

// inhabited is a namespace with a process in it.
func inhabited(t testing.TB) *testnet.Namespace {
	t.Helper()
	ns := testnet.New(t)
	ns.Inhabit(t)
	return ns
}

// dial connects inside ns, by the given network.
func dial(t *testing.T, ns *testnet.Namespace, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	var c net.Conn
	ns.Must(t, func() (err error) { c, err = net.Dial(network, to.String()); return err })
	t.Cleanup(func() { c.Close() })
	return c
}

// outcome says how a read ends: it blocks until somebody ends the socket.
func outcome(t *testing.T, c net.Conn) error {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// Row 2 of the balancers' issues: sockets in every namespace are told.
func TestSocketsOfEveryNamespaceAreEnded(t *testing.T) {
	a, b := inhabited(t), inhabited(t)
	peers := map[hostnet.Peer]bool{}
	var doomed, living []net.Conn
	var udp []net.Conn
	for _, ns := range []*testnet.Namespace{a, b} {
		gone, stays := ns.Echo(t, netip.MustParseAddrPort("127.0.0.1:0")), ns.Echo(t, netip.MustParseAddrPort("127.0.0.1:0"))
		gone6 := ns.Echo(t, netip.MustParseAddrPort("[::1]:0"))
		for _, p := range []netip.AddrPort{gone, gone6} {
			peers[hostnet.Peer{Proto: model.TCP, Addr: p}] = true
			doomed = append(doomed, dial(t, ns, "tcp", p))
		}
		peers[hostnet.Peer{Proto: model.UDP, Addr: gone}] = true
		udp = append(udp, dial(t, ns, "udp", gone))
		living = append(living, dial(t, ns, "tcp", stays))
	}
	n, err := hostnet.Disconnect(peers)
	if err != nil || n < len(doomed)+len(udp) {
		t.Fatalf("Disconnect = %d, %v, want %d or more", n, err, len(doomed)+len(udp))
	}
	for _, c := range doomed {
		if err := outcome(t, c); !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("%s: read ended with %v, want ECONNABORTED", c.RemoteAddr(), err)
		}
	}
	for _, c := range udp {
		if _, err := c.Write([]byte("x")); !errors.Is(err, unix.EDESTADDRREQ) && !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("%s: write gave %v, want a socket without a peer", c.RemoteAddr(), err)
		}
	}
	for _, c := range living {
		if _, err := c.Write([]byte("x")); err != nil || outcome(t, c) != nil {
			t.Errorf("%s: a connection to another backend is gone", c.RemoteAddr())
		}
	}
}

func TestPrefixesHoldTheRangeAndNoMore(t *testing.T) {
	for _, tt := range []struct {
		first, last string
		want        []string
	}{
		{"11.0.0.0", "11.255.255.255", []string{"11.0.0.0/8"}},
		{"10.0.0.1", "10.0.0.1", []string{"10.0.0.1/32"}},
		{"10.0.0.1", "10.0.0.6", []string{"10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"}},
		{"255.255.255.254", "255.255.255.255", []string{"255.255.255.254/31"}},
		{"fd01:c::", "fd01:c::ffff:ffff:ffff:ffff", []string{"fd01:c::/64"}},
	} {
		var got []string
		for _, p := range hostnet.Prefixes(netip.MustParseAddr(tt.first), netip.MustParseAddr(tt.last)) {
			got = append(got, p.String())
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s-%s (-want +got):\n%s", tt.first, tt.last, d)
		}
	}
}

// Row 11: a ping to a VIP is answered and goes nowhere.
func TestLocalPrefixesAnswerAndRefuse(t *testing.T) {
	ns := testnet.New(t)
	four, six, other := netip.MustParsePrefix("11.0.0.0/8"), netip.MustParsePrefix("fd01:c::/64"), netip.MustParsePrefix("12.0.0.0/8")
	set := func(want int, list ...netip.Prefix) {
		t.Helper()
		ns.Must(t, func() error {
			n, err := hostnet.SetLocal(list)
			if n != want {
				t.Errorf("SetLocal(%v) changed %d routes, want %d", list, n, want)
			}
			return err
		})
	}
	connect := func(to string) error {
		return ns.Do(func() error {
			c, err := net.Dial("tcp", to)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	set(2, four, six)
	set(0, four, six)
	for _, to := range []string{"11.2.3.4:80", "[fd01:c::7]:80"} {
		if err := connect(to); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("connect to %s: %v, want a refusal", to, err)
		}
	}
	for _, to := range []string{"11.2.3.4", "fd01:c::7"} {
		// A TTL of 1: whoever forwards it does not answer.
		ping := exec.Command("ping", "-c1", "-t1", "-W10", to)
		if err := ns.Do(func() error { return ping.Start() }); err != nil {
			t.Fatal(err)
		}
		if err := ping.Wait(); err != nil {
			t.Errorf("ping %s: %v", to, err)
		}
	}
	set(3, other)
	if err := connect("11.2.3.4:80"); errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connect after the route went: %v", err)
	}
	set(1)
}
