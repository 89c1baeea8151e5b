package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/model"
	"waggle/vip"
)

var (
	agentIP = netip.MustParseAddr("10.0.0.5")
	ownIP   = netip.MustParseAddr("9.0.1.6")
	ownIP2  = netip.MustParseAddr("9.1.1.6")
	ownIP6  = netip.MustParseAddr("fd01:b::6")
)

// memcached is a running task of the app that the tests are about.
func memcached(edit func(*model.Task)) *model.Task {
	t := &model.Task{
		Key: model.TaskKey{FrameworkID: "F0", ID: "memcached.1"}, Name: "memcached", Framework: "marathon",
		AgentID: "A-S0", AgentAddr: agentIP, State: model.Running,
		Discovery: &model.Discovery{Name: "memcached"},
	}
	if edit != nil {
		edit(t)
	}
	return t
}

func port(name string, number, host uint16) model.Port {
	return model.Port{Name: name, Proto: model.TCP, Number: number, HostPort: host}
}

func in(network string, addrs ...netip.Addr) []model.Address {
	var out []model.Address
	for _, a := range addrs {
		out = append(out, model.Address{Addr: a, Network: network})
	}
	return out
}

// world returns a Snapshot of tasks.
func world(tasks ...*model.Task) *model.Snapshot {
	snap := &model.Snapshot{}
	apps := snap.Apps.Edit()
	for _, t := range tasks {
		addTask(apps, t)
	}
	snap.Apps = apps.Groups()
	return snap
}

// lines returns the records of z as "name type data", those below suffix only.
func lines(z *Zone, suffix string) []string {
	var out []string
	for _, r := range z.Records() {
		if strings.HasSuffix(r.Name, suffix) {
			out = append(out, r.Name+" "+r.Type+" "+r.Data)
		}
	}
	return out
}

func TestTaskNamesAndPortsFit(t *testing.T) {
	const one = "memcached-" // made whole with the hash below
	c := one + shortHash("memcached.1") + "-s0.marathon"
	for _, tc := range []struct {
		name string
		edit func(*model.Task)
		want []string // of T.F and C.F, and the services; what is on the agent is checked apart
	}{
		{"host network: the agent's address and port", func(t *model.Task) {
			t.Addrs = in("", agentIP)
			t.Ports = []model.Port{port("connect", 31000, 0)}
		}, []string{
			"_connect._memcached._tcp.marathon.mesos. SRV 0 1 31000 " + c + ".mesos.",
			"_memcached._tcp.marathon.mesos. SRV 0 1 31000 " + c + ".mesos.",
			c + ".mesos. A 10.0.0.5",
			"memcached.marathon.mesos. A 10.0.0.5",
		}},
		{"bridge: the agent's address and the published port, not the container's", func(t *model.Task) {
			t.Addrs = in("", ownIP)
			t.Ports = []model.Port{port("connect", 11211, 31000)}
		}, []string{
			"_connect._memcached._tcp.marathon.mesos. SRV 0 1 31000 " + c + ".mesos.",
			"_memcached._tcp.marathon.mesos. SRV 0 1 31000 " + c + ".mesos.",
			c + ".mesos. A 10.0.0.5",
			"memcached.marathon.mesos. A 10.0.0.5",
		}},
		{"a network of its own: the container's address and port", func(t *model.Task) {
			t.Addrs = in("dcos", ownIP)
			p := port("connect", 11211, 0)
			p.Network = "dcos"
			t.Ports = []model.Port{p}
		}, []string{
			"_connect._memcached._tcp.marathon.mesos. SRV 0 1 11211 " + c + ".mesos.",
			"_memcached._tcp.marathon.mesos. SRV 0 1 11211 " + c + ".mesos.",
			c + ".dcos.network.mesos. A 9.0.1.6",
			c + ".mesos. A 9.0.1.6",
			"memcached.marathon.dcos.network.mesos. A 9.0.1.6",
			"memcached.marathon.mesos. A 9.0.1.6",
		}},
		{"both families: both addresses", func(t *model.Task) {
			t.Addrs = in("", ownIP, ownIP6)
		}, []string{
			c + ".mesos. A 9.0.1.6",
			c + ".mesos. AAAA fd01:b::6",
			"memcached.marathon.mesos. A 9.0.1.6",
			"memcached.marathon.mesos. AAAA fd01:b::6",
		}},
		{"one port published, one not: the latter is served at a name of the container", func(t *model.Task) {
			t.Addrs = in("", ownIP)
			t.Ports = []model.Port{port("connect", 11211, 31000), port("admin", 8080, 0)}
		}, []string{
			"_admin._memcached._tcp.marathon.mesos. SRV 0 1 8080 " + c + ".container.mesos.",
			"_connect._memcached._tcp.marathon.mesos. SRV 0 1 31000 " + c + ".mesos.",
			"_memcached._tcp.marathon.mesos. SRV 0 1 31000 " + c + ".mesos.",
			"_memcached._tcp.marathon.mesos. SRV 0 1 8080 " + c + ".container.mesos.",
			c + ".container.mesos. A 9.0.1.6",
			c + ".mesos. A 10.0.0.5",
			"memcached.marathon.mesos. A 10.0.0.5",
		}},
		{"two networks: a port of one is served at a name in that network", func(t *model.Task) {
			t.Addrs = append(in("dcos", ownIP), in("Back_End", ownIP2)...)
			p := port("connect", 11211, 0)
			p.Network = "Back_End"
			t.Ports = []model.Port{p}
		}, []string{
			"_connect._memcached._tcp.marathon.mesos. SRV 0 1 11211 " + c + ".back-end.network.mesos.",
			"_memcached._tcp.marathon.mesos. SRV 0 1 11211 " + c + ".back-end.network.mesos.",
			c + ".back-end.network.mesos. A 9.1.1.6",
			c + ".dcos.network.mesos. A 9.0.1.6",
			"memcached.marathon.back-end.network.mesos. A 9.1.1.6",
			"memcached.marathon.dcos.network.mesos. A 9.0.1.6",
			c + ".mesos. A 9.0.1.6",
			c + ".mesos. A 9.1.1.6",
			"memcached.marathon.mesos. A 9.0.1.6",
			"memcached.marathon.mesos. A 9.1.1.6",
		}},
		{"no address reported: the agent's", func(t *model.Task) {
			t.Ports = []model.Port{port("connect", 31000, 0)}
		}, []string{
			"_connect._memcached._tcp.marathon.mesos. SRV 0 1 31000 " + c + ".mesos.",
			"_memcached._tcp.marathon.mesos. SRV 0 1 31000 " + c + ".mesos.",
			c + ".mesos. A 10.0.0.5",
			"memcached.marathon.mesos. A 10.0.0.5",
		}},
		{"a port of a network the task is not in: no service", func(t *model.Task) {
			t.Addrs = in("dcos", ownIP)
			p := port("connect", 11211, 0)
			p.Network = "other"
			t.Ports = []model.Port{p}
		}, []string{
			c + ".dcos.network.mesos. A 9.0.1.6",
			c + ".mesos. A 9.0.1.6",
			"memcached.marathon.dcos.network.mesos. A 9.0.1.6",
			"memcached.marathon.mesos. A 9.0.1.6",
		}},
		{"a port mapping without discovery: the agent's address", func(t *model.Task) {
			t.Discovery = nil
			t.Addrs = in("", ownIP)
			t.Mappings = []model.PortMapping{{HostPort: 31000, ContainerPort: 80, Proto: model.TCP}}
			t.Resources = []model.PortRange{{First: 31000, Last: 31000}}
		}, []string{
			"_memcached._tcp.marathon.mesos. SRV 0 1 31000 " + c + ".slave.mesos.",
			"_memcached._udp.marathon.mesos. SRV 0 1 31000 " + c + ".slave.mesos.",
			c + ".mesos. A 10.0.0.5",
			"memcached.marathon.mesos. A 10.0.0.5",
		}},
		{"not running: nothing", func(t *model.Task) {
			t.State = model.Killing
			t.Addrs = in("", ownIP)
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.DCOSDomain = ""
			z := Build(nil, world(memcached(tc.edit)), nil, cfg)
			var got []string
			for _, line := range lines(z, ".mesos.") {
				name, _, _ := strings.Cut(line, " ")
				if !strings.HasSuffix(name, ".slave.mesos.") && !strings.HasSuffix(name, ".instance.mesos.") &&
					!strings.HasPrefix(name, "_port") && name != "ns1.mesos." {
					got = append(got, line)
				}
			}
			slices.Sort(tc.want)
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			assertTargetsResolve(t, z)
		})
	}
}

// assertTargetsResolve checks that whoever follows an SRV record finds an address.
func assertTargetsResolve(t *testing.T, z *Zone) {
	t.Helper()
	addressed := map[string]bool{}
	for _, r := range z.Records() {
		if r.Type != "SRV" {
			addressed[r.Name] = true
		}
	}
	for _, r := range z.Records() {
		if target := r.Data[strings.LastIndexByte(r.Data, ' ')+1:]; r.Type == "SRV" && !addressed[target] {
			t.Errorf("%s leads to %s, which has no address", r.Name, target)
		}
	}
}

func TestDottedNamesAreServedAsWrittenAndFolded(t *testing.T) {
	task := memcached(func(t *model.Task) {
		t.Discovery.Name = "Cache.Team"
		t.Addrs = in("", ownIP)
		t.Ports = []model.Port{port("connect", 11211, 0)}
	})
	c := "-" + shortHash("memcached.1") + "-s0.marathon.mesos."
	want := []string{
		"_cache-team._tcp.marathon.mesos. SRV 0 1 11211 cache-team" + c,
		"_cache.team._tcp.marathon.mesos. SRV 0 1 11211 cache.team" + c,
		"_connect._cache-team._tcp.marathon.mesos. SRV 0 1 11211 cache-team" + c,
		"_connect._cache.team._tcp.marathon.mesos. SRV 0 1 11211 cache.team" + c,
		"cache-team" + c + " A 9.0.1.6",
		"cache-team.marathon.mesos. A 9.0.1.6",
		"cache.team" + c + " A 9.0.1.6",
		"cache.team.marathon.mesos. A 9.0.1.6",
	}
	got := slices.DeleteFunc(lines(Build(nil, world(task), nil, DefaultConfig()), ".marathon.mesos."),
		func(l string) bool { return strings.HasPrefix(l, "_port0.") })
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDCOSNames(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*model.Task)
		want []string // agentip, autoip, containerip
	}{
		{"host", func(t *model.Task) { t.Addrs = in("", agentIP) }, []string{
			"memcached.marathon.agentip A 10.0.0.5", "memcached.marathon.autoip A 10.0.0.5", "memcached.marathon.containerip A 10.0.0.5"}},
		{"bridge", func(t *model.Task) {
			t.Addrs = in("", ownIP)
			t.Ports = []model.Port{port("connect", 11211, 31000)}
		}, []string{
			"memcached.marathon.agentip A 10.0.0.5", "memcached.marathon.autoip A 10.0.0.5", "memcached.marathon.containerip A 9.0.1.6"}},
		{"overlay, both families", func(t *model.Task) { t.Addrs = in("", ownIP, ownIP6) }, []string{
			"memcached.marathon.agentip A 10.0.0.5", "memcached.marathon.autoip A 9.0.1.6", "memcached.marathon.autoip AAAA fd01:b::6",
			"memcached.marathon.containerip A 9.0.1.6", "memcached.marathon.containerip AAAA fd01:b::6"}},
		{"no address", func(*model.Task) {}, []string{
			"memcached.marathon.agentip A 10.0.0.5", "memcached.marathon.autoip A 10.0.0.5"}},
		{"dots of both names become dashes", func(t *model.Task) {
			t.Discovery.Name, t.Framework = "web.group", "marathon.prod"
			t.Addrs = in("", agentIP)
		}, []string{
			"web-group.marathon-prod.agentip A 10.0.0.5", "web-group.marathon-prod.autoip A 10.0.0.5", "web-group.marathon-prod.containerip A 10.0.0.5"}},
		{"killing", func(t *model.Task) { t.State = model.Killing }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, l := range lines(Build(nil, world(memcached(tc.edit)), nil, DefaultConfig()), ".dcos.thisdcos.directory.") {
				got = append(got, strings.Replace(l, ".dcos.thisdcos.directory.", "", 1))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func tableOf(services ...*vip.Service) *vip.Table {
	table := &vip.Table{}
	edit := table.Services.Edit()
	for _, s := range services {
		edit.Set(s.Frontend, s)
	}
	table.Services = edit.Groups()
	return table
}

func service(name, addr string) *vip.Service {
	return &vip.Service{Name: name, Frontend: vip.Frontend{Addr: netip.MustParseAddrPort(addr), Proto: model.TCP}}
}

func TestVIPNames(t *testing.T) {
	table := tableOf(
		service("web.marathon", "11.1.2.3:80"), service("web.marathon", "11.1.2.3:443"), service("web.marathon", "[fd01:c::1]:80"),
		service("v.marathon.prod", "11.1.2.4:80"), service("", "10.1.2.3:80"),
	)
	want := []string{
		"v.marathon.prod.l4lb.thisdcos.directory. A 11.1.2.4",
		"web.marathon.l4lb.thisdcos.directory. A 11.1.2.3",
		"web.marathon.l4lb.thisdcos.directory. AAAA fd01:c::1",
	}
	z := Build(nil, &model.Snapshot{}, table, DefaultConfig())
	if diff := cmp.Diff(want, lines(z, ".l4lb.thisdcos.directory.")); diff != "" {
		t.Error(diff)
	}
	if got := z.Records()[0].TTL; got != 5 {
		t.Errorf("TTL is %d", got)
	}
	one := Build(z, &model.Snapshot{}, tableOf(service("web.marathon", "11.1.2.3:443")), DefaultConfig())
	if diff := cmp.Diff(want[1:2], lines(one, ".l4lb.thisdcos.directory.")); diff != "" {
		t.Errorf("a name goes with its last service, and not before:\n%s", diff)
	}
	none := Build(z, &model.Snapshot{}, nil, DefaultConfig())
	if diff := cmp.Diff(content(nothing()), content(none)); diff != "" {
		t.Errorf("without a Table:\n%s", diff)
	}
}

func TestMasterNames(t *testing.T) {
	at := netip.MustParseAddrPort
	const six, seven, eight = "10.0.0.6:5050", "10.0.0.7:5050", "10.0.0.8:5050"
	for _, tc := range []struct {
		name    string
		masters []string
		leader  string
		want    []string // of master, masterN and leader
	}{
		{"nobody known", nil, "", nil},
		{"only the leader", nil, six, []string{"leader A 10.0.0.6", "master A 10.0.0.6", "master0 A 10.0.0.6"}},
		{"the leader is not listed", []string{eight}, six, []string{
			"leader A 10.0.0.6", "master A 10.0.0.6", "master A 10.0.0.8", "master0 A 10.0.0.8", "master1 A 10.0.0.6"}},
		{"masters repeat", []string{eight, "10.0.0.8:5051", six, six}, six, []string{
			"leader A 10.0.0.6", "master A 10.0.0.6", "master A 10.0.0.8", "master0 A 10.0.0.8", "master1 A 10.0.0.6"}},
		{"the leader is listed second", []string{eight, six, seven}, six, []string{
			"leader A 10.0.0.6", "master A 10.0.0.6", "master A 10.0.0.7", "master A 10.0.0.8",
			"master0 A 10.0.0.8", "master1 A 10.0.0.6", "master2 A 10.0.0.7"}},
		{"IPv6", []string{six, "[2001:db8::1]:5050"}, six, []string{
			"leader A 10.0.0.6", "master A 10.0.0.6", "master AAAA 2001:db8::1", "master0 A 10.0.0.6", "master1 AAAA 2001:db8::1"}},
		{"no leader", []string{six}, "", []string{"master A 10.0.0.6", "master0 A 10.0.0.6"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			snap := &model.Snapshot{}
			for _, m := range tc.masters {
				snap.Masters = append(snap.Masters, at(m))
			}
			if tc.leader != "" {
				snap.Leader = at(tc.leader)
			}
			z := Build(nil, snap, nil, DefaultConfig())
			var got, dcos []string
			for _, l := range lines(z, "") {
				switch {
				case strings.Contains(l, " SRV "), strings.Contains(l, " PTR "):
				case strings.Contains(l, ".mesos."):
					got = append(got, strings.Replace(l, ".mesos.", "", 1))
				case strings.Contains(l, ".dcos.thisdcos.directory. A"):
					dcos = append(dcos, strings.Replace(l, ".dcos.thisdcos.directory.", "", 1))
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			numbered := func(l string) bool { return strings.HasPrefix(l, "master") && l[len("master")] != ' ' }
			if diff := cmp.Diff(slices.DeleteFunc(slices.Clone(tc.want), numbered), dcos); diff != "" {
				t.Errorf("DC/OS has no numbered names:\n%s", diff)
			}
		})
	}
}

func TestFrameworksCannotTakeTheClustersNames(t *testing.T) {
	for _, name := range []string{"leader", "Master", "master0", "master17", "slave", "ns1", "/leader"} {
		snap := world(memcached(func(t *model.Task) { t.Framework, t.Addrs = name, in("", ownIP) }))
		frameworks := snap.Frameworks.Edit()
		frameworks.Set("F0", &model.Framework{ID: "F0", Name: name, Addr: ownIP, Port: 8080})
		snap.Frameworks = frameworks.Groups()
		z := Build(nil, snap, nil, DefaultConfig())
		folded := newLabeler(false).label(name)
		if _, n := z.find(folded + ".mesos."); len(n.records) != 0 {
			t.Errorf("%s.mesos. has %v", folded, n.records)
		}
		if _, n := z.find("_framework._tcp." + folded + ".mesos."); n != nil {
			t.Errorf("_framework._tcp.%s.mesos. exists", folded)
		}
		if _, n := z.find("memcached." + folded + ".mesos."); n == nil {
			t.Errorf("the task of framework %q has no name", name)
		}
	}
	for _, name := range []string{"mastery", "leaders", "slave.x"} {
		if newLayout(DefaultConfig()).reserved(name + ".mesos.") {
			t.Errorf("%s is reserved", name)
		}
	}
}

func TestFrameworkAndAgentNames(t *testing.T) {
	snap := &model.Snapshot{}
	frameworks, agents := snap.Frameworks.Edit(), snap.Agents.Edit()
	for i, f := range []model.Framework{
		{Name: "marathon", Addr: agentIP, Port: 8080},
		{Name: "Marathon", Addr: ownIP}, // the same name, without a port
		{Name: "dev/kafka.prod", Addr: ownIP6, Port: 9},
		{Name: "unresolved", Port: 1},
		{Name: "///", Addr: agentIP, Port: 1},
	} {
		frameworks.Set(fmt.Sprint(i), &f)
	}
	for i, a := range []model.Agent{{Addr: agentIP, Port: 5051}, {Addr: ownIP6, Port: 5051}, {Addr: ownIP}, {Port: 5052}} {
		agents.Set(fmt.Sprint(i), &a)
	}
	snap.Frameworks, snap.Agents = frameworks.Groups(), agents.Groups()
	want := []string{
		"_framework._tcp.devkafka.prod.mesos. SRV 0 1 9 devkafka.prod.mesos.",
		"_framework._tcp.marathon.mesos. SRV 0 1 8080 marathon.mesos.",
		"_slave._tcp.mesos. SRV 0 1 5051 slave.mesos.",
		"devkafka.prod.mesos. AAAA fd01:b::6",
		"marathon.mesos. A 9.0.1.6",
		"marathon.mesos. A 10.0.0.5",
		"slave.mesos. A 9.0.1.6",
		"slave.mesos. A 10.0.0.5",
		"slave.mesos. AAAA fd01:b::6",
	}
	got := slices.DeleteFunc(lines(Build(nil, snap, nil, DefaultConfig()), ".mesos."),
		func(l string) bool { return strings.Contains(l, ".agent.mesos.") })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// nothing is the Zone of a world in which nothing runs.
func nothing() *Zone { return Build(nil, &model.Snapshot{}, nil, DefaultConfig()) }

func TestNamesThatCannotBeServedCostOnlyThemselves(t *testing.T) {
	long := strings.Repeat("n", 63)
	hostile := []string{"", ".", "...", "a..b", strings.Repeat("a.", 200), long + long, "\x00\xff", `a\.b`, "a b", "é", strings.Repeat("x.", 100) + long}
	var tasks []*model.Task
	for i, name := range hostile {
		for j, framework := range append(hostile, "marathon") {
			tasks = append(tasks, memcached(func(t *model.Task) {
				t.Key.ID = fmt.Sprint(i, j)
				t.Discovery.Name, t.Name, t.Framework, t.AgentID = name, name, framework, name
				t.Key.FrameworkID = framework
				t.Addrs = in(name, ownIP)
				t.Ports = []model.Port{{Name: name, Proto: model.TCP, Number: 1, Network: name}, {Name: name, Proto: model.TCP, HostPort: 2}}
				t.Resources = []model.PortRange{{First: 0, Last: 65535}, {First: 9, Last: 3}}
			}))
		}
	}
	tasks = append(tasks, memcached(func(t *model.Task) { t.Addrs = in("", ownIP) }))
	z := Build(nil, world(tasks...), nil, DefaultConfig())
	for _, r := range z.Records() {
		if !askable(r.Name) {
			t.Fatalf("%q cannot be asked for", r.Name)
		}
	}
	assertTargetsResolve(t, z)
	if _, n := z.find("memcached.marathon.mesos."); n == nil {
		t.Error("the good task has no name")
	}
	if diff := cmp.Diff(content(nothing()), content(Build(z, world(), nil, DefaultConfig()))); diff != "" {
		t.Errorf("names are left behind:\n%s", diff)
	}
}

func TestNodesAboveNamesExist(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Domain = "mesos.thisdcos.directory" // a domain within the other
	z := Build(nil, world(memcached(func(t *model.Task) {
		t.Addrs = in("", ownIP)
		t.Ports = []model.Port{port("connect", 1, 0)}
	})), nil, cfg)
	for name, want := range map[string]string{
		"_tcp.marathon.mesos.thisdcos.directory.":            "mesos.thisdcos.directory.",
		"slave.mesos.thisdcos.directory.":                    "mesos.thisdcos.directory.",
		"marathon.mesos.thisdcos.directory.":                 "mesos.thisdcos.directory.",
		"mesos.thisdcos.directory.":                          "mesos.thisdcos.directory.",
		"dcos.thisdcos.directory.":                           "dcos.thisdcos.directory.",
		"marathon.agentip.dcos.thisdcos.directory.":          "dcos.thisdcos.directory.",
		"agentip.dcos.thisdcos.directory.":                   "dcos.thisdcos.directory.",
		"thisdcos.directory.":                                "thisdcos.directory.",
		"directory.":                                         "",
		"xthisdcos.directory.":                               "",
		`x\.thisdcos.directory.`:                             "",
		`x\\.thisdcos.directory.`:                            "",
		"_connect._memcached._tcp.mesos.thisdcos.directory.": "",
		"below.memcached.marathon.mesos.thisdcos.directory.": "",
	} {
		d, n := z.find(name)
		switch {
		case want == "" && n != nil:
			t.Errorf("%s exists", name)
		case want != "" && n == nil:
			t.Errorf("%s does not exist", name)
		case want != "" && d.apex != want:
			t.Errorf("%s is in %s", name, d.apex)
		}
	}
	if d, _ := z.find(`x\\.thisdcos.directory.`); d == nil {
		t.Error("an escaped backslash hides the dot behind it")
	}
	if d, _ := z.find(`x\.thisdcos.directory.`); d != nil {
		t.Error("an escaped dot ends a label")
	}
}

func TestPortsOfATaskAreLimited(t *testing.T) {
	task := memcached(func(t *model.Task) {
		t.Discovery, t.Resources = nil, []model.PortRange{{First: 1, Last: 65535}}
	})
	z := Build(nil, world(task), nil, DefaultConfig())
	if _, n := z.find("_memcached._udp.marathon.mesos."); len(n.records) != maxResourcePorts {
		t.Errorf("%d ports", len(n.records))
	}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"the default is right", func(*Config) {}, ""},
		{"no DC/OS names", func(c *Config) { c.DCOSDomain = "" }, ""},
		{"an address as the mailbox", func(c *Config) { c.SOARname = "admin@example" }, ""},
		{"no domain", func(c *Config) { c.Domain = "" }, `domain "" is not a domain name of at most 95 characters`},
		{"a bad domain", func(c *Config) { c.DCOSDomain = "a..b" }, `DC/OS domain "a..b" is not a domain name of at most 95 characters`},
		{"one domain twice", func(c *Config) { c.DCOSDomain = "MESOS." }, `domain and DC/OS domain are both "mesos"`},
		{"a source that does not exist", func(c *Config) { c.IPSources = []IPSource{"hosts"} }, `IP source "hosts" is not one of host, docker, mesos, netinfo`},
		{"a source twice", func(c *Config) { c.IPSources = []IPSource{"host", "host"} }, `IP source "host" is listed twice`},
		{"a negative TTL", func(c *Config) { c.TTL = -1 }, "TTL -1ns is not a whole number of seconds from 0 to 2^31-1"},
		{"a fraction of a second", func(c *Config) { c.SOAMinimum = 1 }, "SOA minimum 1ns is not a whole number of seconds from 0 to 2^31-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := DefaultConfig()
			c.edit(&cfg)
			got := ""
			if err := cfg.Check(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
