package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/dns/forward"
	"waggle/internal/dnspeer"
)

// forwarding runs a server that asks upstreams for what is not ours.
func forwarding(t *testing.T, cfg forward.Config) *Server {
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
	z := testZone()
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
	for _, kind := range []dnspeer.Kind{dnspeer.NSD(), dnspeer.Knot(), dnspeer.Unbound(), dnspeer.Dnsmasq()} {
		t.Run(kind.Name, func(t *testing.T) {
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

func (panicking) Cached([]byte, []byte, bool) ([]byte, bool)     { panic("asked") }
func (panicking) Resolve([]byte, netip.Addr, bool, func([]byte)) { panic("asked") }
