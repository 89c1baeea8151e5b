package explain

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"waggle/dns"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// task is one task of marathon's app with that name, on agent 10.0.0.1 with
// address 9.0.0.1 and a port 8080; changes make it another.
func task(id string, changes ...func(*model.Task)) *model.Task {
	name, _, _ := strings.Cut(id, ":")
	t := &model.Task{
		Key: model.TaskKey{FrameworkID: "F", ID: id}, Name: name, Framework: "marathon",
		AgentID: "S0", AgentAddr: netip.MustParseAddr("10.0.0.1"), State: model.Running,
		Addrs:     []model.Address{{Addr: netip.MustParseAddr("9.0.0.1")}},
		Discovery: &model.Discovery{Name: name, Ports: []model.DiscoveryPort{{Number: 8080, Name: "http", Protocol: "tcp"}}},
	}
	for _, c := range changes {
		c(t)
	}
	return t
}

func label(key, value string) func(*model.Task) {
	return func(t *model.Task) {
		p := &t.Discovery.Ports[0]
		p.Labels = append(p.Labels, model.Label{Key: key, Value: value})
	}
}

func service(port uint16) func(*model.Task) {
	return func(t *model.Task) { t.Discovery.Ports[0].ServicePort = port }
}

func in(s model.TaskState) func(*model.Task)  { return func(t *model.Task) { t.State = s } }
func judged(h model.Health) func(*model.Task) { return func(t *model.Task) { t.Health = h } }

func at(addrs ...string) func(*model.Task) {
	return func(t *model.Task) {
		t.Addrs = nil
		for _, a := range addrs {
			t.Addrs = append(t.Addrs, model.Address{Addr: netip.MustParseAddr(a)})
		}
	}
}

// world runs the stages over tasks; change is done to the result.
func world(change func(*World), tasks ...*model.Task) World {
	apps := model.Groups[model.AppKey, *model.App]{}.Edit()
	for _, t := range tasks {
		key := model.AppKey{FrameworkID: t.Key.FrameworkID, Name: t.DiscoveryName()}
		app := &model.App{Key: key, Framework: t.Framework}
		if old, ok := apps.Get(key); ok {
			app.Tasks, app.Problems = slices.Clone(old.Tasks), old.Problems
		}
		ports, problems := model.JoinPorts(t)
		t.Ports = ports
		app.Tasks = append(app.Tasks, t)
		app.Problems = append(slices.Clip(app.Problems), problems...)
		slices.SortFunc(app.Tasks, func(a, b *model.Task) int { return strings.Compare(a.Key.ID, b.Key.ID) })
		apps.Set(key, app)
	}
	agents, frameworks := model.Groups[string, *model.Agent]{}.Edit(), model.Groups[string, *model.Framework]{}.Edit()
	agents.Set("S0", &model.Agent{ID: "S0", Addr: netip.MustParseAddr("10.0.0.1"), Port: 5051})
	frameworks.Set("F", &model.Framework{ID: "F", Name: "marathon", Addr: netip.MustParseAddr("10.0.0.9"), Port: 1})
	frameworks.Set("G", &model.Framework{ID: "G", Name: "chronos", Hostname: "chronos.example"})
	w := World{VIP: vip.DefaultConfig(), VIPZone: "l4lb.thisdcos.directory"}
	w.Snapshot = &model.Snapshot{
		Apps: apps.Groups(), Agents: agents.Groups(), Frameworks: frameworks.Groups(), Leader: netip.MustParseAddrPort("10.0.0.8:5050"),
	}
	w.Table = vip.Build(nil, w.Snapshot, w.VIP)
	w.Applied = w.Table
	w.Unbalanced = func(vip.Frontend) string { return "map full" }
	if change != nil {
		change(&w)
	}
	cfg := dns.DefaultConfig()
	cfg.NSAddrs = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	w.Zone = dns.Build(nil, w.Snapshot, w.Applied, cfg)
	w.Problems = append(w.Snapshot.AllProblems(), w.Table.Problems()...)
	return w
}

func unbalanced(w *World) { w.Applied = nil }

// nothingApplied is a kernel that has taken no service yet.
func nothingApplied(w *World) { w.Applied = &vip.Table{} }

// ejected is a node whose second backend of web.marathon refuses.
func ejected(w *World) {
	at := time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)
	stats := func(yield func(vip.Frontend, lb.BackendStats) bool) {
		for f, row := range w.Table.Services.All() {
			for i, b := range row.Backends {
				s := lb.BackendStats{Addr: b.Addr, Connections: 9}
				if i == 1 {
					s.Failures = 7
				}
				if !yield(f, s) {
					return
				}
			}
		}
	}
	cfg := lb.DefaultConfig()
	cfg.Ejected = lb.NewEjector(lb.DefaultEjectConfig()).Observe(stats, at)
	w.Plan = lb.Build(nil, w.Table, cfg, at)
}

// meshed is a node that leaves a mesh alone.
func meshed(w *World) {
	cfg := lb.DefaultConfig()
	cfg.Exclude = []lb.Client{{Cgroup: "/mesh"}, {Namespace: "/run/netns/mesh"}}
	w.Plan = lb.Build(nil, w.Table, cfg, time.Time{})
}

var cases = []struct {
	name  string
	world World
	query string
	rule  string
	says  string // part of the fact's text
}{
	// Tasks.
	{"a task says where it comes from", world(nil, task("web:1")), "web:1", "source", "task web:1 of app web, framework marathon (F), agent S0 at 10.0.0.1, from the scheduler"},
	{"a task from a file does too", world(nil, task("web:1", func(t *model.Task) { t.Key.FrameworkID = "file:static" })), "web:1", "source", "from a file"},
	{"an agent without an address", world(nil, task("web:1", func(t *model.Task) { t.AgentAddr = netip.Addr{} })), "web:1", "no-agent-address", "agent S0"},
	{"a task that a new master has not heard of", world(func(w *World) {
		held := w.Snapshot.Held.Edit()
		held.Set("S0", &model.Hold{Since: time.Unix(0, 0), Until: time.Unix(600, 0)})
		w.Snapshot.Held = held.Groups()
	}, task("web:1")), "web:1", "held", "held until"},
	{"a running task", world(nil, task("web:1")), "web:1", "state-running", "it runs"},
	{"a preparing task", world(nil, task("web:1", in(model.Preparing))), "web:1", "state-preparing", "no name"},
	{"a task that is being killed", world(nil, task("web:1", in(model.Killing))), "web:1", "state-killing", "no name"},
	{"a task that has ended", world(nil, task("web:1", in(model.Terminal))), "web:1", "state-terminal", "ended"},
	{"a task that nobody checks", world(nil, task("web:1")), "web:1", "health-unchecked", "counts as healthy"},
	{"a healthy task", world(nil, task("web:1", judged(model.Healthy))), "web:1", "health-good", "passes"},
	{"an unhealthy task", world(nil, task("web:1", judged(model.Unhealthy))), "web:1", "health-bad", "has not spoken yet"},
	{"the address of a container", world(nil, task("web:1")), "web:1", "address", "[9.0.0.1]: the task's own"},
	{"the address behind a published port", world(nil, task("web:1", label("network-scope", "host"))), "web:1", "address", "[10.0.0.1]: the agent's, for the agent publishes"},
	{"the address of a task that reports none", world(nil, task("web:1", at())), "web:1", "address", "[10.0.0.1]: the agent's, for the task reports none"},
	{"a task whose address nobody knows", world(nil, task("web:1", at(), func(t *model.Task) { t.AgentAddr = netip.Addr{} })), "web:1", "no-address", "no address"},
	{"an address of an older status", world(nil, task("web:1", func(t *model.Task) { t.AddrsKept = true })), "web:1", "address-kept", "older"},

	// Ports.
	{"a port with network-scope host", world(nil, task("web:1", label("network-scope", "host"))), "web:1", "port-host-scope", "at [10.0.0.1:8080]: label network-scope is host"},
	{"a port that is mapped", world(nil, task("web:1", func(t *model.Task) {
		t.Mappings = []model.PortMapping{{HostPort: 31000, ContainerPort: 8080, Proto: model.TCP}}
	})), "web:1", "port-mapped", "at [10.0.0.1:31000]: a port mapping leads from the agent to port 8080"},
	{"a port that this node reaches past its mapping", world(func(w *World) {
		w.VIP.Node, w.VIP.ShortCut = []netip.Addr{netip.MustParseAddr("10.0.0.1")}, vip.ShortCutAll
	}, task("web:1", func(t *model.Task) {
		t.Mappings = []model.PortMapping{{HostPort: 8080, ContainerPort: 80, Proto: model.TCP}}
	})), "web:1", "port-short-cut", "port http/tcp is 9.0.0.1:80 for the VIPs of this node"},
	{"a port in host networking", world(nil, task("web:1", at("10.0.0.1"))), "web:1", "port-host-network", "at [10.0.0.1:8080]: the task shares"},
	{"a port in one network", world(nil, task("web:1", label("network-name", "dcos"))), "web:1", "port-network", "in network dcos"},
	{"a port that Marathon gave a service port", world(nil, task("web:1", service(10101))), "web:1", "service-port", "keeps port 10101"},
	{"a container's port", world(nil, task("web:1", label("network-scope", "container"))), "web:1", "port-container", "at [9.0.0.1:8080]"},
	{"a port that leads nowhere", world(nil, task("web:1", at(), label("network-scope", "container"))), "web:1", "port-nowhere", "nothing is known"},
	{"a port that cannot be used", world(nil, task("web:1", label("network-scope", "public"))), "web:1", "problem", "neither host nor container"},

	// Labels.
	{"a label that works", world(nil, task("web:1", label("VIP_0", "/web:80"))), "web:1", "backend-up", `label VIP_0="/web:80" makes it backend 9.0.0.1:8080 of the VIP web.marathon`},
	{"a backend that is drained", world(nil, task("web:1", in(model.Killing), label("VIP_0", "/web:80"))), "web:1", "backend-draining", "9.0.0.1:8080"},
	{"a backend that is unhealthy", world(nil, task("web:1", judged(model.Unhealthy), label("VIP_0", "/web:80"))), "web:1", "backend-unhealthy", "9.0.0.1:8080"},
	{"a label of a task that does not run", world(nil, task("web:1", in(model.Preparing), label("VIP_0", "/web:80"))), "web:1", "not-a-backend", "if it ran"},
	{"a task without an address for its label", world(nil, task("web:1", at(), label("VIP_0", "10.1.1.1:80"))), "web:1", "no-backend-address", "no address"},
	{"a label that cannot be read", world(nil, task("web:1", label("VIP_0", "/web"))), "web:1", "problem", `VIP_0 "/web": no :port at the end`},
	{"no port with a label", world(nil, task("web:1")), "web:1", "no-vip-label", "none of its ports"},
	{"no port at all", world(nil, task("web:1", func(t *model.Task) { t.Discovery.Ports = nil })), "web:1", "no-port", "no port"},
	{"a label on the task instead of the port", world(nil, task("web:1", func(t *model.Task) { t.Labels = []model.Label{{Key: "VIP_0", Value: "/web:80"}} })), "web:1", "label-on-task", "counts on a port only"},
	{"a label in mixed case", world(nil, task("web:1", label("Vip_0", "/web:80"))), "web:1", "label-case", "begins with VIP or vip"},
	{"a name without room for it", world(func(w *World) {
		w.VIP.First4, w.VIP.Last4 = netip.MustParseAddr("11.0.0.0"), netip.MustParseAddr("11.0.0.1")
		w.Table = vip.Build(nil, w.Snapshot, w.VIP)
		w.Applied = w.Table
	}, task("a:1", label("VIP_0", "/a:80")), task("b:1", label("VIP_0", "/b:80")), task("c:1", label("VIP_0", "/c:80"))), "c:1", "no-vip", "could not be made"},

	// Names of a task.
	{"the names of a task", world(nil, task("web:1")), "web:1", "names", "web.marathon.mesos."},
	{"no names of a task", world(nil, task("web:1", in(model.Killing))), "web:1", "no-name", "no name"},
	{"a name that is too long", world(nil, task("web:1", func(t *model.Task) {
		t.Discovery.Name = strings.Repeat(strings.Repeat("x", 60)+".", 4) + "x"
	})), "web:1", "name-too-long", "255"},

	// Apps.
	{"an app by its name", world(nil, task("web:1"), task("web:2", in(model.Preparing))), "web", "task", "task web:2 is preparing; it does not run yet"},
	{"an app as Marathon writes it", world(nil, task("web.group:1"), task("web.group:2")), "/group/web", "source", "app web.group of framework marathon (F), 2 tasks"},
	{"a large app", world(nil, many(12)...), "web", "more", "and 2 tasks more"},

	// VIPs.
	{"a VIP by its name", world(nil, task("web:1", label("VIP_0", "/g/web:80"))), "gweb.marathon", "vip-by-name", `label "/g/web" and framework marathon fold to gweb.marathon`},
	{"a VIP by its whole name", world(nil, task("web:1", label("VIP_0", "/web:80"))), "Web.Marathon.l4lb.thisdcos.directory.", "vip-by-name", "web.marathon"},
	{"a VIP by its label", world(nil, task("web:1", label("VIP_0", "/web:80"))), "/web:80", "vip-by-name", "web.marathon"},
	{"a VIP by its address", world(nil, task("web:1", label("VIP_0", "10.1.1.1:80"))), "10.1.1.1", "vip-by-address", "given by its address"},
	{"a VIP by address and port", world(nil, task("web:1", label("VIP_0", "10.1.1.1:80"))), "10.1.1.1:80", "backend-up", "backend 9.0.0.1:8080 is up, weight 1: task web:1 of app web"},
	{"the address of a name", world(nil, task("web:1", label("VIP_0", "/web:80"))), "web.marathon", "address-home", "the hash of its name"},
	{"the address of a name that collides", world(collide, task("b:1", label("VIP_0", "/b:80")), task("a:1", label("VIP_0", "/a:80"))), moved, "address-moved", "a name before it in the alphabet has"},
	{"a VIP with many backends", world(nil, many(12)...), "web.marathon", "more", "and 2 backends more"},
	{"a VIP without a backend", world(nil, task("web:1", at("fd00::1"), label("VIP_0", "10.1.1.1:80"))), "10.1.1.1", "no-backend", "refused"},
	{"a VIP none of whose backends is up", world(nil, task("web:1", judged(model.Unhealthy), label("VIP_0", "/web:80"))), "web.marathon", "fail-open", "all of them are used"},
	{"a VIP that is balanced", world(nil, task("web:1", label("VIP_0", "/web:80"))), "web.marathon", "balanced", "this node balances"},
	{"a VIP without a balancer", world(unbalanced, task("web:1", label("VIP_0", "/web:80"))), "web.marathon", "not-balanced", "map full"},
	{"a VIP that the kernel has not taken", world(nothingApplied, task("web:1", label("VIP_0", "/web:80"))), "web.marathon", "name-withheld", "the kernel has not taken the VIP"},
	{"a VIP of which the kernel has an older state", world(func(w *World) {
		w.Applied = vip.Build(nil, world(nil, task("web:0", label("VIP_0", "/web:80"))).Snapshot, w.VIP)
	}, task("web:1", at("9.0.0.2"), label("VIP_0", "/web:80"))), "web.marathon", "kernel-behind", "map full"},
	{"how many backends are ejected", world(ejected, many(3)...), "web.marathon", "ejections", "1 of 3 backends are ejected"},
	{"who is left alone", world(meshed, many(3)...), "web.marathon", "excluded", "but not for cgroup:/mesh, namespace:/run/netns/mesh: they are left alone"},
	{"which backend is ejected, since when and why", world(ejected, many(3)...), "web.marathon", "ejected", "backend 9.0.0.2:8080 is ejected from 10:00:00 to 10:00:30: 7 of 9 connects failed"},
	{"the name of a VIP", world(nil, task("web:1", label("VIP_0", "/web:80"))), "web.marathon", "name", "web.marathon.l4lb.thisdcos.directory."},
	{"a VIP that was given up", world(func(w *World) {
		w.Plan = lb.Build(nil, vip.Build(nil, world(nil, task("web:1", label("VIP_0", "10.1.1.1:80"))).Snapshot, w.VIP), lb.DefaultConfig(), time.Unix(0, 0))
		w.Plan = lb.Build(w.Plan, w.Table, lb.DefaultConfig(), time.Unix(1, 0))
	}), "10.1.1.1", "retired", "refuses connections"},
	{"a VIP that waits for its task", world(nil, task("web:1", in(model.Preparing), label("VIP_0", "/web:80"))), "web.marathon", "vip-absent", "labels ask for it"},
	{"who asks for a VIP that does not exist", world(nil, task("web:1", in(model.Preparing), label("VIP_0", "/web:80"))), "web.marathon", "asked-by", "task web:1, which is preparing"},

	// Names.
	{"a name's records", world(nil, task("web:1")), "web.marathon.mesos", "record", "A 9.0.0.1"},
	{"a name that a task gives", world(nil, task("web:1")), "WEB.marathon.mesos.", "from-task", "A 9.0.0.1 from task web:1 of app web, framework marathon (addresses: the task's own)"},
	{"a name that a VIP gives", world(nil, task("web:1", label("VIP_0", "/web:80"))), "web.marathon.l4lb.thisdcos.directory", "from-vip", `label "/web"`},
	{"a name that agents give", world(nil), "slave.mesos", "from-agent", "agent S0"},
	{"a name that a framework gives", world(nil), "marathon.mesos", "from-framework", "framework marathon (F)"},
	{"a name that masters give", world(nil), "leader.mesos", "from-masters", "A 10.0.0.8 from the masters"},
	{"the name server's name", world(nil), "ns1.mesos", "from-configuration", "A 127.0.0.1"},
	{"a name without records", world(nil, task("web:1")), "_tcp.marathon.mesos", "nodata", "names below it"},
	{"a name that does not exist", world(nil), "web.marathon.mesos", "no-such-name", "does not exist in mesos."},
	{"a name that a task would give", world(nil, task("web:1", in(model.Preparing))), "web.marathon.mesos", "task-not-running", "task web:1 of app web would give it, but is preparing"},
	{"a name that a VIP would give", world(nothingApplied, task("web:1", label("VIP_0", "/web:80"))), "web.marathon.l4lb.thisdcos.directory", "not-balanced", "map full"},
	{"a framework without an address", world(nil), "chronos.mesos", "framework-address", "chronos.example"},
	{"somebody else's name", world(nil), "example.com", "not-ours", "none of the domains"},
	{"a name with very many records", world(nil, spread(12)...), "web.marathon.mesos", "more", "and 2 records more"},

	// Nothing.
	{"what nobody knows", world(nil), "nobody", "unknown", "no task, app, VIP or name"},
	{"what is nearly known", world(nil, task("web-frontend:1")), "frontend", "similar", "web-frontend"},
	{"what only a problem knows", world(nil, task("web:1", label("VIP_0", "/odd"))), "/odd", "problem", "no :port at the end"},
}

func many(n int) (out []*model.Task) {
	for i := range n {
		out = append(out, task(fmt.Sprintf("web:%02d", i), label("VIP_0", "/web:80"), at(fmt.Sprintf("9.0.0.%d", i+1))))
	}
	return out
}

func spread(n int) []*model.Task { return many(n) }

// collide makes the range so small that two names want one address.
func collide(w *World) {
	w.VIP.First4, w.VIP.Last4 = netip.MustParseAddr("11.0.0.0"), netip.MustParseAddr("11.0.0.1")
	w.Table = vip.Build(nil, w.Snapshot, w.VIP)
	w.Applied = w.Table
}

// moved is which of the two has to make way in a range with one home.
const moved = "b.marathon"

func TestExplain(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			a := Ask(tt.world, tt.query)
			for _, s := range a.Subjects {
				for _, f := range s.Facts {
					if f.Rule == tt.rule && strings.Contains(f.Text, tt.says) {
						return
					}
				}
			}
			text, _ := json.MarshalIndent(a, "", "  ")
			t.Errorf("%q: no fact %s says %q:\n%s", tt.query, tt.rule, tt.says, text)
		})
	}
}

// TestEveryRuleHasACase finds the rules in the source.
func TestEveryRuleHasACase(t *testing.T) {
	tested := map[string]bool{}
	for _, c := range cases {
		tested[c.rule] = true
	}
	files, _ := filepath.Glob("*.go")
	rules := 0
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\.(?:say|miss)\("([a-z-]+[a-z])"`).FindAllStringSubmatch(string(text), -1) {
			if rules++; !tested[m[1]] {
				t.Errorf("%s: rule %s has no case", f, m[1])
			}
		}
	}
	if rules < 40 {
		t.Errorf("found %d rules only", rules)
	}
}

func TestWhatIsFoundIsSaidToBe(t *testing.T) {
	w := world(nil, task("web:1", label("VIP_0", "/web:80")))
	for query, want := range map[string]bool{
		"web:1": true, "web": true, "web.marathon": true, "web.marathon.mesos": true, " web ": true,
		"": false, "nobody": false, "nobody.marathon.mesos": false, "example.com": false, "10.9.9.9": false, "[::1]:80": false, ":": false, "/": false,
	} {
		if a := Ask(w, query); a.Found != want || len(a.Subjects) == 0 {
			t.Errorf("%q: %+v", query, a)
		}
	}
}

// TestARecordedDocumentHasNoKernel: nothing is said about balancing.
func TestARecordedDocumentHasNoKernel(t *testing.T) {
	w := world(func(w *World) { w.Unbalanced = nil }, task("web:1", label("VIP_0", "/web:80")))
	for _, s := range Ask(w, "web.marathon").Subjects {
		for _, f := range s.Facts {
			if strings.Contains(f.Rule, "balanced") || f.Missing {
				t.Errorf("%+v", f)
			}
		}
	}
}

func FuzzAsk(f *testing.F) {
	w := world(nil, many(3)...)
	for _, c := range cases {
		f.Add(c.query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if a := Ask(w, query); len(a.Subjects) == 0 || len(a.Subjects[0].Facts) == 0 {
			t.Error(errors.New("nothing is said"), a)
		}
	})
}
