package answers

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"

	"waggle/internal/testnet"
)

// both are questions that are asked of the kernel and of the daemon.
func both() map[string]*mdns.Msg {
	edns := func(m *mdns.Msg, do bool) *mdns.Msg { return m.SetEdns0(1232, do) }
	unasked := question("web.marathon.mesos.", mdns.TypeA)
	unasked.RecursionDesired = false
	checked := question("web.marathon.mesos.", mdns.TypeA)
	checked.CheckingDisabled, checked.AuthenticatedData = true, true
	return map[string]*mdns.Msg{
		"an address":          question("web.marathon.mesos.", mdns.TypeA),
		"in its own letters":  question("wEb.MARathon.mesos.", mdns.TypeA),
		"of IPv6":             question("web.marathon.mesos.", mdns.TypeAAAA),
		"with an OPT record":  edns(question("web.marathon.mesos.", mdns.TypeA), false),
		"for DNSSEC":          edns(question("web.marathon.mesos.", mdns.TypeA), true),
		"without recursion":   unasked,
		"with other flags":    checked,
		"no such name":        question("missing.marathon.mesos.", mdns.TypeA),
		"no such record":      question("web.marathon.mesos.", mdns.TypeMX),
		"type 65, an A":       question("web.marathon.mesos.", mdns.TypeHTTPS),
		"the name server":     question("ns1.mesos.", mdns.TypeA),
		"of three":            question("three.marathon.mesos.", mdns.TypeA),
		"of three, with OPT":  edns(question("three.marathon.mesos.", mdns.TypeA), false),
		"the longest that is": question(strings.Repeat("x", 63)+".mesos.", mdns.TypeA),
	}
}

// sorted makes answers comparable that differ in whose turn it is.
func sorted(m *mdns.Msg) *mdns.Msg {
	m = m.Copy()
	m.Id = 0
	slices.SortFunc(m.Answer, func(a, b mdns.RR) int { return strings.Compare(a.String(), b.String()) })
	return m
}

func TestTheKernelAnswersAsTheDaemonDoes(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::"} {
		t.Run(listen, func(t *testing.T) {
			b := newBed(t, listen)
			b.serve(task("web", "9.0.0.1", "2001:db8::1"), task("three", "9.0.1.1", "9.0.1.2", "9.0.1.3"))
			to := b.at
			switch {
			case to.Addr() == netip.IPv4Unspecified():
				to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), to.Port())
			case to.Addr() == netip.IPv6Unspecified():
				to = netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
			}
			for name, m := range both() {
				t.Run(name, func(t *testing.T) {
					c := b.client(t, to)
					want := c.ask(t, m)
					got := b.inKernel(t, c, m)
					if diff := cmp.Diff(sorted(want).String(), sorted(got).String()); diff != "" {
						t.Errorf("-daemon +kernel\n%s", diff)
					}
				})
			}
		})
	}
}

func TestEveryRecordComesFirstInTheKernelToo(t *testing.T) {
	t.Parallel()
	b := newBed(t, "127.0.0.1")
	b.serve(task("three", "9.0.1.1", "9.0.1.2", "9.0.1.3"))
	c := b.client(t, b.at)
	m := question("three.marathon.mesos.", mdns.TypeA).SetEdns0(1232, false)
	b.inKernel(t, c, m)
	first := map[string]int{}
	before := b.given()
	const asked = 600
	for range asked {
		first[firstOf(t, c, m)]++
	}
	if n := b.given() - before; n != asked {
		t.Errorf("the kernel gave %d of %d answers", n, asked)
	}
	if len(first) != 3 {
		t.Fatalf("first were %v", first)
	}
	for addr, n := range first {
		if n < asked/3-asked/6 || n > asked/3+asked/6 { // seven standard deviations
			t.Errorf("%s came first %d times of %d", addr, n, asked)
		}
	}
}

// firstOf asks m and returns the address that comes first of three.
func firstOf(t *testing.T, c *client, m *mdns.Msg) string {
	t.Helper()
	reply := c.ask(t, m)
	if len(reply.Answer) != 3 {
		t.Fatal(reply)
	}
	return reply.Answer[0].(*mdns.A).A.String()
}

// TestAChangeCountsAtOnce changes the Zone at random: an answer is never one of a
// Zone before the one that counts.
func TestAChangeCountsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t, "127.0.0.1")
	b.serve()
	c := b.client(t, b.at)
	for i := range 200 {
		addr := fmt.Sprintf("9.1.%d.%d", i/250, i%250+1)
		b.serve(task("web", addr))
		m := question("web.marathon.mesos.", mdns.TypeA)
		for range i % 12 {
			if reply := c.ask(t, m); len(reply.Answer) != 1 || reply.Answer[0].(*mdns.A).A.String() != addr {
				t.Fatalf("want %s: %s", addr, reply)
			}
		}
	}
	if b.given() == 0 {
		t.Error("the kernel gave no answer")
	}
}

// dropping is what a firewall is like that lets only answers in, and queries, but
// knows no answer without a query that has been here.
const dropping = `table inet filter {
	chain input {
		type filter hook input priority 0; policy drop;
		ct state established accept
		udp dport %d accept
	}
}
`

func TestAFirewallThatDropsWhatTheKernelAnswers(t *testing.T) {
	t.Parallel()
	b := newBed(t, "127.0.0.1")
	b.serve(task("web", "9.0.0.1"))
	c, m := b.client(t, b.at), question("web.marathon.mesos.", mdns.TypeA)
	b.inKernel(t, c, m)
	nft(t, b.Namespace, fmt.Sprintf(dropping, b.at.Port()))
	until(t, "noticed", func() bool { return b.answers.Generation() == 0 })
	if err := b.answers.Err(); !errors.Is(err, errSilent) {
		t.Error(err)
	}
	for range 20 {
		c.ask(t, m) // by the daemon, whose answer belongs to a query
	}
	nft(t, b.Namespace, "flush ruleset\n")
	until(t, "noticed that it is gone", func() bool { return b.answers.Generation() != 0 })
	if err := b.answers.Err(); err != nil {
		t.Error(err)
	}
	b.inKernel(t, c, m)
}

// TestWhatNetfilterTranslatesIsTheDaemons has queries to elsewhere translated to
// the server: only answers that come from its socket are translated back.
func TestWhatNetfilterTranslatesIsTheDaemons(t *testing.T) {
	t.Parallel()
	const own = "198.51.100.1"
	b := newBed(t, own, func(n *testnet.Namespace) { n.Addr(t, "lo", netip.MustParsePrefix(own+"/32")) })
	b.serve(task("web", "9.0.0.1"))
	m := question("web.marathon.mesos.", mdns.TypeA)
	b.inKernel(t, b.client(t, b.at), m)
	elsewhere := netip.MustParseAddrPort("198.51.100.2:5353")
	b.Addr(t, "lo", netip.PrefixFrom(elsewhere.Addr(), 32))
	nft(t, b.Namespace, fmt.Sprintf(`table ip nat {
	chain output {
		type nat hook output priority -100;
		ip daddr %s udp dport %d dnat to %s
	}
}
`, elsewhere.Addr(), elsewhere.Port(), b.at))
	c := b.client(t, elsewhere)
	c.conn.Close()
	b.Must(t, func() (err error) { // from an address that the kernel answers
		c.conn, err = net.DialUDP("udp", &net.UDPAddr{IP: b.at.Addr().AsSlice()}, net.UDPAddrFromAddrPort(elsewhere))
		return err
	})
	defer c.conn.Close()
	before := b.given()
	for range 20 {
		if _, err := c.try(m, patience); err != nil {
			t.Fatal(err)
		}
	}
	if b.given() != before {
		t.Error("the kernel answered")
	}
}

func TestNothingIsLeftWhenItHasEnded(t *testing.T) {
	t.Parallel()
	b := newBed(t, "127.0.0.1")
	b.serve(task("web", "9.0.0.1"))
	c, m := b.client(t, b.at), question("web.marathon.mesos.", mdns.TypeA)
	b.inKernel(t, c, m)
	b.stop()
	for range 10 {
		c.ask(t, m) // of the daemon alone
	}
	if b.answers.Counts() != nil {
		t.Error("there are still counts")
	}
}
