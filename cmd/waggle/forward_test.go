package main

import (
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"waggle/api"
	"waggle/dns/forward"
)

// TestADaemonAnswersForOthersToo runs the program with an upstream in the
// client's namespace.
func TestADaemonAnswersForOthersToo(t *testing.T) {
	n := newNode(t)
	upstream := n.everyName(t, "192.0.2.1")
	n.start(t, n.verb("dev", "--agent-ip", n.addr.String(), "../../examples/hello.json",
		"--dns.forward.on=true", "--dns.forward.upstreams", upstream)...)
	n.up(t, "hello.marathon", 3)
	if r := n.query(t, n.client, "www.example.com.", dns.TypeA); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 || !r.RecursionAvailable {
		t.Errorf("%v", r)
	}
	n.query(t, n.client, "www.example.com.", dns.TypeA)
	forwardShown(t, n, upstream)
	nothingOfOursGoesOutside(t, n)
}

// everyName starts a server in the client's namespace that has addr for every
// name, and returns where it is.
func (n *node) everyName(t *testing.T, addr string) string {
	t.Helper()
	var pc net.PacketConn
	n.client.Must(t, func() (err error) {
		pc, err = net.ListenPacket("udp", n.addr.Next().String()+":0")
		return err
	})
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		rr, err := dns.NewRR(q.Question[0].Name + " 60 IN A " + addr)
		if err != nil {
			t.Error(err)
		}
		r := new(dns.Msg).SetReply(q)
		r.Answer = []dns.RR{rr}
		_ = w.WriteMsg(r)
	})}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	return pc.LocalAddr().String()
}

// nothingOfOursGoesOutside asks what only we can know. The upstream has an address
// for every name.
func nothingOfOursGoesOutside(t *testing.T, n *node) {
	t.Helper()
	for name, want := range map[string]int{
		"nobody.mesos.":                            dns.RcodeNameError,
		"www.example.com.marathon.mesos.":          dns.RcodeNameError, // by a search list
		"www.example.com.l4lb.thisdcos.directory.": dns.RcodeNameError,
		"mesos.":                          dns.RcodeSuccess,
		"hello.marathon.mesos.":           dns.RcodeSuccess,
		"nobody.l4lb.thisdcos.directory.": dns.RcodeNameError,
		"l4lb.thisdcos.directory.":        dns.RcodeSuccess,
		"thisdcos.directory.":             dns.RcodeSuccess,
		"nobody.thisdcos.directory.":      dns.RcodeRefused, // a zone that DC/OS does not have
		"9.9.9.11.in-addr.arpa.":          dns.RcodeNameError,
		"11.in-addr.arpa.":                dns.RcodeNameError,
		"100.51.198.in-addr.arpa.":        dns.RcodeNameError,
		reverseOf(n.addr):                 dns.RcodeSuccess,
		"intranet.":                       dns.RcodeNameError,
		"com.":                            dns.RcodeNameError,
	} {
		for _, kind := range []uint16{dns.TypeDS, dns.TypeTXT, dns.TypeNSEC} {
			r := n.query(t, n.client, name, kind)
			if r.Rcode != want || len(r.Answer) > 0 {
				t.Errorf("%s %s went outside: %v", name, dns.TypeToString[kind], r)
			}
			if want != dns.RcodeRefused && (len(r.Ns) != 1 || r.Ns[0].Header().Rrtype != dns.TypeSOA) {
				t.Errorf("%s %s cannot be remembered: %v", name, dns.TypeToString[kind], r)
			}
		}
	}
}

// reverseOf is the reverse name of an address.
func reverseOf(a netip.Addr) string {
	name, err := dns.ReverseAddr(a.String())
	if err != nil {
		panic(err)
	}
	return name
}

// forwardShown checks what is shown of one upstream that has been asked once, for
// what has then been answered from the cache.
func forwardShown(t *testing.T, n *node, upstream string) {
	t.Helper()
	var st api.Status
	code, text, errs := verb(t, "status", "--socket", n.socket(), "-o", "json")
	if code != 0 || json.Unmarshal([]byte(text), &st) != nil {
		t.Fatalf("exit %d: %s%s", code, text, errs)
	}
	f := st.Forward
	if f == nil || len(f.Upstreams) != 1 {
		t.Fatalf("forwarding is %+v", f)
	}
	u := &f.Upstreams[0] // which a busy machine lets be asked more than once
	if u.Latency <= 0 || u.Asked == 0 || f.Cache.AnswerBytes == 0 {
		t.Errorf("%+v", f)
	}
	u.Latency, u.Asked, f.Cache.AnswerBytes = 0, 0, 0
	want := &api.Forward{
		Upstreams: []forward.Status{{Upstream: upstream, Zones: []string{"."}, State: "well"}},
		Cache:     forward.CacheStatus{Questions: 2, Hits: 1, HitRatio: 0.5, Answers: 1},
	}
	if d := cmp.Diff(want, f); d != "" {
		t.Error(d)
	}
	_, text, _ = verb(t, "status", "--socket", n.socket())
	for _, line := range []string{"upstream         " + upstream + " well, ", ", 0 of ", "cache            50 % of 2 questions, 1 answers, 0 negative"} {
		if !strings.Contains(text, line) {
			t.Errorf("the status lacks %q:\n%s", line, text)
		}
	}
}

func TestReverseNamesOfPrefixes(t *testing.T) {
	got := map[string][]string{}
	want := map[string][]string{
		"11.0.0.0/8": {"11.in-addr.arpa"}, "198.51.100.0/24": {"100.51.198.in-addr.arpa"}, "192.0.2.1/32": {"1.2.0.192.in-addr.arpa"},
		"10.64.0.0/14": {"64.10.in-addr.arpa", "65.10.in-addr.arpa", "66.10.in-addr.arpa", "67.10.in-addr.arpa"},
		"fd01:c::/64":  {"0.0.0.0.0.0.0.0.c.0.0.0.1.0.d.f.ip6.arpa"}, "fd00::/7": {"c.f.ip6.arpa", "d.f.ip6.arpa"},
	}
	for p := range want {
		got[p] = reverse(netip.MustParsePrefix(p))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
