package forward

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"waggle/dns/wire"
)

func TestAnAnswerIsAskedForOnceAndThenRemembered(t *testing.T) {
	s := newServer(t, answer("WWW.example.com. 300 IN A 192.0.2.1"))
	r := start(t, testConfig(s))
	for i, name := range []string{"www.example.com", "wWw.ExAmPlE.cOm", "www.example.com"} {
		q := query(name, dns.TypeA)
		m := ask(t, r, q, false)
		if m.Id != q.Id || m.Rcode != 0 || !m.RecursionAvailable || !m.RecursionDesired || m.Authoritative || !m.Response {
			t.Errorf("%d: header %+v", i, m.MsgHdr)
		}
		if d := cmp.Diff(q.Question, m.Question); d != "" {
			t.Errorf("%d: the question is not as it was asked: %s", i, d)
		}
		if len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), "192.0.2.1") {
			t.Errorf("%d: answer %v", i, m.Answer)
		}
		if m.IsEdns0() != nil {
			t.Errorf("%d: an OPT record for who sent none", i)
		}
	}
	if n := len(s.questions("")); n != 1 {
		t.Errorf("asked %d times", n)
	}
	out := s.questions("")[0]
	if !out.RecursionDesired || out.IsEdns0() == nil || out.IsEdns0().UDPSize() != 1232 {
		t.Errorf("asked as %v", out)
	}
}

func TestWhatIsRememberedDependsOnTypeAndDNSSECFlags(t *testing.T) {
	s := newServer(t, answer("x.example. 300 IN A 192.0.2.1"))
	r := start(t, testConfig(s))
	do := query("x.example", dns.TypeA)
	do.SetEdns0(4096, true)
	cd := query("x.example", dns.TypeA)
	cd.CheckingDisabled = true
	for range 2 {
		for _, q := range []*dns.Msg{query("x.example", dns.TypeA), query("x.example", dns.TypeTXT), do, cd} {
			if m := ask(t, r, q, false); m.CheckingDisabled != q.CheckingDisabled || (m.IsEdns0() != nil) != (q.IsEdns0() != nil) {
				t.Errorf("%v answered by %v", q, m)
			}
		}
	}
	asked := s.questions("")
	if len(asked) != 4 {
		t.Fatalf("asked %d times, want once for each kind", len(asked))
	}
	if !asked[2].IsEdns0().Do() || !asked[3].CheckingDisabled || asked[0].CheckingDisabled || asked[0].IsEdns0().Do() {
		t.Error("the flags did not reach the upstream")
	}
}

func TestAuthenticDataIsToldWhoAsksForIt(t *testing.T) {
	s := newServer(t, func(_ string, q *dns.Msg) []*dns.Msg {
		m := reply1(q, 0, "x.example. 300 IN A 192.0.2.1")
		m.AuthenticatedData = true
		return []*dns.Msg{m}
	})
	r := start(t, testConfig(s))
	plain, ad := query("x.example", dns.TypeA), query("x.example", dns.TypeA)
	ad.AuthenticatedData = true
	if ask(t, r, plain, false).AuthenticatedData || !ask(t, r, ad, false).AuthenticatedData {
		t.Error("AD is not for who asks, or for who does not")
	}
}

func TestTTLsRunDown(t *testing.T) {
	s := newServer(t, answer("x.example. 300 IN A 192.0.2.1"))
	r := start(t, testConfig(s))
	ask(t, r, query("x.example", dns.TypeA), false)
	q, err := query("x.example", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parseQuery(q)
	if err != nil {
		t.Fatal(err)
	}
	e := r.now.Load().cache.get(parsed.appendKey(nil), time.Now())
	for age, want := range map[time.Duration]uint32{0: 300, 10 * time.Second: 290, time.Hour: 0} {
		m := new(dns.Msg)
		if err := m.Unpack(e.appendAnswer(nil, &parsed, e.stored.Add(age), 512, 1232, 0)); err != nil || m.Answer[0].Header().Ttl != want {
			t.Errorf("after %v: %v, %v", age, m, err)
		}
	}
}

func TestNegativeAnswersLiveAsLongAsTheirSOASays(t *testing.T) {
	const soa = "example. 900 IN SOA ns.example. root.example. 1 2 3 4 %d"
	for name, c := range map[string]struct {
		handle func(string, *dns.Msg) []*dns.Msg
		want   time.Duration
	}{
		"the minimum where it is lower":     {rcode(dns.RcodeNameError, fmt.Sprintf(soa, 60)), time.Minute},
		"the SOA's TTL where that is lower": {rcode(dns.RcodeNameError, fmt.Sprintf(soa, 5000)), 15 * time.Minute},
		"no data":                           {rcode(dns.RcodeSuccess, fmt.Sprintf(soa, 60)), time.Minute},
		"a CNAME to nothing":                {rcode(dns.RcodeNameError, "x.example. 30 IN CNAME y.example.", fmt.Sprintf(soa, 60)), 30 * time.Second},
		"no SOA":                            {rcode(dns.RcodeNameError), 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, c.handle)
			r := start(t, testConfig(s))
			m := ask(t, r, query("x.example", dns.TypeA), false)
			key := "\x01x\x07example\x00\x00\x01\x00\x01\x00"
			e, ok := r.now.Load().cache.negatives.GetIfPresent(key)
			if !ok || e.ttl != c.want || m.Rcode != ask(t, r, query("X.example", dns.TypeA), false).Rcode {
				t.Errorf("remembered %v for %v", ok, e)
			}
		})
	}
}

func TestARecordTTLAboveTheLimitsIsCut(t *testing.T) {
	s := newServer(t, answer("x.example. 2147483647 IN A 192.0.2.1"))
	r := start(t, testConfig(s))
	if ttl := ask(t, r, query("x.example", dns.TypeA), false).Answer[0].Header().Ttl; ttl != 86400 {
		t.Errorf("TTL %d", ttl)
	}
}

func TestATruncatedAnswerIsAskedForOverTCPAndCutForTheClientsSize(t *testing.T) {
	var records []string
	for i := range 60 {
		records = append(records, fmt.Sprintf("big.example. 300 IN A 192.0.2.%d", i))
	}
	s := newServer(t, func(proto string, q *dns.Msg) []*dns.Msg {
		m := reply1(q, 0, records...)
		if proto == "udp" {
			m.Answer, m.Truncated = nil, true
		}
		return []*dns.Msg{m}
	})
	r := start(t, testConfig(s))
	edns := func(size uint16) *dns.Msg {
		q := query("big.example", dns.TypeA)
		q.SetEdns0(size, false)
		return q
	}
	for _, c := range []struct {
		name  string
		q     *dns.Msg
		tcp   bool
		whole bool
	}{
		{"without EDNS", query("big.example", dns.TypeA), false, false},
		{"512", edns(512), false, false},
		{"0 counts as 512", edns(0), false, false},
		{"1232 is enough for this one", edns(1232), false, true},
		{"4096 is served at our own limit", edns(4096), false, true},
		{"TCP", query("big.example", dns.TypeA), true, true},
	} {
		m := ask(t, r, c.q, c.tcp)
		if m.Truncated == c.whole || (len(m.Answer) == 60) != c.whole {
			t.Errorf("%s: %d records, TC %v", c.name, len(m.Answer), m.Truncated)
		}
		if o := m.IsEdns0(); o != nil && o.UDPSize() != 1232 {
			t.Errorf("%s: size %d offered", c.name, o.UDPSize())
		}
	}
	if u, tcp := len(s.questions("udp")), len(s.questions("tcp")); u != 1 || tcp != 1 {
		t.Errorf("asked %d times over UDP and %d over TCP", u, tcp)
	}
}

func TestOfAnErrorTheNextUpstreamIsAsked(t *testing.T) {
	for _, code := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotAuth} {
		bad := newServer(t, rcode(code))
		good := newServer(t, answer("x.example. 300 IN A 192.0.2.1"))
		r := start(t, testConfig(bad, good))
		if m := ask(t, r, query("x.example", dns.TypeA), false); m.Rcode != 0 || len(m.Answer) != 1 {
			t.Errorf("%s: %v", dns.RcodeToString[code], m)
		}
	}
}

func TestAnErrorThatAllGiveIsPassedOnAndRememberedForAMoment(t *testing.T) {
	a, b := newServer(t, rcode(dns.RcodeRefused)), newServer(t, rcode(dns.RcodeRefused))
	r := start(t, testConfig(a, b))
	for range 3 {
		if m := ask(t, r, query("x.example", dns.TypeA), false); m.Rcode != dns.RcodeRefused {
			t.Errorf("%v", m)
		}
	}
	if n := len(a.questions("")) + len(b.questions("")); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

func TestAnUpstreamThatKnowsNoEDNSIsAskedWithout(t *testing.T) {
	s := newServer(t, func(_ string, q *dns.Msg) []*dns.Msg {
		if q.IsEdns0() != nil {
			return []*dns.Msg{new(dns.Msg).SetRcode(q, dns.RcodeFormatError)}
		}
		return []*dns.Msg{reply1(q, 0, q.Question[0].Name+" 300 IN A 192.0.2.1")}
	})
	r := start(t, testConfig(s))
	for _, name := range []string{"a.example", "b.example"} {
		if m := ask(t, r, query(name, dns.TypeA), false); len(m.Answer) != 1 {
			t.Errorf("%v", m)
		}
	}
	if n := len(s.questions("")); n != 3 {
		t.Errorf("asked %d times: it is not remembered that EDNS is no use", n)
	}
}

func TestEqualQuestionsAreAskedOnce(t *testing.T) {
	release := make(chan struct{})
	s := newServer(t, func(_ string, q *dns.Msg) []*dns.Msg {
		<-release
		return answer("x.example. 300 IN A 192.0.2.1")("", q)
	})
	cfg := testConfig(s)
	cfg.MinHedge, cfg.MaxHedge, cfg.AttemptTimeout, cfg.Timeout = time.Hour, time.Hour, time.Hour, time.Hour
	r := start(t, cfg)
	var all []chan []byte
	for i := range 50 {
		q := query([]string{"x.example", "X.EXAMPLE"}[i%2], dns.TypeA)
		all = append(all, askAsync(t, r, q, client, false))
	}
	eventually(t, "the upstream is asked", func() bool { return len(s.questions("")) == 1 })
	close(release)
	for _, got := range all {
		if m := wait(t, got); len(m.Answer) != 1 {
			t.Errorf("%v", m)
		}
	}
	if n := len(s.questions("")); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if n := r.metrics.results.joined.Load(); n != 49 {
		t.Errorf("%v joined", n)
	}
}

func TestWithoutRecursionDesiredTheQuestionGoesOnAsItIs(t *testing.T) {
	s := newServer(t, answer("x.example. 300 IN A 192.0.2.1"))
	r := start(t, testConfig(s))
	q := query("x.example", dns.TypeA)
	q.RecursionDesired = false
	for range 2 {
		if m := ask(t, r, q, false); m.RecursionDesired || len(m.Answer) != 1 {
			t.Errorf("%v", m)
		}
	}
	asked := s.questions("")
	if len(asked) != 2 || asked[0].RecursionDesired {
		t.Errorf("%d asked, first %v: an answer without recursion says nothing for others", len(asked), asked[0])
	}
}

func TestAPopularAnswerIsRefreshedBeforeItExpires(t *testing.T) {
	s := newServer(t, answer("x.example. 300 IN A 192.0.2.1"))
	r := start(t, testConfig(s))
	ask(t, r, query("x.example", dns.TypeA), false)
	e, _ := r.now.Load().cache.answers.GetIfPresent("\x01x\x07example\x00\x00\x01\x00\x01\x00")
	old := e.stored
	r.now.Load().cache.answers.Set("\x01x\x07example\x00\x00\x01\x00\x01\x00", &entry{
		flags: e.flags, counts: e.counts, body: e.body, ttls: e.ttls, ede: e.ede,
		stored: old.Add(-280 * time.Second), ttl: e.ttl, keep: e.keep,
	})
	for range prefetchHits {
		if m := ask(t, r, query("x.example", dns.TypeA), false); m.Answer[0].Header().Ttl > 21 {
			t.Fatalf("%v", m)
		}
	}
	eventually(t, "it is asked again, once", func() bool { return len(s.questions("")) == 2 })
	eventually(t, "the fresh answer is served", func() bool {
		return ask(t, r, query("x.example", dns.TypeA), false).Answer[0].Header().Ttl > 290
	})
	if n := len(s.questions("")); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

func TestTheLongestSuffixOfWholeLabelsDecidesWhoIsAsked(t *testing.T) {
	say := func(who string) *server { return newServer(t, answer("x. 300 IN TXT "+who)) }
	all, outer, inner := say("default"), say("contoso.com"), say("a.contoso.com")
	cfg := testConfig(all)
	cfg.Zones = map[string][]Upstream{"contoso.com": {outer.upstream()}, "A.contoso.com.": {inner.upstream()}, "corp": {outer.upstream()}}
	cfg.Local = []string{"thisdcos.directory", "8.b.d.0.1.0.0.2.ip6.arpa", "hidden.contoso.com"}
	r := start(t, cfg)
	for name, want := range map[string]string{
		"x.a.contoso.com": "a.contoso.com", "a.contoso.com": "a.contoso.com", "x.b.contoso.com": "contoso.com",
		"contoso.com": "contoso.com", "xcontoso.com": "default", "xa.contoso.com": "contoso.com",
		"1.0.0.127.in-addr.arpa": "default", "app.dcos.directory": "default", "corp": "contoso.com", "x.corp": "contoso.com",
		"com": "", "directory": "", "localhost": "",
		"thisdcos.directory": "", "x.thisdcos.directory": "", "1.8.b.d.0.1.0.0.2.ip6.arpa": "",
		"hidden.contoso.com": "", "x.hidden.contoso.com": "", ".": "default",
	} {
		m := ask(t, r, query(name, dns.TypeTXT), false)
		got := ""
		if len(m.Answer) == 1 {
			got = m.Answer[0].(*dns.TXT).Txt[0]
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if want == "" && (m.Rcode != dns.RcodeNameError || len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA ||
			!dns.IsSubDomain(m.Ns[0].Header().Name, dns.Fqdn(name))) {
			t.Errorf("%s: not a negative answer that can be remembered: %v", name, m)
		}
	}
	for _, s := range []*server{all, outer, inner} {
		for _, q := range s.questions("") {
			if n := strings.ToLower(q.Question[0].Name); strings.HasSuffix(n, "thisdcos.directory.") || n == "com." || strings.HasPrefix(n, "x.hidden") {
				t.Errorf("%s leaked", n)
			}
		}
	}
}

func TestWithoutUpstreamsForeignNamesAreRefused(t *testing.T) {
	r := start(t, DefaultConfig())
	if m := ask(t, r, query("x.example", dns.TypeA), false); m.Rcode != dns.RcodeRefused || len(m.Question) != 1 {
		t.Errorf("%v", m)
	}
}

func TestOverloadShedsByClient(t *testing.T) {
	s := newServer(t, silence)
	cfg := testConfig(s)
	cfg.InFlight, cfg.Timeout, cfg.AttemptTimeout = 40, time.Hour, time.Hour
	r := start(t, cfg)
	flood := func(from string, n int) (shed int) {
		for i := range n {
			select {
			case <-askAsync(t, r, query(fmt.Sprintf("%s-%d.example", strings.ReplaceAll(from, ".", "-"), i), dns.TypeA), netip.MustParseAddr(from), false):
				shed++
			default:
			}
		}
		return shed
	}
	got := []int{flood("10.0.0.1", 1000), flood("10.0.0.2", 5), flood("10.0.0.3", 1000), flood("10.0.0.1", 10)}
	if d := cmp.Diff([]int{960, 0, 987, 10}, got); d != "" {
		t.Errorf("shed (-want +got): %s", d)
	}
	if n := r.metrics.results.shed.Load(); n != 1957 {
		t.Errorf("the metric says %v", n)
	}
	q := query("y.example", dns.TypeA)
	q.SetEdns0(1232, false)
	m := wait(t, askAsync(t, r, q, netip.MustParseAddr("10.0.0.1"), false))
	if m.Rcode != dns.RcodeServerFailure || !m.Response || edeOf(m) != edeOther {
		t.Errorf("%v", m)
	}
}

func TestWhoWaitsIsAnsweredWhenTheResolverStops(t *testing.T) {
	s := newServer(t, silence)
	cfg := testConfig(s)
	cfg.Timeout = time.Hour
	var got chan []byte
	t.Run("until here", func(t *testing.T) {
		r := start(t, cfg)
		got = askAsync(t, r, query("x.example", dns.TypeA), client, false)
	})
	if m := wait(t, got); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", m)
	}
}

func TestPacketsThatAreNoQueriesGetNoAnswerOfOurs(t *testing.T) {
	r := start(t, DefaultConfig())
	good, err := query("x.example", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(good) {
		if _, ok := r.Cached(nil, good[:n], false); ok {
			t.Fatalf("cut at %d: answered", n)
		}
		answers := 0
		r.Resolve(slices.Clone(good[:n]), client, false, nil, func(_ *wire.Outbox, msg []byte) {
			answers++
			if m := new(dns.Msg); m.Unpack(msg) != nil || m.Rcode != dns.RcodeFormatError || n >= 2 && m.Id != uint16(good[0])<<8|uint16(good[1]) {
				t.Fatalf("cut at %d: answered by % x", n, msg)
			}
		})
		if answers != 1 {
			t.Fatalf("cut at %d: %d answers", n, answers)
		}
	}
}
