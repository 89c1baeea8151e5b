package forward

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"waggle/dns/wire"
)

// askTogether asks r for names in one batch and returns where each answer comes.
func askTogether(t *testing.T, r *Resolver, names ...string) (got []chan []byte) {
	t.Helper()
	var out wire.Outbox
	for i, name := range names {
		packet, err := query(name, dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, make(chan []byte, 2))
		r.Resolve(packet, client, false, &out, func(_ *wire.Outbox, msg []byte) { got[i] <- msg })
	}
	for i, c := range got {
		if len(c) > 0 {
			t.Fatalf("%s is answered before it is asked for", names[i])
		}
	}
	out.Send()
	return got
}

func several(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("n%d.example.", i))
	}
	return out
}

func TestWhatIsAskedTogetherIsAskedByOneSocket(t *testing.T) {
	for _, eager := range []bool{false, true} {
		var mu sync.Mutex
		from := map[uint16]int{}
		server := serveUDP(t, func(q []byte, client netip.AddrPort, conn *net.UDPConn) {
			mu.Lock()
			from[client.Port()]++
			mu.Unlock()
			q[2] |= 0x80
			_, _ = conn.WriteToUDPAddrPort(q, client)
		})
		cfg := testConfig()
		cfg.Eager = eager
		cfg.Upstreams = []Upstream{{Addr: server}}
		r := start(t, cfg)
		for i, got := range askTogether(t, r, several(70)...) {
			if m := wait(t, got); m.Rcode != dns.RcodeSuccess || m.Question[0].Name != several(70)[i] {
				t.Errorf("%v", m)
			}
		}
		mu.Lock()
		if len(from) != 1 {
			t.Errorf("70 questions come from ports %v", from)
		}
		mu.Unlock()
		for i := range 40 {
			wait(t, askAsync(t, r, query(fmt.Sprintf("o%d.example.", i), dns.TypeA), client, false))
		}
		mu.Lock()
		if len(from) < 3 {
			t.Errorf("40 questions apart come from ports %v", from)
		}
		mu.Unlock()
	}
}

// TestWhatCannotBeSentIsAskedOfTheNext has the first upstream, where nobody is,
// refuse the questions of a batch.
func TestWhatCannotBeSentIsAskedOfTheNext(t *testing.T) {
	nobody, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := netip.MustParseAddrPort(nobody.LocalAddr().String())
	nobody.Close()
	up := newServer(t, answer("x.example. 60 A 192.0.2.1"))
	cfg := testConfig(up)
	cfg.Upstreams = append([]Upstream{{Addr: gone}}, cfg.Upstreams...)
	r := start(t, cfg)
	for _, got := range askTogether(t, r, several(10)...) {
		if m := wait(t, got); m.Rcode != dns.RcodeSuccess {
			t.Errorf("%v", m)
		}
	}
}

func TestASocketThatIsReplacedTakesItsLastAnswers(t *testing.T) {
	hold, late := make(chan struct{}), make(chan struct{})
	server := serveUDP(t, func(q []byte, client netip.AddrPort, conn *net.UDPConn) {
		q[2] |= 0x80
		if q[headerSize+1] == 'n' || q[headerSize+1] == 'N' { // of the first batch
			q := append([]byte{}, q...)
			go func() {
				defer close(late)
				<-hold
				_, _ = conn.WriteToUDPAddrPort(q, client)
			}()
			return
		}
		_, _ = conn.WriteToUDPAddrPort(q, client)
	})
	cfg := testConfig()
	cfg.Upstreams, cfg.Sockets = []Upstream{{Addr: server}}, 1
	cfg.MinHedge, cfg.MaxHedge = time.Minute, time.Minute
	cfg.AttemptTimeout, cfg.Timeout = 2*time.Minute, 2*time.Minute
	r := start(t, cfg)
	p := r.now.Load().upstreams[0].udp
	first := askTogether(t, r, "n0.example.")
	p.mu.Lock()
	old := p.sockets[0]
	old.retire = time.Now()
	p.mu.Unlock()
	wait(t, askTogether(t, r, "other.example.")[0])
	p.mu.Lock()
	if p.sockets[0] == old || len(p.retired) != 1 {
		t.Errorf("the socket is not replaced: %v", p.retired)
	}
	p.mu.Unlock()
	p.sweep(time.Now()) // closes nothing that an answer may come to
	close(hold)
	if m := wait(t, first[0]); m.Rcode != dns.RcodeSuccess {
		t.Errorf("%v", m)
	}
	<-late
	p.sweep(time.Now())
	if len(p.retired) != 0 || old.Use(func(int) {}) {
		t.Errorf("the socket stays open: %v", p.retired)
	}
	if n := len(r.listener.sockets); n != 1 {
		t.Errorf("%d sockets are listened to", n)
	}
}
