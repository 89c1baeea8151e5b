package dns

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"waggle/dns/forward"
	"waggle/internal/dnspeer"
	"waggle/model"
)

// TestAliasesOfOthersNamesAreFollowed asks for names of ours that are other names
// for somebody else's. What is looked up for the client is the whole answer; what
// he did not want looked up, and what nobody may be asked for, is the alias alone.
func TestAliasesOfOthersNamesAreFollowed(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Records = []string{
		"www.shop.example CNAME www.corp.example.", "chain.shop.example CNAME www.shop.example.",
		"big.shop.example CNAME big.corp.example.", "gone.shop.example CNAME nobody.corp.example.",
		"away.shop.example CNAME www.elsewhere.example.",
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	upstream := dnspeer.NSD().Start(t, corp(), dnspeer.Options{})
	outside := forward.DefaultConfig()
	outside.Zones = map[string][]forward.Upstream{"corp.example": {{Addr: upstream.Addr}}}
	for _, loop := range []Loop{LoopRaw, LoopPlain} {
		s := forwardingFrom(t, Build(nil, &model.Snapshot{}, nil, cfg), outside, func(c *ServerConfig) { c.Loop = loop })
		for _, proto := range []string{protoUDP, protoTCP} {
			for _, tt := range []struct {
				name    string
				kind    uint16
				alone   bool // recursion is not wanted
				rcode   int
				answers int
				ns      int
				cut     bool
			}{
				{name: "www.shop.example.", kind: dns.TypeA, answers: 2},
				{name: "WWW.Shop.example.", kind: dns.TypeAAAA, answers: 2},
				{name: "www.shop.example.", kind: dns.TypeTXT, answers: 1, ns: 1},
				{name: "www.shop.example.", kind: dns.TypeA, alone: true, answers: 1},
				{name: "www.shop.example.", kind: dns.TypeCNAME, answers: 1},
				{name: "www.shop.example.", kind: dns.TypeANY, answers: 3},
				{name: "chain.shop.example.", kind: dns.TypeA, answers: 3},
				{name: "gone.shop.example.", kind: dns.TypeA, rcode: dns.RcodeNameError, answers: 1, ns: 1},
				{name: "away.shop.example.", kind: dns.TypeA, answers: 1},
				{name: "big.shop.example.", kind: dns.TypeA, answers: 121, cut: proto == protoUDP},
			} {
				q := question(tt.name, tt.kind)
				q.RecursionDesired = !tt.alone
				c := &dns.Client{Net: proto, Timeout: patience}
				r, _, err := c.Exchange(q, s.Addrs()[0].String())
				if err != nil {
					t.Errorf("%s over %s: %v", tt.name, proto, err)
					continue
				}
				got := []any{r.Rcode, r.Truncated, r.Authoritative, len(r.Ns), len(r.Answer)}
				want := []any{tt.rcode, tt.cut, true, tt.ns, tt.answers}
				if tt.cut {
					got, want = got[:3], want[:3]
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s %s over %s (-want +got):\n%s%v", tt.name, dns.TypeToString[tt.kind], proto, diff, r)
				}
			}
		}
	}
}
