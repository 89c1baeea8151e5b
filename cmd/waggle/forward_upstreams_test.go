package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"waggle/api"
	"waggle/dns/forward"
	"waggle/internal/dnspeer"
	"waggle/internal/testnet"
)

// outsider is a server of others' names in a namespace of its own, behind a link
// to the node.
type outsider struct {
	*testnet.Namespace
	*dnspeer.Server
}

// outsideApex is the zone that outsiders have.
const outsideApex = "corp.example."

func outsideZone() dnspeer.Zone {
	z := dnspeer.Zone{Apex: outsideApex, Records: []dnspeer.Record{
		{Name: outsideApex, Type: "SOA", TTL: 60, Data: "ns.corp.example. root.corp.example. 1 60 60 60 60"},
		{Name: outsideApex, Type: "NS", TTL: 60, Data: "ns.corp.example."},
		{Name: "ns.corp.example.", Type: "A", TTL: 60, Data: "192.0.2.53"},
		{Name: "short.corp.example.", Type: "A", TTL: 1, Data: "192.0.2.7"},
		{Name: "*.any.corp.example.", Type: "A", TTL: 60, Data: "192.0.2.8"},
	}}
	for i := range 120 {
		z.Records = append(z.Records, dnspeer.Record{Name: "big.corp.example.", Type: "A", TTL: 60, Data: fmt.Sprintf("198.18.0.%d", i)})
	}
	return z
}

// newOutsiders starts servers that the node reaches at 10.98.i.2.
func newOutsiders(t *testing.T, n *node, kinds ...dnspeer.Kind) (out []*outsider) {
	t.Helper()
	for i, k := range kinds {
		o := &outsider{Namespace: testnet.New(t)}
		at := netip.AddrFrom4([4]byte{10, 98, byte(i), 2})
		testnet.Link(t, o.Namespace, netip.PrefixFrom(at, 24), n.Namespace, netip.PrefixFrom(at.Prev(), 24))
		o.Must(t, func() error {
			o.Server = k.Start(t, outsideZone(), dnspeer.Options{At: at})
			return nil
		})
		out = append(out, o)
	}
	return out
}

// forwarding starts the daemon with further arguments, without a balancer, and
// returns once it answers.
func (n *node) forwarding(t *testing.T, args ...string) *process {
	t.Helper()
	p := n.start(t, append(n.verb("run", "--file.paths", t.TempDir(), "--dns.forward.on=true", "--dns.limit.rate", "0", "--lb.backend", "none"), args...)...)
	n.serves(t, n.client)
	return p
}

// serves waits until the node's daemon knows what there is.
func (n *node) serves(t *testing.T, ns *testnet.Namespace) {
	t.Helper()
	eventually(t, "the daemon answers", func() bool {
		r, err := n.asked(ns, new(dns.Msg).SetQuestion("ready.spartan.", dns.TypeA), time.Second)
		return err == nil && len(r.Answer) == 1
	})
}

// asked asks the node once, over UDP.
func (n *node) asked(ns *testnet.Namespace, q *dns.Msg, within time.Duration) (r *dns.Msg, err error) {
	err = ns.Do(func() (err error) {
		c := dns.Client{Timeout: within, UDPSize: 4096}
		r, _, err = c.Exchange(q, n.addr.String()+":53")
		return err
	})
	return r, err
}

// standing returns what the daemon says of its upstreams.
func (n *node) standing(t *testing.T) *api.Forward {
	t.Helper()
	var st api.Status
	if err := (api.Client{Socket: n.socket()}).Get(t.Context(), "/v2/status", &st); err != nil || st.Forward == nil {
		t.Fatalf("%+v: %v", st.Forward, err)
	}
	return st.Forward
}

// TestADaemonWithUpstreamsThatDie has three real servers in namespaces.
func TestADaemonWithUpstreamsThatDie(t *testing.T) {
	n := newNode(t)
	servers := newOutsiders(t, n, dnspeer.NSD(), dnspeer.Knot(), dnspeer.NSD())
	var args []string
	for _, o := range servers {
		args = append(args, "--dns.forward.upstreams", o.Server.Addr.String())
	}
	n.forwarding(t, args...)
	fresh := 0
	// slowest asks for names that nobody has asked for and returns how long the
	// slowest answer took.
	slowest := func(count int) (worst time.Duration) {
		for range count {
			fresh++
			start := time.Now()
			r, err := n.asked(n.client, new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.any.corp.example.", fresh), dns.TypeA), 10*time.Second)
			if err != nil || len(r.Answer) != 1 {
				t.Fatalf("question %d: %v %v", fresh, r, err)
			}
			worst = max(worst, time.Since(start))
		}
		return worst
	}
	well := func() (count int) {
		for _, u := range n.standing(t).Upstreams {
			if u.State == "well" {
				count++
			}
		}
		return count
	}
	eventually(t, "all upstreams have been measured and are well", func() bool { slowest(5); return well() == 3 })

	sizesAreTheClients(t, n)

	// Whoever is asked first dies. On a busy machine any answer may be late, so what
	// is late when all are alive does not count.
	eventually(t, "with one of three dead no question takes more than 50 ms", func() bool {
		late := max(50*time.Millisecond, 3*slowest(50))
		dead := servers[first(n.standing(t).Upstreams)]
		dead.Cut(t)
		worst := slowest(50)
		dead.Mend(t)
		eventually(t, "the dead one is back", func() bool { slowest(5); return well() == 3 })
		return worst < late
	})

	// Only who is asked is found dead, and who that is changes with each answer.
	dead := first(n.standing(t).Upstreams)
	servers[dead].Cut(t)
	resting := func() bool { return n.standing(t).Upstreams[dead].State == "resting" }
	eventually(t, "the dead one is left alone", func() bool {
		slowest(20)
		if up := n.standing(t).Upstreams; up[dead].State == "well" && first(up) != dead {
			servers[dead].Mend(t)
			dead = first(up)
			servers[dead].Cut(t)
		}
		return resting()
	})
	// An answer that is late has another asked: on a busy machine some are, not all.
	eventually(t, "while it is left alone it is not asked, and others not twice", func() bool {
		before := n.standing(t).Upstreams
		if !resting() {
			slowest(5)
			return false
		}
		slowest(50)
		after := n.standing(t).Upstreams
		return resting() && after[dead].Asked == before[dead].Asked && questions(after)-questions(before) < 2*50
	})

	allDeadServesStale(t, n, slices.Delete(servers, dead, dead+1))
}

// questions is how many all of them got.
func questions(upstreams []forward.Status) (sum uint64) {
	for _, u := range upstreams {
		sum += u.Asked
	}
	return sum
}

// first is who answers fastest.
func first(upstreams []forward.Status) (at int) {
	for i, u := range upstreams {
		if u.Latency < upstreams[at].Latency {
			at = i
		}
	}
	return at
}

// sizesAreTheClients asks for more than UDP holds: the answer is cut to what the
// client takes and the daemon gives, whatever its upstreams were offered, and is
// whole over TCP.
func sizesAreTheClients(t *testing.T, n *node) {
	t.Helper()
	for size, limit := range map[uint16]int{0: 512, 512: 512, 900: 900, 1232: 1232, 4096: 1232} {
		q := new(dns.Msg).SetQuestion("BIG.corp.EXAMPLE.", dns.TypeA)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		r, err := n.asked(n.client, q, 10*time.Second)
		if err != nil || !r.Truncated || r.Len() > limit || r.Question[0] != q.Question[0] || (r.IsEdns0() != nil) != (size > 0) {
			t.Errorf("%d octets: %v %v", size, r, err)
		}
	}
	n.client.Must(t, func() error {
		c := dns.Client{Net: "tcp", Timeout: 10 * time.Second}
		r, _, err := c.Exchange(new(dns.Msg).SetQuestion("big.corp.example.", dns.TypeA), n.addr.String()+":53")
		if err == nil && (r.Truncated || len(r.Answer) != 120) {
			t.Errorf("over TCP: %v", r)
		}
		return err
	})
}

// allDeadServesStale has those die that are left.
func allDeadServesStale(t *testing.T, n *node, left []*outsider) {
	t.Helper()
	q := new(dns.Msg).SetQuestion("short.corp.example.", dns.TypeA)
	q.SetEdns0(1232, false)
	if r, err := n.asked(n.client, q, 10*time.Second); err != nil || len(r.Answer) != 1 {
		t.Fatalf("%v %v", r, err)
	}
	for _, o := range left {
		o.Cut(t)
	}
	eventually(t, "what has expired is served", func() bool {
		r, err := n.asked(n.client, q, 10*time.Second)
		if err != nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 {
			t.Fatalf("%v %v", r, err)
		}
		return r.Answer[0].Header().Ttl == 30 && strings.Contains(r.String(), "Stale Answer")
	})
	q.Question[0].Name = "never-asked.any.corp.example."
	eventually(t, "what is not known fails with an extended error", func() bool {
		r, err := n.asked(n.client, q, 10*time.Second)
		return err == nil && r.Rcode == dns.RcodeServerFailure && strings.Contains(r.String(), "EDE: ")
	})
	if r, err := n.asked(n.client, new(dns.Msg).SetQuestion("ready.spartan.", dns.TypeA), 10*time.Second); err != nil || len(r.Answer) != 1 {
		t.Errorf("names of our own: %v %v", r, err)
	}
	asked := 0
	eventually(t, "the status says so", func() bool {
		asked++ // an upstream that nobody asks is not known to be dead
		_, _ = n.asked(n.client, new(dns.Msg).SetQuestion(fmt.Sprintf("m%d.any.corp.example.", asked), dns.TypeA), 50*time.Millisecond)
		_, text, _ := verb(t, "status", "--socket", n.socket())
		return strings.Contains(text, "no upstream answers for names below .")
	})
}

// TestADaemonAsksByTLSUnderAnAuthorityOfItsOwn has Unbound answer by TLS in a
// namespace, with a certificate that no system knows.
func TestADaemonAsksByTLSUnderAnAuthorityOfItsOwn(t *testing.T) {
	n := newNode(t)
	o := testnet.New(t)
	at := netip.MustParseAddr("10.98.0.2")
	testnet.Link(t, o, netip.PrefixFrom(at, 24), n.Namespace, netip.PrefixFrom(at.Prev(), 24))
	cert, key := dnspeer.Certificate(t, "dns.corp.example")
	other, _ := dnspeer.Certificate(t, "dns.corp.example")
	secure := netip.AddrPortFrom(at, 853)
	o.Must(t, func() error {
		dnspeer.Unbound().Start(t, outsideZone(), dnspeer.Options{At: at, TLS: dnspeer.TLS{Addr: secure, Cert: cert, Key: key}})
		return nil
	})
	for _, c := range []struct {
		ca, name string
		ok       bool
	}{{cert, "dns.corp.example", true}, {other, "dns.corp.example", false}, {cert, "other.example", false}, {"", "dns.corp.example", false}} {
		p := n.forwarding(t, "--dns.forward.ca_file", c.ca, "--dns.forward.upstreams", "tls://"+secure.String()+"#"+c.name)
		r, err := n.asked(n.client, new(dns.Msg).SetQuestion("big.corp.example.", dns.TypeA), 20*time.Second)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if c.ok && (r.Rcode != dns.RcodeSuccess || !r.Truncated) || !c.ok && r.Rcode != dns.RcodeServerFailure {
			t.Errorf("%+v: %v", c, r)
		}
		if u := n.standing(t).Upstreams[0]; (u.Error == "") != c.ok {
			t.Errorf("%+v: %+v", c, u)
		}
		p.stop(t, syscall.SIGTERM)
	}
}

// TestTwoDaemonsThatAskEachOtherStop has each have the other as its upstream.
func TestTwoDaemonsThatAskEachOtherStop(t *testing.T) {
	a := newNode(t)
	b := *a // the same cgroup, another machine
	b.Namespace, b.addr, b.state = testnet.New(t), netip.MustParseAddr("10.98.0.2"), t.TempDir()
	testnet.Link(t, b.Namespace, netip.PrefixFrom(b.addr, 24), a.Namespace, netip.PrefixFrom(b.addr.Prev(), 24))
	b.Default(t, b.addr.Prev())
	a.forwarding(t, "--dns.forward.upstreams", b.addr.String())
	b.start(t, "run", "--file.paths", t.TempDir(), "--dns.listen", b.addr.String()+":53", "--http.listen", "", "--http.socket", b.socket(),
		"--lb.backend", "none", "--state.dir", b.archive(), "--dns.forward.upstreams", a.addr.String())
	b.serves(t, a.Namespace)
	const questions = 20
	for i := range questions {
		r, err := a.asked(a.client, new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.any.corp.example.", i), dns.TypeA), 10*time.Second)
		if err != nil || r.Rcode != dns.RcodeServerFailure {
			t.Fatalf("question %d: %v %v", i, r, err)
		}
	}
	for _, n := range []*node{a, &b} {
		u := n.standing(t).Upstreams[0]
		// Each question goes round once, if it is not known by then that it would.
		if u.Asked > 2*questions {
			t.Errorf("%d questions made %d", questions, u.Asked)
		}
	}
	if u := a.standing(t).Upstreams[0]; u.State != "resting" || !strings.Contains(u.Error, "back to us") {
		t.Errorf("%+v", u)
	}
}
