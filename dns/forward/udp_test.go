package forward

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

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
	first := askAsync(t, r, query("n0.example.", dns.TypeA), client, false)
	p.mu.Lock()
	old := p.sockets[0]
	old.retire = time.Now()
	p.mu.Unlock()
	ask(t, r, query("other.example.", dns.TypeA), false)
	p.mu.Lock()
	if p.sockets[0] == old || len(p.retired) != 1 {
		t.Errorf("the socket is not replaced: %v", p.retired)
	}
	p.mu.Unlock()
	p.sweep(time.Now()) // closes nothing that an answer may come to
	close(hold)
	if m := wait(t, first); m.Rcode != dns.RcodeSuccess {
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
