package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"waggle/internal/outside"
	"waggle/internal/testnet"
	"waggle/watcher/mesos/mesostest"
)

// nameGroups are the groups of dcos-net.json that are about what names answer.
var nameGroups = []string{"dns-names", "dns-handler", "dns-internal", "dns-order", "dns-router", "vip-dns", "mesos-dns-import"}

// nameCase is a case of theirs.
type nameCase struct {
	Name, Group   string
	Input, Expect json.RawMessage
}

// nameAsk is a question, for the case in dcos-net.json that asks it.
type nameAsk struct {
	of   string
	name string
	kind uint16
	want string // of said
}

// said is what a reply says: "NOERROR aa: A 10.0.0.1, A 10.0.0.2", sorted, and
// behind a semicolon the owner and TTL of a SOA record that denies it.
func said(m *dns.Msg) string {
	head := dns.RcodeToString[m.Rcode]
	if m.Authoritative {
		head += " aa"
	}
	var list []string
	for _, rr := range m.Answer {
		if soa, ok := rr.(*dns.SOA); ok {
			soa.Serial = 0
		}
		f := strings.Fields(strings.Replace(rr.String(), " 0 60 ", " SERIAL 60 ", 1))
		list = append(list, strings.Join(append([]string{f[3]}, f[4:]...), " "))
	}
	slices.Sort(list)
	out := head + ": " + strings.Join(list, ", ")
	for _, rr := range m.Ns {
		out += fmt.Sprintf("; %s %d", rr.Header().Name, rr.Header().Ttl)
	}
	return out
}

// sayBoth asks over UDP and TCP. What is answered has the name asked for.
func (n *recordedNode) sayBoth(t *testing.T, a nameAsk) {
	t.Helper()
	for _, over := range []string{"udp", "tcp"} {
		r := n.ask(t, new(dns.Msg).SetQuestion(dns.Fqdn(a.name), a.kind), over)
		if r == nil {
			continue
		}
		if d := cmp.Diff(a.want, said(r)); d != "" {
			t.Errorf("%s: %s %s over %s:\n%s", a.of, a.name, dns.Type(a.kind), over, d)
		}
		for _, rr := range r.Answer {
			if rr.Header().Name != dns.Fqdn(a.name) && len(r.Answer) == 1 {
				t.Errorf("%s: the owner is %s, not %s", a.of, rr.Header().Name, a.name)
			}
		}
	}
}

func TestNamesOfDCOS(t *testing.T) {
	testnet.NeedRoot(t)
	var cases []nameCase
	outside.JSON(t, &cases, "conformance", "dcos-net.json")
	todo := map[string]nameCase{}
	for _, c := range cases {
		if slices.Contains(nameGroups, c.Group) {
			todo[c.Name] = c
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(string(mustRead(t, "testdata/dcosnames.tsv"))), "\n") {
		name, why, _ := strings.Cut(line, "\t")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if _, ok := todo[name]; !ok || why == "" {
			t.Errorf("%q is no case about names, or has no reason", line)
		}
		delete(todo, name)
	}
	tasksOfDCOS(t, todo)
	zonesOfDCOS(t, todo)
	upstreamsOfDCOS(t, todo)
	vipsOfDCOS(t, todo)
	importedByDCOS(t, todo)
	for _, name := range slices.Sorted(maps.Keys(todo)) {
		t.Errorf("%s is neither run nor listed in testdata/dcosnames.tsv", name)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// master serves an event stream in the namespace.
func (n *recordedNode) master(t *testing.T, at string, picture []byte) *mesostest.Master {
	t.Helper()
	var l net.Listener
	n.Must(t, func() (err error) { l, err = net.Listen("tcp", at); return err })
	m := mesostest.ServeOn(l, picture)
	t.Cleanup(m.Close)
	return m
}

// balancing returns what has a daemon balance in a cgroup of the test's own: a VIP
// has no name before it is in the kernel.
func (n *recordedNode) balancing(t *testing.T) []string {
	t.Helper()
	at := &node{Namespace: n.Namespace, cgroup: testnet.Cgroup(t)}
	t.Cleanup(func() { at.unload(t) })
	return []string{"--lb.backend", "ebpf", "--lb.cgroup", at.cgroup, "--lb.pin_dir", at.pins()}
}

// daemonOfDCOS is a node with a daemon that follows a master with a picture.
func daemonOfDCOS(t *testing.T, picture []byte, args ...string) (*recordedNode, *mesostest.Master) {
	t.Helper()
	n := &recordedNode{testnet.New(t)}
	m := n.master(t, "127.0.0.1:15050", picture)
	n.serve(t, "/dev/null", append(n.balancing(t), append([]string{
		"--mesos.masters", "127.0.0.1:15050", "--dns.listen", "127.0.0.1:8053", "--dns.forward.on=false",
	}, args...)...)...)
	return n, m
}

// tasksOfDCOS runs the cases of a state and the names of its tasks.
func tasksOfDCOS(t *testing.T, todo map[string]nameCase) {
	for name, c := range todo {
		if c.Group != "dns-names" {
			continue
		}
		delete(todo, name)
		t.Run(name, func(t *testing.T) {
			var get struct {
				State json.RawMessage `json:"get_state"`
			}
			var want served
			var asDocument dcosCase
			if err := json.Unmarshal(c.Input, &asDocument.Input); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(asDocument.Input.Messages[0], &get); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(c.Expect, &want); err != nil {
				t.Fatal(err)
			}
			picture := fmt.Appendf(nil, `{"type":"SUBSCRIBED","subscribed":{"heartbeat_interval_seconds":15,"get_state":%s}}`, get.State)
			n, _ := daemonOfDCOS(t, picture, asDocument.flags()[3:]...)
			if len(want.DNS) == 0 {
				n.sayBoth(t, nameAsk{name, "app.marathon.autoip.dcos.thisdcos.directory", dns.TypeA, "NXDOMAIN aa: ; dcos.thisdcos.directory. 1"})
			}
			for _, line := range want.L4LB {
				owner, data, _ := strings.Cut(line, " ")
				want.DNS[owner] = append(want.DNS[owner], data)
			}
			for owner, list := range want.DNS {
				n.sayBoth(t, nameAsk{name, owner, dns.TypeA, "NOERROR aa: " + strings.Join(list, ", ")})
			}
		})
	}
}

// zonesOfDCOS runs the cases of what each zone answers, on a node with 10.0.0.1
// to .3 as masters and a server for other names.
func zonesOfDCOS(t *testing.T, todo map[string]nameCase) {
	n := &recordedNode{testnet.New(t)}
	n.Addr(t, "lo", netip.MustParsePrefix("10.0.0.1/32"))
	n.upstream(t, "127.0.0.1:5301", "example.")
	n.upstream(t, "127.0.0.1:5302", "weave.")
	agent := netip.MustParseAddr("10.0.0.5")
	tasks := []mesostest.Task{{ID: "web.1", Name: "web", Framework: "F", Agent: "S0", State: "TASK_RUNNING", IP: netip.MustParseAddr("9.0.1.3")}}
	for i := range 5 {
		tasks = append(tasks, mesostest.Task{
			ID: fmt.Sprint("app.", i), Name: "app", Framework: "F", Agent: "S0", State: "TASK_RUNNING", IP: netip.AddrFrom4([4]byte{9, 0, 2, byte(i)}),
			Ports: []mesostest.Port{{Number: 80, Name: "p", Protocol: "tcp", Labels: []string{"VIP_0", "/app:80"}}},
		})
	}
	n.master(t, "10.0.0.1:5050", mesostest.Subscribed(15, []map[string]any{mesostest.Agent("S0", agent)},
		[]map[string]any{mesostest.Framework("F", "marathon")}, tasks))
	n.serve(t, "/dev/null", append(n.balancing(t), "--mesos.masters", "10.0.0.1:5050,10.0.0.2:5050,10.0.0.3:5050", "--dns.listen", "127.0.0.1:8053",
		"--dns.crypto_id", "c3zs6aubqe", "--dns.forward.upstreams", "127.0.0.1:5301", "--dns.forward.zones", "contoso.com=127.0.0.1:5302",
		"--dns.forward.zones", "a.contoso.com=127.0.0.1:5301", "--lb.node", "127.0.0.1")...)
	for _, a := range zoneAsks {
		delete(todo, a.of)
		n.sayBoth(t, a)
	}
	n.overload(t)
	delete(todo, "handler/overload")
}

// overload asks over more connections than one client may have. Those over it are
// closed; the others are answered, and so is who comes after.
func (n *recordedNode) overload(t *testing.T) {
	t.Helper()
	a := nameAsk{"handler/overload", "app.marathon.autoip.dcos.thisdcos.directory.", dns.TypeA, fiveOfApp}
	var all sync.WaitGroup
	var answered atomic.Int32
	for range 4 * 256 {
		all.Go(func() {
			r, err := n.exchange(new(dns.Msg).SetQuestion(a.name, a.kind), "tcp")
			switch {
			case err != nil:
			case said(r) == a.want:
				answered.Add(1)
			default:
				t.Errorf("%s: %v", a.of, r)
			}
		})
	}
	all.Wait()
	if answered.Load() == 0 {
		t.Errorf("%s: nobody was answered", a.of)
	}
	n.sayBoth(t, nameAsk{a.of, "web.marathon.autoip.dcos.thisdcos.directory", dns.TypeA, "NOERROR aa: A 9.0.1.3"})
}

// Five addresses of app, and what is said of names that are not there.
const (
	vipOfApp   = "NOERROR aa: A 11.171.172.79"
	fiveOfApp  = "NOERROR aa: A 9.0.2.0, A 9.0.2.1, A 9.0.2.2, A 9.0.2.3, A 9.0.2.4"
	elsewhere1 = "NOERROR: A 192.0.2.1" // of 127.0.0.1:5301, whom everything else is asked
	elsewhere2 = "NOERROR: A 192.0.2.2" // of 127.0.0.1:5302
)

var zoneAsks = []nameAsk{
	{"handler/udp_ready", "ready.spartan", dns.TypeA, "NOERROR aa: A 127.0.0.1"},
	{"handler/tcp_ready", "ready.spartan", dns.TypeA, "NOERROR aa: A 127.0.0.1"},
	{"handler/udp_basic_upstream", "dcos.io", dns.TypeA, elsewhere1},
	{"handler/tcp_basic_upstream", "www.dcos.io", dns.TypeA, elsewhere1},
	{"handler/thisnode-a", "thisnode.thisdcos.directory", dns.TypeA, "NOERROR aa: A 127.0.0.1"},
	{"handler/l4lb_rename/l4lb.thisdcos.directory", "app.marathon.l4lb.thisdcos.directory", dns.TypeA, vipOfApp},
	{"handler/l4lb_rename/l4lb.thisdcos.directory", "nobody.marathon.l4lb.thisdcos.directory", dns.TypeA, "NXDOMAIN aa: ; l4lb.thisdcos.directory. 1"},
	{"handler/l4lb_rename/l4lb.thisdcos.global", "app.marathon.l4lb.thisdcos.global", dns.TypeA, vipOfApp},
	{"handler/l4lb_rename/l4lb.thisdcos.global", "nobody.marathon.l4lb.thisdcos.global", dns.TypeA, "NXDOMAIN aa: ; thisdcos.global. 1"},
	{"handler/l4lb_rename/dclb.thisdcos.global", "app.marathon.dclb.thisdcos.global", dns.TypeA, vipOfApp},
	{"handler/l4lb_rename/dclb.thisdcos.global", "nobody.marathon.dclb.thisdcos.global", dns.TypeA, "NXDOMAIN aa: ; thisdcos.global. 1"},
	{"handler/dcos_rename", "app.marathon.autoip.dcos.c3zs6aubqe.dcos.directory", dns.TypeA, fiveOfApp},
	{"handler/registry", "registry.component.thisdcos.directory", dns.TypeA, "NOERROR aa: A 10.0.0.1, A 10.0.0.2, A 10.0.0.3, CNAME master.dcos.thisdcos.directory."},
	{"internal/nodata-aaaa", "web.marathon.autoip.dcos.thisdcos.directory", dns.TypeAAAA, "NOERROR aa: ; dcos.thisdcos.directory. 1"},
	{"internal/nxdomain", "nosuch.marathon.autoip.dcos.thisdcos.directory", dns.TypeA, "NXDOMAIN aa: ; dcos.thisdcos.directory. 1"},
	{"internal/case-insensitive", "WEB.Marathon.AutoIP.DCOS.thisdcos.directory", dns.TypeA, "NOERROR aa: A 9.0.1.3"},
	{"internal/any", "web.marathon.autoip.dcos.thisdcos.directory", dns.TypeANY, "NOERROR aa: A 9.0.1.3"},
	{"internal/no-zone", "foo.unknown.thisdcos.directory", dns.TypeA, "REFUSED: "},
	{"internal/ttl", "dcos.thisdcos.directory", dns.TypeSOA, "NOERROR aa: SOA ns.spartan. support.mesosphere.com. SERIAL 60 180 86400 1"},
	{"internal/masters", "master.dcos.thisdcos.directory", dns.TypeA, "NOERROR aa: A 10.0.0.1, A 10.0.0.2, A 10.0.0.3"},
	{"internal/zk", "zk-1.zk", dns.TypeA, "NOERROR aa: A 10.0.0.1"},
	{"internal/zk", "zk-2.zk", dns.TypeA, "NOERROR aa: A 10.0.0.2"},
	{"internal/zk", "zk-3.zk", dns.TypeA, "NOERROR aa: A 10.0.0.3"},
	{"internal/zk", "zk-4.zk", dns.TypeA, "NOERROR aa: A 10.0.0.1"},
	{"internal/zk", "zk-5.zk", dns.TypeA, "NOERROR aa: A 10.0.0.2"},
	{"internal/localhost", "localhost", dns.TypeA, "NOERROR aa: A 127.0.0.1"},
	{"router/leader.mesos", "leader.mesos", dns.TypeA, "NOERROR aa: A 10.0.0.1"},
	{"router/LEADER.MESOS", "LEADER.MESOS", dns.TypeA, "NOERROR aa: A 10.0.0.1"},
	{"router/ready.spartan", "ready.spartan", dns.TypeA, "NOERROR aa: A 127.0.0.1"},
	{"router/a.localhost", "a.localhost", dns.TypeA, "NXDOMAIN aa: ; localhost. 1"},
	{"router/zk-1.zk", "zk-1.zk", dns.TypeA, "NOERROR aa: A 10.0.0.1"},
	{"router/app.marathon.dclb.thisdcos.directory", "app.marathon.dclb.thisdcos.directory", dns.TypeA, vipOfApp},
	{"router/app.marathon.l4lb.thisdcos.global", "app.marathon.l4lb.thisdcos.global", dns.TypeA, vipOfApp},
	{"router/app.autoip.dcos.thisdcos.directory", "app.autoip.dcos.thisdcos.directory", dns.TypeA, "NXDOMAIN aa: ; dcos.thisdcos.directory. 1"},
	{"router/foo.custom.thisdcos.directory", "foo.custom.thisdcos.directory", dns.TypeA, "REFUSED: "},
	{"router/thisnode.thisdcos.directory", "thisnode.thisdcos.directory", dns.TypeA, "NOERROR aa: A 127.0.0.1"},
	{"router/app.autoip.dcos.wrongid.dcos.directory", "app.autoip.dcos.wrongid.dcos.directory", dns.TypeA, elsewhere1},
	{"router/x.a.contoso.com", "x.a.contoso.com", dns.TypeA, elsewhere1},
	{"router/x.b.contoso.com", "x.b.contoso.com", dns.TypeA, elsewhere2},
	{"router/xcontoso.com", "xcontoso.com", dns.TypeA, elsewhere1},
	{"router/1.0.0.127.in-addr.arpa", "1.0.0.127.in-addr.arpa", dns.TypeA, elsewhere1},
}

// upstreamsOfDCOS runs the cases of upstreams that do not answer, and of a node
// without an address.
func upstreamsOfDCOS(t *testing.T, todo map[string]nameCase) {
	serve := func(upstreams string) *recordedNode {
		n := &recordedNode{testnet.New(t)}
		n.upstream(t, "127.0.0.1:5301", "example.")
		n.upstream(t, "127.0.0.1:5302", "example.")
		n.master(t, "127.0.0.1:15050", mesostest.Subscribed(15, nil, nil, nil))
		n.serve(t, "/dev/null", "--mesos.masters", "127.0.0.1:15050", "--dns.listen", "127.0.0.1:8053", "--dns.forward.upstreams", upstreams)
		return n
	}
	mixed, none := serve("127.0.0.1:5301,127.0.0.1:5302,127.0.0.1:1"), serve("127.0.0.1:1")
	for i := range 8 {
		mixed.sayBoth(t, nameAsk{"handler/mixed_upstreams", fmt.Sprintf("a%d.dcos.io", i), dns.TypeA, elsewhere1})
	}
	mixed.sayBoth(t, nameAsk{"handler/thisnode-nodata", "thisnode.thisdcos.directory", dns.TypeA, "NOERROR aa: ; thisnode.thisdcos.directory. 1"})
	none.sayBoth(t, nameAsk{"handler/no_upstream", "dcos.io", dns.TypeA, "SERVFAIL: "})
	delete(todo, "handler/mixed_upstreams")
	delete(todo, "handler/thisnode-nodata")
}
