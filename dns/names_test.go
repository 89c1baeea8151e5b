package dns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"waggle/model"
	"waggle/vip"
)

// told returns what z answers: "rcode: name type data, ..." over UDP, or TCP.
func told(t testing.TB, z *Zone, name string, rrtype uint16, tcp bool) string {
	t.Helper()
	r := unpack(t, pack(t, reply(z, pack(t, ask(name, rrtype)), tcp, 0)))
	var rrs []string
	for _, rr := range r.Answer {
		h := rr.Header()
		rrs = append(rrs, fmt.Sprintf("%s %d %s %s", h.Name, h.Ttl, dns.TypeToString[h.Rrtype], data(rr)))
	}
	out := dns.RcodeToString[r.Rcode] + ": " + strings.Join(rrs, ", ")
	for _, rr := range r.Ns {
		out += "; " + rr.Header().Name + " " + dns.TypeToString[rr.Header().Rrtype]
	}
	return out
}

// inventory is a small cluster with one of everything, and its configuration.
func inventory() (*model.Snapshot, *vip.Table, Config) {
	cfg := DefaultConfig()
	cfg.NSAddrs = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	cfg.NodeAddrs = []netip.Addr{agentIP, netip.MustParseAddr("2001:db8::5")}
	cfg.PublicAddrs = []netip.Addr{netip.MustParseAddr("203.0.113.5")}
	cfg.CryptoID = "c3zs6aubqe"
	cfg.Records = []string{
		"db.example.com A 192.0.2.7", "db.example.com. AAAA 2001:db8::7", "www.example.com CNAME db.example.com",
		"_pg._tcp.example.com SRV 1 2 5432 db.example.com.", `note.mesos TXT "two words" more`,
		"8.2.0.192.in-addr.arpa PTR printer.example.com", "shop.mesos CNAME memcached.marathon.mesos",
		"away.mesos CNAME www.example.org", "lost.mesos CNAME nobody.mesos", "a.loop.mesos CNAME b.loop.mesos", "b.loop.mesos CNAME a.loop.mesos",
	}
	snap := world(
		memcached(func(t *model.Task) {
			t.Addrs = append(in("dcos", ownIP), in("dcos6", ownIP6)...)
			t.Ports = []model.Port{port("connect", 11211, 0), {Name: "connect", Proto: model.UDP, Number: 11211}, port("admin", 80, 0)}
		}),
		memcached(func(t *model.Task) {
			t.Key.ID, t.Discovery.Name, t.AgentID = "bridged.1", "bridged", "A-S0"
			t.Addrs, t.Ports = in("", ownIP2), []model.Port{port("http", 80, 31000)}
		}),
	)
	agents := snap.Agents.Edit()
	agents.Set("0F7A-S0", &model.Agent{ID: "0F7A-S0", Hostname: "Node1.example.com", Addr: agentIP, Port: 5051})
	snap.Agents = agents.Groups()
	frameworks := snap.Frameworks.Edit()
	frameworks.Set("F0", &model.Framework{ID: "F0", Name: "marathon", Addr: netip.MustParseAddr("10.0.0.9"), Port: 8080})
	snap.Frameworks = frameworks.Groups()
	snap.Leader = netip.MustParseAddrPort("10.0.0.6:5050")
	snap.Masters = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.7:5050"), snap.Leader, netip.MustParseAddrPort("10.0.0.8:5050")}
	return snap, tableOf(service("web.marathon", "11.1.2.3:80"), service("web.marathon", "[fd01:c::1]:80")), cfg
}

func TestEveryKindOfName(t *testing.T) {
	snap, table, cfg := inventory()
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	z := Build(nil, snap, table, cfg)
	c := canonical("memcached", "memcached.1", "A-S0")
	for _, tc := range []struct {
		name   string
		rrtype uint16
		want   string
	}{
		// What DC/OS has on each node.
		{"ready.spartan.", dns.TypeA, "NOERROR: ready.spartan. 5 A 127.0.0.1"},
		{"ns.spartan.", dns.TypeA, "NOERROR: ns.spartan. 5 A 198.51.100.1"},
		{"localhost.", dns.TypeA, "NOERROR: localhost. 5 A 127.0.0.1"},
		{"localhost.", dns.TypeAAAA, "NOERROR: localhost. 5 AAAA ::1"},
		{"a.localhost.", dns.TypeA, "NXDOMAIN: ; localhost. SOA"},
		{"thisnode.thisdcos.directory.", dns.TypeA, "NOERROR: thisnode.thisdcos.directory. 5 A 10.0.0.5"},
		{"thisnode.thisdcos.directory.", dns.TypeAAAA, "NOERROR: thisnode.thisdcos.directory. 5 AAAA 2001:db8::5"},
		{"public.thisnode.thisdcos.directory.", dns.TypeA, "NOERROR: public.thisnode.thisdcos.directory. 5 A 203.0.113.5"},
		{"zk-1.zk.", dns.TypeA, "NOERROR: zk-1.zk. 5 A 10.0.0.7"},
		{"zk-3.zk.", dns.TypeA, "NOERROR: zk-3.zk. 5 A 10.0.0.8"},
		{"zk-5.zk.", dns.TypeA, "NOERROR: zk-5.zk. 5 A 10.0.0.6"},
		{"zk-6.zk.", dns.TypeA, "NXDOMAIN: ; zk. SOA"},
		{"registry.component.thisdcos.directory.", dns.TypeAAAA, "NOERROR: registry.component.thisdcos.directory. 5 CNAME master.dcos.thisdcos.directory.; dcos.thisdcos.directory. SOA"},
		{"registry.component.thisdcos.directory.", dns.TypeCNAME, "NOERROR: registry.component.thisdcos.directory. 5 CNAME master.dcos.thisdcos.directory."},
		{"leader.dcos.thisdcos.directory.", dns.TypeA, "NOERROR: leader.dcos.thisdcos.directory. 5 A 10.0.0.6"},
		{"memcached.marathon.autoip.dcos.thisdcos.directory.", dns.TypeA, "NOERROR: memcached.marathon.autoip.dcos.thisdcos.directory. 5 A 9.0.1.6"},
		{"web.marathon.l4lb.thisdcos.directory.", dns.TypeAAAA, "NOERROR: web.marathon.l4lb.thisdcos.directory. 5 AAAA fd01:c::1"},

		// Other names of the same.
		{"Web.marathon.dclb.thisdcos.directory.", dns.TypeA, "NOERROR: Web.marathon.dclb.thisdcos.directory. 5 A 11.1.2.3"},
		{"web.marathon.l4lb.thisdcos.global.", dns.TypeA, "NOERROR: web.marathon.l4lb.thisdcos.global. 5 A 11.1.2.3"},
		{"web.marathon.dclb.thisdcos.global.", dns.TypeA, "NOERROR: web.marathon.dclb.thisdcos.global. 5 A 11.1.2.3"},
		{"web.marathon.l4lb.C3ZS6aubqe.dcos.directory.", dns.TypeA, "NOERROR: web.marathon.l4lb.C3ZS6aubqe.dcos.directory. 5 A 11.1.2.3"},
		{"memcached.marathon.mesos.thisdcos.directory.", dns.TypeA, "NOERROR: memcached.marathon.mesos.thisdcos.directory. 5 A 9.0.1.6"},
		{"memcached.marathon.mesos.thisdcos.global.", dns.TypeA, "NOERROR: memcached.marathon.mesos.thisdcos.global. 5 A 9.0.1.6"},
		{"_admin._memcached._tcp.marathon.mesos.c3zs6aubqe.dcos.directory.", dns.TypeSRV,
			"NOERROR: _admin._memcached._tcp.marathon.mesos.c3zs6aubqe.dcos.directory. 5 SRV 0 1 80 " + c + ".marathon.mesos.c3zs6aubqe.dcos.directory."},
		{"registry.component.thisdcos.global.", dns.TypeCNAME, "NOERROR: registry.component.thisdcos.global. 5 CNAME master.dcos.thisdcos.global."},
		{"nobody.marathon.dclb.thisdcos.directory.", dns.TypeA, "NXDOMAIN: ; dclb.thisdcos.directory. SOA"},
		{"marathon.dclb.thisdcos.directory.", dns.TypeA, "NOERROR: ; dclb.thisdcos.directory. SOA"},
		{"mesos.thisdcos.directory.", dns.TypeSOA, "NOERROR: mesos.thisdcos.directory. 5 SOA ns.spartan. support.mesosphere.com. 1 60 180 86400 1"},
		{"nobody.unknown.thisdcos.global.", dns.TypeA, "REFUSED: "},
		{"nobody.unknown.thisdcos.directory.", dns.TypeA, "REFUSED: "},
		{"x.autoip.dcos.wrongid.dcos.directory.", dns.TypeA, "REFUSED: "},

		// Names of our own.
		{"0f7a-s0.agent.mesos.", dns.TypeA, "NOERROR: 0f7a-s0.agent.mesos. 60 A 10.0.0.5"},
		{"node1-example-com.agent.mesos.", dns.TypeA, "NOERROR: node1-example-com.agent.mesos. 60 A 10.0.0.5"},
		{"node1.example.com.agent.mesos.", dns.TypeA, "NOERROR: node1.example.com.agent.mesos. 60 A 10.0.0.5"},
		{"0.memcached.marathon.instance.mesos.", dns.TypeAAAA, "NOERROR: 0.memcached.marathon.instance.mesos. 60 AAAA fd01:b::6"},
		{"1.memcached.marathon.instance.mesos.", dns.TypeA, "NXDOMAIN: ; mesos. SOA"},
		{"_admin._tcp.0.memcached.marathon.instance.mesos.", dns.TypeSRV, "NOERROR: _admin._tcp.0.memcached.marathon.instance.mesos. 60 SRV 0 1 80 " + c + ".marathon.mesos."},
		{"_port0._memcached._udp.marathon.mesos.", dns.TypeSRV, "NOERROR: _port0._memcached._udp.marathon.mesos. 60 SRV 0 1 11211 " + c + ".marathon.mesos."},
		{"_port1._memcached._tcp.marathon.mesos.", dns.TypeSRV, "NOERROR: _port1._memcached._tcp.marathon.mesos. 60 SRV 0 1 80 " + c + ".marathon.mesos."},
		{"memcached.marathon.dcos6.network.mesos.", dns.TypeAAAA, "NOERROR: memcached.marathon.dcos6.network.mesos. 60 AAAA fd01:b::6"},
		{"memcached.marathon.dcos6.network.mesos.", dns.TypeA, "NOERROR: ; mesos. SOA"},

		// Addresses.
		{"3.2.1.11.in-addr.arpa.", dns.TypePTR, "NOERROR: 3.2.1.11.in-addr.arpa. 5 PTR web.marathon.l4lb.thisdcos.directory."},
		{reverseName(netip.MustParseAddr("fd01:c::1")), dns.TypePTR,
			"NOERROR: 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.c.0.0.0.1.0.d.f.ip6.arpa. 5 PTR web.marathon.l4lb.thisdcos.directory."},
		{"6.1.0.9.IN-addr.arpa.", dns.TypePTR, "NOERROR: 6.1.0.9.IN-addr.arpa. 5 PTR " + c + ".marathon.mesos."},
		{"5.0.0.10.in-addr.arpa.", dns.TypePTR, "NOERROR: 5.0.0.10.in-addr.arpa. 5 PTR 0f7a-s0.agent.mesos."},
		{"7.0.0.10.in-addr.arpa.", dns.TypePTR, "NOERROR: 7.0.0.10.in-addr.arpa. 5 PTR master0.mesos."},
		{"9.0.0.10.in-addr.arpa.", dns.TypePTR, "NOERROR: 9.0.0.10.in-addr.arpa. 5 PTR marathon.mesos."},
		{"1.100.51.198.in-addr.arpa.", dns.TypePTR, "NOERROR: 1.100.51.198.in-addr.arpa. 5 PTR ns.spartan., 1.100.51.198.in-addr.arpa. 5 PTR ns1.mesos."},
		{"5.0.0.10.in-addr.arpa.", dns.TypeA, "NOERROR: ; 5.0.0.10.in-addr.arpa. SOA"},
		{"5.0.0.10.in-addr.arpa.", dns.TypeSOA, "NOERROR: 5.0.0.10.in-addr.arpa. 5 SOA ns1.mesos. root.ns1.mesos. 1 60 600 86400 5"},
		{"6.1.1.9.in-addr.arpa.", dns.TypePTR, "REFUSED: "}, // on a bridge: another agent may have the same
		{"0.0.10.in-addr.arpa.", dns.TypePTR, "REFUSED: "},  // not ours, though something below it is
		{"in-addr.arpa.", dns.TypeSOA, "REFUSED: "},
		{"1.0.0.127.in-addr.arpa.", dns.TypePTR, "REFUSED: "},
		{"example.org.", dns.TypeA, "REFUSED: "},
		{".", dns.TypeNS, "REFUSED: "},

		// From the configuration.
		{"db.example.com.", dns.TypeA, "NOERROR: db.example.com. 5 A 192.0.2.7"},
		{"DB.example.com.", dns.TypeMX, "NOERROR: ; DB.example.com. SOA"},
		{"example.com.", dns.TypeA, "REFUSED: "},
		{"x.db.example.com.", dns.TypeA, "REFUSED: "},
		{"www.example.com.", dns.TypeA, "NOERROR: www.example.com. 5 CNAME db.example.com., db.example.com. 5 A 192.0.2.7"},
		{"_pg._tcp.example.com.", dns.TypeSRV, "NOERROR: _pg._tcp.example.com. 5 SRV 1 2 5432 db.example.com."},
		{"note.mesos.", dns.TypeTXT, `NOERROR: note.mesos. 60 TXT "two words" "more"`},
		{"8.2.0.192.in-addr.arpa.", dns.TypePTR, "NOERROR: 8.2.0.192.in-addr.arpa. 5 PTR printer.example.com."},
		{"7.2.0.192.in-addr.arpa.", dns.TypePTR, "NOERROR: 7.2.0.192.in-addr.arpa. 5 PTR db.example.com."},
		{"shop.mesos.", dns.TypeA, "NOERROR: shop.mesos. 60 CNAME memcached.marathon.mesos., memcached.marathon.mesos. 60 A 9.0.1.6"},
		{"shop.mesos.", dns.TypeTXT, "NOERROR: shop.mesos. 60 CNAME memcached.marathon.mesos.; mesos. SOA"},
		{"away.mesos.", dns.TypeA, "NOERROR: away.mesos. 60 CNAME www.example.org."},
		{"lost.mesos.", dns.TypeA, "NXDOMAIN: lost.mesos. 60 CNAME nobody.mesos.; mesos. SOA"},
		{"a.loop.mesos.", dns.TypeA, "SERVFAIL: "},
		{"a.loop.mesos.", dns.TypeCNAME, "NOERROR: a.loop.mesos. 60 CNAME b.loop.mesos."},
		{"shop.mesos.", dns.TypeANY, "NOERROR: shop.mesos. 60 CNAME memcached.marathon.mesos."},
	} {
		for _, tcp := range []bool{false, true} {
			if got := told(t, z, tc.name, tc.rrtype, tcp); got != tc.want {
				t.Errorf("%s %s:\n got %s\nwant %s", tc.name, dns.TypeToString[tc.rrtype], got, tc.want)
			}
			compare(t, z, pack(t, ask(tc.name, tc.rrtype)), tcp, 0)
		}
	}
	assertTargetsResolve(t, z)
}

func TestServicesOfAnotherNameComeWithAddresses(t *testing.T) {
	snap, table, cfg := inventory()
	z := Build(nil, snap, table, cfg)
	r := reply(z, pack(t, ask("_admin._memcached._tcp.marathon.mesos.thisdcos.directory.", dns.TypeSRV)), false, 0)
	if len(r.Answer) != 1 || len(r.Extra) != 2 || r.Extra[0].Header().Name != r.Answer[0].(*dns.SRV).Target {
		t.Errorf("%v", r)
	}
}

func TestNothingThatRunsTakesOverANameOfTheConfiguration(t *testing.T) {
	cfg := DefaultConfig()
	cfg.SOAMname = "memcached.marathon.mesos"
	cfg.Records = []string{
		"web.marathon.l4lb.thisdcos.directory. CNAME x.mesos", "kafka.mesos A 192.0.2.1", "x.marathon.mesos TXT mine",
		"6.1.0.9.in-addr.arpa PTR mine.example.com", "registry.component.thisdcos.directory A 192.0.2.2",
	}
	snap := world(memcached(func(t *model.Task) { t.Addrs = in("", ownIP) }),
		memcached(func(t *model.Task) { t.Discovery.Name, t.Addrs, t.Key.ID = "x", in("", ownIP), "x" }))
	frameworks := snap.Frameworks.Edit()
	frameworks.Set("F0", &model.Framework{ID: "F0", Name: "kafka", Addr: ownIP})
	snap.Frameworks = frameworks.Groups()
	got := map[string]string{}
	z := Build(nil, snap, tableOf(service("web.marathon", "11.1.2.3:80")), cfg)
	want := map[string]string{
		"memcached.marathon.mesos.": "", "web.marathon.l4lb.thisdcos.directory.": "CNAME x.mesos.", "kafka.mesos.": "A 192.0.2.1",
		"x.marathon.mesos.": `TXT "mine"`, "6.1.0.9.in-addr.arpa.": "PTR mine.example.com.", "registry.component.thisdcos.directory.": "A 192.0.2.2",
	}
	for name := range want {
		_, _, records := z.Lookup(name)
		got[name] = ""
		for _, r := range records {
			got[name] += r.Type + " " + r.Data
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTasksOfAnyFrameworkStayOutOfNamesOfOtherKinds(t *testing.T) {
	for _, framework := range []string{"agent", "x.agent", "Instance", "container", "network"} {
		snap := world(memcached(func(t *model.Task) { t.Framework, t.Discovery.Name, t.Addrs = framework, "0f7a-s0", in("", ownIP) }))
		for _, r := range Build(nil, snap, nil, DefaultConfig()).Records() {
			if strings.HasSuffix(r.Name, "0f7a-s0."+strings.ToLower(framework)+".mesos.") {
				t.Errorf("%s has %v", framework, r)
			}
		}
	}
}

func TestStaticRecordsAreChecked(t *testing.T) {
	for _, tc := range []struct{ records, want string }{
		{"a.example A 192.0.2.1", ""},
		{"a.example A 192.0.2.1|a.example TXT x", ""},
		{"a.example A 192.0.2.999", `record "a.example A 192.0.2.999": bad A A: "192.0.2.999" at line: 1:23`},
		{"a.example", `record "a.example": `},
		{"", `record "": is empty`},
		{"; nothing", `record "; nothing": is empty`},
		{"$INCLUDE /etc/passwd", `record "$INCLUDE /etc/passwd": is not of the form: name type data`},
		{"a.example A 192.0.2.1\nb.example A 192.0.2.1", `is not of the form: name type data`},
		{"a.example 60 A 192.0.2.1", `record "a.example 60 A 192.0.2.1": has a TTL: it is that of the zone`},
		{"a.example CH A 192.0.2.1", `is not of class IN`},
		{"a.example MX 1 b.example", `record "a.example MX 1 b.example": is of type MX, not A, AAAA, CNAME, PTR, SRV or TXT`},
		{"a.example AAAA ::ffff:192.0.2.1", `has no IPv6 address`},
		{`a\.b.example A 192.0.2.1`, `has a name that nobody can ask for`},
		{"a.example CNAME .", `leads to ".", which nobody can ask for`},
		{"leader.mesos A 192.0.2.1", `record "leader.mesos A 192.0.2.1": is a name of the masters or agents`},
		{"_leader._tcp.mesos CNAME mine.mesos", `is a name of the masters or agents`},
		{"_slave._tcp.mesos SRV 1 2 3 mine.mesos", `is a name of the masters or agents`},
		{"MASTER7.mesos. A 192.0.2.1", `is a name of the masters or agents`},
		{"master.dcos.thisdcos.directory A 192.0.2.1", `is a name of the masters or agents`},
		{"x.agent.mesos A 192.0.2.1", `is a name of an agent`},
		{"ns1.mesos A 192.0.2.1", `is a name of this server`},
		{"ready.spartan A 192.0.2.1", `is a name of DC/OS`},
		{"zk-1.zk A 192.0.2.1", `is a name of DC/OS`},
		{"a.dclb.thisdcos.directory A 192.0.2.1", `is in dclb.thisdcos.directory., whose names are those of l4lb.thisdcos.directory.`},
		{"mesos CNAME a.example", `would make the zone mesos. another name (RFC 1912 section 2.4)`},
		{"a.example A 192.0.2.1|A.example CNAME b.example", `record "A.example CNAME b.example": is a CNAME record beside "a.example A 192.0.2.1" (RFC 1034 section 3.6.2)`},
		{"a.example CNAME b.example|a.example A 192.0.2.1", `record "a.example A 192.0.2.1": stands beside the CNAME record "a.example CNAME b.example" (RFC 1034 section 3.6.2)`},
	} {
		cfg := DefaultConfig()
		cfg.Records = strings.Split(tc.records, "|")
		got := ""
		if err := cfg.Check(); err != nil {
			got = err.Error()
		}
		if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
			t.Errorf("%q:\n got %s\nwant %s", tc.records, got, tc.want)
		}
	}
}

func TestALongNameIsCutAndCanBeAskedFor(t *testing.T) {
	long := strings.Repeat("very-long-name-", 20)
	for _, domain := range []string{"mesos", strings.Repeat("d.", 47) + "d"} {
		cfg := DefaultConfig()
		cfg.Domain, cfg.SOAMname, cfg.SOARname = domain, "ns1."+"mesos", "root.ns1.mesos"
		task := func(name, id string) *model.Task {
			return memcached(func(t *model.Task) {
				t.Discovery.Name, t.Key.ID, t.Framework = name, id, strings.Repeat("frame.work-", 30)
				t.Addrs = in(long, ownIP)
				t.Ports = []model.Port{port(long, 80, 0)}
			})
		}
		one, two := task(long+"1", "1"), task(long+"2", "2")
		var tooLong []string
		layout := newLayout(cfg)
		snap := world(one, two)
		for _, a := range snap.Apps.All() {
			layout.allOf(layout.app(a), a, a.Tasks[0], func(name string, v value) {
				if !findable(name, v) && !strings.Contains(name, long) { // as it is written it never fits
					tooLong = append(tooLong, name)
				}
			})
		}
		if len(tooLong) > 0 {
			t.Errorf("below %s nobody can ask for %q", domain, tooLong)
		}
		z := Build(nil, snap, nil, cfg)
		names := map[string]int{}
		for _, r := range z.Records() {
			if r.Type == "A" && strings.HasPrefix(r.Name, "very-long") && !strings.Contains(r.Name, ".slave.") && strings.HasSuffix(r.Name, domain+".") {
				names[r.Name]++
			}
		}
		// One for both, one each by a hash of the name, and the same of each task;
		// and all of those once more in the network.
		if len(names) < 5 {
			t.Errorf("below %s: %v", domain, names)
		}
	}
}

func TestShorten(t *testing.T) {
	for range 2000 {
		var labels []string
		for range 1 + rand.IntN(8) {
			labels = append(labels, strings.Repeat("a", 1+rand.IntN(maxLabel)))
		}
		name := strings.Join(labels, ".")
		max := 12 + rand.IntN(200)
		got := shorten(name, max)
		if len(got) > max || !askable(got+".") || len(name) <= max && got != name {
			t.Fatalf("shorten(%q, %d) = %q", name, max, got)
		}
	}
}

// moved is for how many of the tasks before, on the mean, a change gives another
// number.
func moved(before, after []*model.Task) int {
	n := 0
	for i, t := range before {
		if now := slices.Index(after, t); now >= 0 && now != i {
			n++
		}
	}
	return n
}

func TestNumbersOfInstances(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 2, 3, 10, 100, 300} {
		total, rounds := 0, 200
		for round := range rounds {
			var tasks []*model.Task
			for i := range n {
				tasks = append(tasks, &model.Task{Key: model.TaskKey{ID: fmt.Sprint(round, ".", i)}, State: model.Running})
			}
			before := instances(tasks)
			if len(before) != min(n, maxInstances) || len(slices.Compact(slices.Clone(before))) != len(before) {
				t.Fatalf("%d numbers for %d tasks", len(before), n)
			}
			rng.Shuffle(n, func(i, j int) { tasks[i], tasks[j] = tasks[j], tasks[i] })
			if !slices.Equal(before, instances(tasks)) {
				t.Fatal("the numbers depend on the order")
			}
			tasks[0] = &model.Task{Key: tasks[0].Key, State: model.Killing}
			after := instances(tasks)
			if slices.ContainsFunc(after, func(t *model.Task) bool { return t.State != model.Running }) {
				t.Fatal("a task that does not run has a number")
			}
			total += moved(before, after)
		}
		t.Logf("of %d instances %.2f get another number when one goes", n, float64(total)/float64(rounds))
		if mean := float64(total) / float64(rounds); mean > 8 {
			t.Errorf("of %d instances %.1f get another number when one goes", n, mean)
		}
	}
}

// TestASetThatNoMessageHoldsSaysSo asks for more services than fit 65535 octets.
func TestASetThatNoMessageHoldsSaysSo(t *testing.T) {
	z := Build(nil, world(memcached(func(t *model.Task) {
		t.Discovery, t.Resources = nil, []model.PortRange{{First: 1, Last: 2000}}
	}), memcached(func(t *model.Task) {
		t.Key.ID, t.Discovery, t.Resources = "memcached.2", nil, []model.PortRange{{First: 1, Last: 2000}}
	})), nil, DefaultConfig())
	packet := pack(t, ask("_memcached._tcp.marathon.mesos.", dns.TypeSRV))
	for _, tcp := range []bool{false, true} {
		r := unpack(t, pack(t, reply(z, packet, tcp, 0)))
		if !r.Truncated || len(r.Answer) == 0 || len(r.Answer) >= 2*maxResourcePorts {
			t.Errorf("over TCP %v: %d answers, TC %v", tcp, len(r.Answer), r.Truncated)
		}
		compare(t, z, packet, tcp, 0)
	}
}
