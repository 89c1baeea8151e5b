package dns

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"waggle/dns/forward"
	"waggle/internal/outside"
)

// otherThanDCOS are the cases of where DC/OS sends a query that go elsewhere here
// on purpose, with what becomes of them (decision 39).
var otherThanDCOS = map[string]string{
	"router/leader.mesos":              "internal, for we are the server of mesos",
	"router/LEADER.MESOS":              "internal, for we are the server of mesos",
	"router/xmesos":                    "denied: single labels are nobody's outside",
	"router/directory":                 "denied: single labels are nobody's outside",
	"router/com":                       "denied: single labels are nobody's outside",
	"router/c3zs6aubqe.dcos.directory": "internal: what DC/OS leaks of its own",
	"router/two-questions-same":        "FORMERR (RFC 9619)",
	"router/crypto-id":                 "not a query: the id is configured as dns.crypto_id",
}

// TestQueriesGoWhereDCOSSendsThem sends the name of each recorded case to a server
// that is configured as the case says and has, for each set of upstreams, a
// server that says which it is.
func TestQueriesGoWhereDCOSSendsThem(t *testing.T) {
	var all []struct {
		Name, Group string
		Input       json.RawMessage
		Expect      struct{ Decision string }
	}
	outside.JSON(t, &all, "conformance", "dcos-net.json")
	s := routed(t)
	seen := map[string]bool{}
	for _, c := range all {
		if c.Group != "dns-router" {
			continue
		}
		seen[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			var in struct {
				QName  string
				QNames []string
			}
			if err := json.Unmarshal(c.Input, &in); err != nil {
				t.Fatal(err)
			}
			var q dns.Msg
			for _, name := range append(in.QNames, in.QName) {
				if name != "" {
					q.Question = append(q.Question, dns.Question{Name: dns.Fqdn(name), Qtype: dns.TypeA, Qclass: dns.ClassINET})
				}
			}
			want, _, _ := strings.Cut(c.Expect.Decision, ",")
			if other, ok := otherThanDCOS[c.Name]; ok {
				want, _, _ = strings.Cut(other, ",")
				want, _, _ = strings.Cut(want, ":")
			}
			if len(q.Question) == 0 {
				if !strings.HasPrefix(want, "not a query") {
					t.Errorf("want %s, but nothing is asked", want)
				}
				return
			}
			q.RecursionDesired = true
			if got := routeOf(unpack(t, from(t, "127.0.0.1", s.Addrs()[0], pack(t, &q)))); got != want {
				t.Errorf("goes to %s, want %s", got, want)
			}
		})
	}
	for name := range otherThanDCOS {
		if !seen[name] {
			t.Errorf("there is no case %s any more", name)
		}
	}
	// What is renamed has the records of the name that it is another one of.
	addr := func(name string) []netip.Addr {
		var out []netip.Addr
		for _, rr := range unpack(t, from(t, "127.0.0.1", s.Addrs()[0], pack(t, question(name, dns.TypeA)))).Answer {
			if a, ok := rr.(*dns.A); ok {
				out = append(out, netip.AddrFrom4([4]byte(a.A.To4())))
			}
		}
		return out
	}
	vip := []netip.Addr{netip.MustParseAddr("11.1.2.3")}
	for _, name := range []string{"app.marathon.l4lb.thisdcos.directory.", "app.marathon.dclb.thisdcos.directory.", "app.marathon.l4lb.thisdcos.global."} {
		if got := addr(name); !slices.Equal(got, vip) {
			t.Errorf("%s is %v", name, got)
		}
	}
}

// routeOf says in DC/OS' words what became of a query.
func routeOf(m *dns.Msg) string {
	switch {
	case m.Rcode == dns.RcodeFormatError:
		return "FORMERR (RFC 9619)"
	case len(m.Answer) == 1 && !m.Authoritative && m.Answer[0].Header().Rrtype == dns.TypeCNAME:
		return strings.ReplaceAll(strings.TrimSuffix(m.Answer[0].(*dns.CNAME).Target, "."), "+", " ")
	case m.Authoritative && slices.ContainsFunc(m.Question, func(q dns.Question) bool {
		return strings.Contains(q.Name, ".dclb.") || strings.HasSuffix(q.Name, ".global.")
	}):
		return "rename to l4lb.thisdcos.directory"
	case m.Authoritative, m.Rcode == dns.RcodeRefused:
		return "internal" // a zone of ours, or one that nobody outside is asked for
	case m.Rcode == dns.RcodeNameError:
		return "denied"
	}
	return fmt.Sprint("nowhere: ", m)
}

// routed is a server as the cases configure one.
func routed(t *testing.T) *Server {
	t.Helper()
	cfg := DefaultConfig()
	cfg.CryptoID = "c3zs6aubqe"
	z := Build(nil, world(), tableOf(service("app.marathon", "11.1.2.3:80")), cfg)
	f := forward.DefaultConfig()
	f.Upstreams = []forward.Upstream{namedUpstream(t, "forward default")}
	f.Zones = map[string][]forward.Upstream{
		"a.contoso.com": {namedUpstream(t, "forward 1.1.1.1:53")},
		"contoso.com":   {namedUpstream(t, "forward 3.3.3.3:53")},
	}
	f.Local = []string{"mesos", "thisdcos.directory"}
	return forwardingFrom(t, z, f)
}

// namedUpstream is a server that answers every question with an alias that says
// who it is.
func namedUpstream(t *testing.T, who string) forward.Upstream {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		r.Answer = []dns.RR{&dns.CNAME{Hdr: header(q.Question[0].Name, dns.TypeCNAME, 60), Target: strings.ReplaceAll(who, " ", "+") + "."}}
		if err := w.WriteMsg(r); err != nil {
			t.Error(err)
		}
	})}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	return forward.Upstream{Addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
}
