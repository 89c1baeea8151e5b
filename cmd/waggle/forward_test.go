package main

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// TestADaemonAnswersForOthersToo runs the program with an upstream in the
// client's namespace.
func TestADaemonAnswersForOthersToo(t *testing.T) {
	n := newNode(t)
	var pc net.PacketConn
	n.client.Must(t, func() (err error) {
		pc, err = net.ListenPacket("udp", n.addr.Next().String()+":0")
		return err
	})
	upstream := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		rr, err := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.1")
		if err != nil {
			t.Error(err)
		}
		r := new(dns.Msg).SetReply(q)
		r.Answer = []dns.RR{rr}
		_ = w.WriteMsg(r)
	})}
	done := make(chan error, 1)
	go func() { done <- upstream.ActivateAndServe() }()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	n.start(t, n.verb("dev", "--agent-ip", n.addr.String(), "../../examples/hello.json",
		"--dns.forward.on=true", "--dns.forward.upstreams", pc.LocalAddr().String())...)
	n.up(t, "hello.marathon", 3)
	if r := n.query(t, n.client, "www.example.com.", dns.TypeA); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 || !r.RecursionAvailable {
		t.Errorf("%v", r)
	}
	for _, name := range []string{"nobody.mesos.", "nobody.l4lb.thisdcos.directory.", "9.9.9.11.in-addr.arpa.", "intranet."} {
		if r := n.query(t, n.client, name, dns.TypeA); r.Rcode != dns.RcodeNameError {
			t.Errorf("%s went outside: %v", name, r)
		}
	}
	if r := n.query(t, n.client, "nobody.thisdcos.directory.", dns.TypeA); r.Rcode != dns.RcodeRefused {
		t.Errorf("a zone that DC/OS does not have went outside: %v", r)
	}
}

func TestReverseNamesOfPrefixes(t *testing.T) {
	got := map[string]string{}
	want := map[string]string{
		"11.0.0.0/8": "11.in-addr.arpa", "198.51.100.0/24": "100.51.198.in-addr.arpa",
		"fd01:c::/64": "0.0.0.0.0.0.0.0.c.0.0.0.1.0.d.f.ip6.arpa",
	}
	for p := range want {
		got[p] = reverse(netip.MustParsePrefix(p))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
