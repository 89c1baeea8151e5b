package forward

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap/zaptest"

	"waggle/internal/dnspeer"

	"waggle/dns/wire"
)

// counted is how many questions each server has had.
func counted(servers ...*server) (out []int) {
	for _, s := range servers {
		out = append(out, len(s.questions("")))
	}
	return out
}

func TestWithOneDeadOfThreeNobodyWaitsForIt(t *testing.T) {
	a := newServer(t, answer("x. 0 IN A 192.0.2.1"))
	b := newServer(t, answer("x. 0 IN A 192.0.2.1"))
	dead := newServer(t, silence)
	cfg := testConfig(a, dead, b)
	cfg.AttemptTimeout = 100 * time.Millisecond
	cfg.MinHedge, cfg.MaxHedge = time.Hour, time.Hour // so that it is not the hedge that saves us
	r := start(t, cfg)
	n := 0
	asking := func() {
		n++
		if m := ask(t, r, query(fmt.Sprintf("n%d.example", n), dns.TypeA), false); len(m.Answer) != 1 {
			t.Fatalf("%v", m)
		}
	}
	// Every question is answered although the dead one would hold it for an hour.
	eventually(t, "the dead one is left alone", func() bool {
		asking()
		return r.Status()[1].State == "resting"
	})
	before := counted(dead)[0]
	for range 50 {
		asking()
	}
	if got := counted(dead)[0] - before; got > 5 {
		t.Errorf("of 50 questions the dead one was asked %d", got)
	}
}

func TestAnUpstreamThatFallsSilentCostsOneHedge(t *testing.T) {
	first, second := newServer(t, answer("x. 0 IN A 192.0.2.1")), newServer(t, answer("x. 0 IN A 192.0.2.1"))
	r := start(t, testConfig(first, second))
	n := 0
	asking := func() {
		n++
		if m := ask(t, r, query(fmt.Sprintf("n%d.example", n), dns.TypeA), false); len(m.Answer) != 1 {
			t.Fatalf("%v", m)
		}
	}
	eventually(t, "both are known to be well", func() bool {
		asking()
		s := r.Status()
		return s[0].State == "well" && s[1].State == "well"
	})
	first.set(silence)
	second.set(silence)
	live, silent := second, 0
	if r.Status()[0].Latency > r.Status()[1].Latency { // so the second is preferred
		live, silent = first, 1
	}
	live.set(answer("x. 0 IN A 192.0.2.1"))
	asking()
	if s := r.Status()[silent].State; s == "well" {
		t.Errorf("after a hedge it is still taken for well")
	}
	for range 20 {
		asking()
	}
}

func TestAnUpstreamComesBack(t *testing.T) {
	s := newServer(t, silence)
	cfg := testConfig(s)
	cfg.Timeout, cfg.AttemptTimeout, cfg.FailureTTL = 50*time.Millisecond, 20*time.Millisecond, 0
	cfg.MinHedge, cfg.MaxHedge, cfg.MaxBackoff = 5*time.Millisecond, 5*time.Millisecond, 50*time.Millisecond
	r := start(t, cfg)
	eventually(t, "it is left alone", func() bool {
		ask(t, r, query("x.example", dns.TypeA), false)
		return r.Status()[0].State == "resting"
	})
	if m := ask(t, r, query("x.example", dns.TypeA), false); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", m)
	}
	s.set(answer("x.example. 0 IN A 192.0.2.1"))
	eventually(t, "it answers and is well", func() bool {
		return ask(t, r, query("x.example", dns.TypeA), false).Rcode == 0 && r.Status()[0].State == "well"
	})
}

func TestAllDeadServesWhatHasExpired(t *testing.T) {
	s := newServer(t, answer("x.example. 1 IN A 192.0.2.1"))
	cfg := testConfig(s)
	cfg.Timeout, cfg.AttemptTimeout, cfg.MinHedge, cfg.MaxHedge = 300*time.Millisecond, 20*time.Millisecond, 5*time.Millisecond, 5*time.Millisecond
	r := start(t, cfg)
	q := query("x.example", dns.TypeA)
	q.SetEdns0(1232, false)
	ask(t, r, q, false)
	s.set(silence)
	key := "\x01x\x07example\x00\x00\x01\x00\x01\x00"
	eventually(t, "it expires", func() bool {
		e, ok := r.now.Load().cache.answers.GetIfPresent(key)
		return ok && !e.fresh(time.Now())
	})
	for range 3 {
		m := ask(t, r, q, false)
		if len(m.Answer) != 1 || m.Answer[0].Header().Ttl != 30 || edeOf(m) != edeStale {
			t.Errorf("%v", m)
		}
	}
	if n := r.metrics.results.stale.Load(); n != 3 {
		t.Errorf("the metric says %v", n)
	}
	// What was not known cannot be served, and says why.
	unknown := query("y.example", dns.TypeA)
	unknown.SetEdns0(1232, false)
	if m := ask(t, r, unknown, false); m.Rcode != dns.RcodeServerFailure || edeOf(m) != edeNoReachable {
		t.Errorf("%v", m)
	}
	s.set(rcode(dns.RcodeNameError, "example. 60 IN SOA ns.example. root.example. 1 2 3 4 60"))
	e, _ := r.now.Load().cache.answers.GetIfPresent(key)
	e.retryAt.Store(0)
	eventually(t, "a fresh answer, also a negative one, takes the stale one's place", func() bool {
		return ask(t, r, q, false).Rcode == dns.RcodeNameError
	})
	s.set(silence)
	if m := ask(t, r, q, false); m.Rcode != dns.RcodeNameError {
		t.Errorf("%v", m)
	}
}

func TestASlowUpstreamIsNotWaitedForWhereThereIsAStaleAnswer(t *testing.T) {
	s := newServer(t, answer("x.example. 1 IN A 192.0.2.1"))
	cfg := testConfig(s)
	cfg.StaleAfter, cfg.Timeout, cfg.AttemptTimeout = time.Millisecond, time.Hour, time.Hour
	r := start(t, cfg)
	ask(t, r, query("x.example", dns.TypeA), false)
	release := make(chan struct{})
	s.set(func(_ string, q *dns.Msg) []*dns.Msg {
		<-release
		return answer("x.example. 300 IN A 192.0.2.2")("", q)
	})
	eventually(t, "the stale answer comes while the fresh one is waited for", func() bool {
		return ask(t, r, query("x.example", dns.TypeA), false).Answer[0].Header().Ttl == 30
	})
	close(release)
	eventually(t, "the fresh answer", func() bool {
		return ask(t, r, query("x.example", dns.TypeA), false).Answer[0].(*dns.A).A.String() == "192.0.2.2"
	})
}

func TestAPortThatIsClosedFailsAtOnce(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := Upstream{Addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	pc.Close()
	good := newServer(t, answer("x.example. 0 IN A 192.0.2.1"))
	cfg := testConfig(good)
	cfg.Upstreams = append([]Upstream{closed}, cfg.Upstreams...)
	cfg.MinHedge, cfg.MaxHedge, cfg.Timeout, cfg.AttemptTimeout = time.Hour, time.Hour, time.Hour, time.Hour
	r := start(t, cfg)
	eventually(t, "the refusals have it left alone", func() bool {
		if m := ask(t, r, query("x.example", dns.TypeA), false); len(m.Answer) != 1 {
			t.Fatalf("%v", m)
		}
		return r.Status()[0].State == "resting" && r.Status()[0].Error != ""
	})
}

// TestForgedAnswersAreRefused sends every near miss before, and instead of, the
// true answer. It checks that no forged one is ever served or remembered.
func TestForgedAnswersAreRefused(t *testing.T) {
	forge := map[string]func(m *dns.Msg){
		"another id":              func(m *dns.Msg) { m.Id++ },
		"another name":            func(m *dns.Msg) { m.Question[0].Name = "y.example." },
		"another type":            func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTXT },
		"another class":           func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"no question":             func(m *dns.Msg) { m.Question = nil },
		"two questions":           func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"a query":                 func(m *dns.Msg) { m.Response = false },
		"letter case not as sent": func(m *dns.Msg) { m.Question[0].Name = invert(m.Question[0].Name) },
	}
	for name, spoil := range forge {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, func(proto string, q *dns.Msg) []*dns.Msg {
				good := reply1(q, 0, "abcdefgh.example. 300 IN A 192.0.2.1")
				if proto == "tcp" { // who asks again that way is not lied to
					return []*dns.Msg{good}
				}
				bad := reply1(q, 0, "abcdefgh.example. 300 IN A 203.0.113.66")
				bad.Question = append([]dns.Question(nil), bad.Question...)
				spoil(bad)
				return []*dns.Msg{bad, good}
			})
			r := start(t, testConfig(s))
			for range 2 {
				m := ask(t, r, query("abcdefgh.example", dns.TypeA), false)
				if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.1" {
					t.Errorf("%v", m)
				}
			}
		})
	}
}

func invert(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c|0x20 >= 'a' && c|0x20 <= 'z' {
			b[i] ^= 0x20
		}
	}
	return string(b)
}

func TestAnUpstreamThatFoldsLetterCaseIsBelievedOverTCPOnly(t *testing.T) {
	lower := func(proto string, q *dns.Msg) []*dns.Msg {
		m := reply1(q, 0, "abcdefghijkl.example. 0 IN A 192.0.2.1")
		if proto == "udp" {
			m.Answer[0].(*dns.A).A = net.IPv4(203, 0, 113, 66)
		}
		m.Question = []dns.Question{{Name: dns.CanonicalName(q.Question[0].Name), Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		return []*dns.Msg{m}
	}
	s := newServer(t, lower)
	r := start(t, testConfig(s))
	// Over TCP the case is as asked, so the first client's must be folded for
	// the upstream to be seen to fold.
	m := ask(t, r, query("ABCDEFGHIJKL.example", dns.TypeA), false)
	if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.1" {
		t.Fatalf("%v", m)
	}
	m = ask(t, r, query("abcdefghijkl.example", dns.TypeA), false)
	if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "203.0.113.66" {
		t.Errorf("it is known to fold, but was not asked over UDP as it likes: %v", m)
	}
}

func TestIdsPortsAndLetterCaseAreRandom(t *testing.T) {
	s := newServer(t, func(_ string, q *dns.Msg) []*dns.Msg { return []*dns.Msg{reply1(q, 0)} })
	cfg := testConfig(s)
	cfg.NegativeBytes = 0
	r := start(t, cfg)
	const n = 200
	for range n {
		ask(t, r, query("some-longer-name.example", dns.TypeA), false)
	}
	ids, names := map[uint16]bool{}, map[string]bool{}
	for _, q := range s.questions("") {
		ids[q.Id], names[q.Question[0].Name] = true, true
	}
	// 200 of 65 536 ids collide with a chance of a quarter, ten do never.
	if len(ids) < n-10 || len(names) < n-10 {
		t.Errorf("%d ids and %d spellings in %d questions", len(ids), len(names), n)
	}
	if got := r.now.Load().upstreams[0].udp.open(); got != cfg.Sockets {
		t.Errorf("%d sockets are open, want all %d used", got, cfg.Sockets)
	}
}

// front answers clients of a Resolver over UDP, as the daemon does.
func front(t *testing.T, resolver func() *Resolver) netip.AddrPort {
	t.Helper()
	return serveUDP(t, func(query []byte, from netip.AddrPort, conn *net.UDPConn) {
		resolver().Resolve(slices.Clone(query), from.Addr(), false, nil, func(_ *wire.Outbox, msg []byte) { _, _ = conn.WriteToUDPAddrPort(msg, from) })
	})
}

// serveUDP gives what comes to a socket on loopback to take, which may write into
// it and behind it, until the test ends.
func serveUDP(tb testing.TB, take func(query []byte, from netip.AddrPort, conn *net.UDPConn)) netip.AddrPort {
	tb.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			take(buf[:n], from, conn)
		}
	}()
	tb.Cleanup(func() {
		conn.Close()
		<-done
	})
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}

func TestALoopOfTwoStopsAtOnceAndGoesRoundTheOtherUpstream(t *testing.T) {
	good := newServer(t, answer("x.example. 0 IN A 192.0.2.1"))
	var atA, atB atomic.Pointer[Resolver]
	toA, toB := front(t, atA.Load), front(t, atB.Load)
	cfg := DefaultConfig()
	cfg.Timeout, cfg.AttemptTimeout, cfg.MinHedge, cfg.MaxHedge = time.Hour, time.Hour, time.Hour, time.Hour
	cfgA, cfgB := cfg, cfg
	cfgA.Upstreams = []Upstream{{Addr: toB}}
	cfgB.Upstreams = []Upstream{{Addr: toA}}
	a := start(t, cfgA)
	atA.Store(a)
	atB.Store(start(t, cfgB))
	m := ask(t, a, query("x.example", dns.TypeA), false)
	if m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", m)
	}
	if n := a.metrics.results.looped.Load(); n != 1 {
		t.Errorf("%v questions came back, want 1: the loop ran", n)
	}
	if s := a.Status()[0]; s.State != "resting" || s.Error != errLoop.Error() {
		t.Errorf("the upstream that leads back is %+v", s)
	}

	// With another way out the loop costs no answer.
	cfgA.Upstreams = append(cfgA.Upstreams, good.upstream())
	a = start(t, cfgA)
	atA.Store(a)
	for i := range 5 {
		if m := ask(t, a, query(fmt.Sprintf("y%d.example", i), dns.TypeA), false); len(m.Answer) != 1 {
			t.Errorf("%d: %v", i, m)
		}
	}
}

func TestUpstreamsAreAskedByTLSUnderTheirName(t *testing.T) {
	file, key := dnspeer.Certificate(t, "dns.example")
	cert, err := tls.LoadX509KeyPair(file, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	conns := 0
	srv := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(reply1(q, 0, q.Question[0].Name+" 0 IN A 192.0.2.1"))
	}), DecorateReader: func(r dns.Reader) dns.Reader { conns++; return r }}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = l.Close(); <-done })
	for name, ok := range map[string]bool{"dns.example": true, "other.example": false} {
		cfg := DefaultConfig()
		cfg.Upstreams = []Upstream{{Addr: netip.MustParseAddrPort(l.Addr().String()), TLSName: name}}
		r, err := New(cfg, roots, zaptest.NewLogger(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		for range 3 {
			m := ask(t, r, query("x.example", dns.TypeA), false)
			if (m.Rcode == 0) != ok {
				t.Errorf("%s: %v", name, m)
			}
		}
		if s := r.Status()[0]; (s.Error == "") != ok {
			t.Errorf("%s: %+v", name, s)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
