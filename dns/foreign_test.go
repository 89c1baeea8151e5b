package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/dns/forward"
	"waggle/dns/guard"
	"waggle/dns/wire"
	"waggle/internal/dnspeer"
)

// forwarding runs a server that asks upstreams for what is not ours, with what
// more says.
func forwarding(t *testing.T, cfg forward.Config, more ...func(*ServerConfig)) *Server {
	t.Helper()
	return forwardingFrom(t, testZone(), cfg, more...)
}

func forwardingFrom(t *testing.T, z *Zone, cfg forward.Config, more ...func(*ServerConfig)) *Server {
	t.Helper()
	r, err := forward.New(cfg, nil, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	server := DefaultServerConfig()
	server.Forward = r
	for _, set := range more {
		set(&server)
	}
	return run(t, NewServer(onLoopback(server), func() *Zone { return z }, zap.NewNop(), nil))
}

// corp is a zone of somebody else, with a set that no UDP answer holds.
func corp() dnspeer.Zone {
	z := dnspeer.Zone{Apex: "corp.example.", Records: []dnspeer.Record{
		{Name: "corp.example.", Type: "SOA", TTL: 60, Data: "ns.corp.example. root.corp.example. 1 60 60 60 60"},
		{Name: "corp.example.", Type: "NS", TTL: 60, Data: "ns.corp.example."},
		{Name: "ns.corp.example.", Type: "A", TTL: 60, Data: "192.0.2.53"},
		{Name: "www.corp.example.", Type: "A", TTL: 60, Data: "192.0.2.1"},
		{Name: "www.corp.example.", Type: "AAAA", TTL: 60, Data: "2001:db8::1"},
	}}
	for i := range 120 {
		z.Records = append(z.Records, dnspeer.Record{Name: "big.corp.example.", Type: "A", TTL: 60, Data: fmt.Sprintf("198.18.0.%d", i)})
	}
	return z
}

func TestNamesThatAreNotOursAreForwarded(t *testing.T) {
	for _, kind := range []dnspeer.Kind{dnspeer.NSD(), dnspeer.Knot(), dnspeer.Unbound(), dnspeer.Dnsmasq(), dnspeer.CoreDNS(os.Getenv("COREDNS"))} {
		t.Run(kind.Name, func(t *testing.T) {
			if _, err := kind.Find(); err != nil && kind.Name == "CoreDNS" {
				t.Skip("COREDNS does not say where it is: make conformance-dns builds it")
			}
			upstream := kind.Start(t, corp(), dnspeer.Options{})
			cfg := forward.DefaultConfig()
			cfg.Upstreams = []forward.Upstream{{Addr: upstream.Addr}}
			cfg.Local = []string{"thisdcos.directory"}
			s := forwarding(t, cfg)
			for _, proto := range []string{protoUDP, protoTCP} {
				for range 2 { // asked, then remembered
					forwardedAsTheyAre(t, proto, s.Addrs()[0])
				}
			}
		})
	}
}

func forwardedAsTheyAre(t *testing.T, proto string, at netip.AddrPort) {
	t.Helper()
	for _, c := range []struct {
		name    string
		kind    uint16
		edns    uint16
		rcode   int
		answers int
		cut     bool
		ours    bool
	}{
		{name: "WWW.corp.example.", kind: dns.TypeA, answers: 1},
		{name: "www.corp.example.", kind: dns.TypeAAAA, edns: 1232, answers: 1},
		{name: "big.corp.example.", kind: dns.TypeA, edns: 4096, answers: 120, cut: true},
		{name: "nobody.corp.example.", kind: dns.TypeA, rcode: dns.RcodeNameError},
		{name: "corp.", kind: dns.TypeA, rcode: dns.RcodeNameError},
		{name: "x.l4lb.thisdcos.directory.", kind: dns.TypeA, rcode: dns.RcodeNameError, ours: true},
		{name: "x.thisdcos.directory.", kind: dns.TypeA, rcode: dns.RcodeRefused},
		{name: "3.2.1.11.in-addr.arpa.", kind: dns.TypePTR, answers: 1, ours: true},
		{name: "big.marathon.mesos.", kind: dns.TypeAAAA, ours: true},
	} {
		q := new(dns.Msg).SetQuestion(c.name, c.kind)
		if c.edns > 0 {
			q.SetEdns0(c.edns, false)
		}
		client := dns.Client{Net: proto, Timeout: time.Minute}
		m, _, err := client.Exchange(q, at.String())
		if err != nil {
			t.Fatalf("%s over %s: %v", c.name, proto, err)
		}
		cut := c.cut && proto == protoUDP
		if m.Id != q.Id || m.Rcode != c.rcode || m.Truncated != cut || m.Authoritative != c.ours || m.Question[0] != q.Question[0] ||
			!cut && len(m.Answer) != c.answers || (m.IsEdns0() != nil) != (c.edns > 0) {
			t.Errorf("%s over %s: %v", c.name, proto, m)
		}
	}
}

// TestForwardedRepliesAreCountedAndLimited asks for names that nobody has asked
// for before, which are answered from elsewhere and later, in the usual way and
// with options that make a query unusual.
func TestForwardedRepliesAreCountedAndLimited(t *testing.T) {
	upstream := dnspeer.NSD().Start(t, corp(), dnspeer.Options{})
	cfg := forward.DefaultConfig()
	cfg.Upstreams = []forward.Upstream{{Addr: upstream.Addr}}
	for _, loop := range []Loop{LoopRaw, LoopPlain} {
		s := forwarding(t, cfg, func(c *ServerConfig) {
			c.Loop, c.Unlimited = loop, nil
			c.Limit = guard.LimitConfig{Rate: 1, Burst: 3, Slip: 1, Prefix4: 32, Prefix6: 64, Buckets: 16}
		})
		const asked = 20
		cut := 0
		for i := range asked {
			q := new(dns.Msg).SetQuestion(fmt.Sprintf("nobody%d.corp.example.", i), dns.TypeA)
			if i%2 == 0 {
				q.SetEdns0(1232, false)
				q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")})
			}
			if m := unpack(t, from(t, "127.0.0.1", s.Addrs()[0], pack(t, q))); m.Truncated {
				cut++
			}
		}
		if m := unpack(t, exchange(t, protoTCP, s.Addrs()[0], pack(t, new(dns.Msg).SetQuestion("tcp.corp.example.", dns.TypeA)))); m.Rcode != dns.RcodeNameError || m.Truncated {
			t.Errorf("%s: over TCP, where addresses are true: %v", loop, m)
		}
		got, tcp, noted := uint64(0), uint64(0), uint64(0)
		for _, tally := range s.metrics.tallies {
			n := tally.answered[0][typeIndex(dns.TypeA)][rcodeIndex(dns.RcodeNameError)].Load()
			if tally.proto == protoTCP {
				tcp += n
			} else {
				got += n
			}
			noted += tally.fates[cutShort].Load()
		}
		if cut == 0 || got != asked || tcp != 1 || noted != uint64(cut) {
			t.Errorf("%s: of %d replies over UDP %d were cut; counted are %d, %d cut, and %d over TCP", loop, asked, cut, got, noted, tcp)
		}
	}
}

func TestForwardedRepliesAnswerOptions(t *testing.T) {
	upstream := dnspeer.NSD().Start(t, corp(), dnspeer.Options{})
	cfg := forward.DefaultConfig()
	cfg.Upstreams = []forward.Upstream{{Addr: upstream.Addr}}
	s := forwarding(t, cfg, func(c *ServerConfig) {
		c.Unlimited = nil
		c.Limit = guard.LimitConfig{Rate: 1, Burst: 1, Slip: 1, Prefix4: 32, Prefix6: 64, Buckets: 16}
	})
	with := func(proto, name string, options ...dns.EDNS0) *dns.Msg {
		q := new(dns.Msg).SetQuestion(name, dns.TypeA)
		q.SetEdns0(1232, false)
		q.IsEdns0().Option = options
		if proto == protoUDP {
			return unpack(t, from(t, "127.0.0.1", s.Addrs()[0], pack(t, q)))
		}
		return unpack(t, exchange(t, proto, s.Addrs()[0], pack(t, q)))
	}
	cookie := unhexCookie(t, with(protoUDP, "www.corp.example.", &dns.EDNS0_LOCAL{Code: optionCookie, Data: []byte("12345678")}))
	if len(cookie) != guard.CookieSize || string(cookie[:8]) != "12345678" {
		t.Fatalf("cookie % x", cookie)
	}
	for range 5 { // whose address is proven is not held back
		if m := with(protoUDP, "www.corp.example.", &dns.EDNS0_LOCAL{Code: optionCookie, Data: cookie}); m.Truncated || len(m.Answer) != 1 {
			t.Errorf("with a cookie: %v", m)
		}
	}
	if m := with(protoTCP, "www.corp.example.", &dns.EDNS0_LOCAL{Code: optionCookie, Data: []byte("123")}); m.Rcode != dns.RcodeFormatError {
		t.Errorf("a cookie too short: %v", m)
	}
	m := with(protoTCP, "www.corp.example.", &dns.EDNS0_TCP_KEEPALIVE{Code: optionKeepalive})
	if o := m.IsEdns0(); len(m.Answer) != 1 || o == nil || len(o.Option) != 1 || o.Option[0].Option() != optionKeepalive {
		t.Errorf("over TCP: %v", m)
	}
}

// TestASilentUpstreamDelaysNobodyElse floods a server with questions for one that
// says nothing, for longer than the test lasts.
func TestASilentUpstreamDelaysNobodyElse(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	upstream := dnspeer.NSD().Start(t, corp(), dnspeer.Options{})
	cfg := forward.DefaultConfig()
	cfg.Timeout, cfg.AttemptTimeout, cfg.InFlight = time.Hour, time.Hour, 64
	cfg.Upstreams = []forward.Upstream{{Addr: netip.MustParseAddrPort(silent.LocalAddr().String())}}
	cfg.Zones = map[string][]forward.Upstream{"corp.example": {{Addr: upstream.Addr}}}
	for _, loop := range []Loop{LoopRaw, LoopPlain} {
		s := forwarding(t, cfg, func(c *ServerConfig) { c.Loop, c.Readers = loop, 1 })
		flood := dial(t, protoUDP, s.Addrs()[0])
		for i := range 200 {
			for j := range 50 {
				if _, err := flood.Write(pack(t, question(fmt.Sprintf("n%d-%d.silent.example.", i, j), dns.TypeA))); err != nil {
					t.Fatal(err)
				}
			}
			if r := unpack(t, from(t, "127.0.0.1", s.Addrs()[0], pack(t, question(nameA, dns.TypeA)))); len(r.Answer) != 1 {
				t.Fatalf("%s: a name of ours: %v", loop, r)
			}
			// From another address: the flood has what is left beside the others.
			if r := unpack(t, from(t, "127.0.0.2", s.Addrs()[0], pack(t, question(fmt.Sprintf("n%d.corp.example.", i), dns.TypeA)))); r.Rcode != dns.RcodeNameError {
				t.Fatalf("%s: a name of another upstream: %v", loop, r)
			}
		}
	}
}

func TestWithoutAPictureNothingIsForwarded(t *testing.T) {
	cfg := DefaultServerConfig()
	cfg.Forward = panicking{}
	s := run(t, NewServer(onLoopback(cfg), func() *Zone { return nil }, zap.NewNop(), nil))
	m := new(dns.Msg)
	if raw := exchange(t, protoUDP, s.Addrs()[0], pack(t, new(dns.Msg).SetQuestion("x.example.", dns.TypeA))); m.Unpack(raw) != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", m)
	}
}

// panicking is a Forwarder that nobody may use.
type panicking struct{}

func (panicking) Cached([]byte, []byte, bool) ([]byte, bool) { panic("asked") }
func (panicking) Resolve([]byte, netip.Addr, bool, *wire.Outbox, func(*wire.Outbox, []byte)) {
	panic("asked")
}

// TestWhoForwardsSaysSoInEveryReply looks at RA, which is about the server.
func TestWhoForwardsSaysSoInEveryReply(t *testing.T) {
	cfg := forward.DefaultConfig()
	cfg.Upstreams = []forward.Upstream{{Addr: netip.MustParseAddrPort("127.0.0.1:9")}}
	z := testZone()
	alone := serve(t, DefaultServerConfig(), func() *Zone { return z }, nil)
	for s, want := range map[*Server]bool{forwarding(t, cfg): true, alone: false} {
		for _, proto := range []string{protoUDP, protoTCP} {
			for name, kind := range map[string]uint16{nameA: dns.TypeA, nameNX: dns.TypeA, nameSRV: dns.TypeANY} {
				c := &dns.Client{Net: proto, Timeout: patience}
				r, _, err := c.Exchange(question(name, kind), s.Addrs()[0].String())
				if err != nil || r.RecursionAvailable != want || !r.Authoritative {
					t.Errorf("%s over %s, forwarding %v: %v %v", name, proto, want, r, err)
				}
			}
		}
	}
}
