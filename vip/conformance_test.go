package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waggle/model"
)

// stateWant is what DC/OS makes of it.
type stateWant struct {
	Tasks map[string]struct {
		Ports []struct {
			Name, Protocol string
			Port           uint16
			HostPort       uint16 `json:"host_port"`
			VIP            []string
		}
	}
	VIPs []struct {
		VIP, Protocol, Label, Framework string
	}
	Services []struct {
		Protocol, Address string
		Port              uint16
		Backends          []struct {
			Agent, IP string
			Port      uint16
			Weight    int
		}
	}
}

// lines renders what is expected, one sorted line for each thing.
func (w stateWant) lines() (ports, vips, services []string) {
	for id, t := range w.Tasks {
		for _, p := range t.Ports {
			ports = append(ports, fmt.Sprintf("%s: %q %d/%s host %d %q", id, p.Name, p.Port, p.Protocol, p.HostPort, p.VIP))
		}
	}
	for _, v := range w.VIPs {
		vips = append(vips, fmt.Sprintf("%s/%s %q %q", v.VIP, v.Protocol, v.Label, v.Framework))
	}
	for _, s := range w.Services {
		var backends []string
		for _, b := range s.Backends {
			backends = append(backends, fmt.Sprintf("%s:%d weight %d on %s", b.IP, b.Port, b.Weight, b.Agent))
		}
		slices.Sort(backends)
		services = append(services, fmt.Sprintf("%s:%d/%s %q", s.Address, s.Port, s.Protocol, backends))
	}
	return ports, vips, services
}

// asDCOS renders what we make of a state in the same way.
func asDCOS(snap *model.Snapshot, t *Table) (ports, vips, services []string) {
	for _, a := range snap.Apps.All() {
		for _, task := range a.Tasks {
			list, _ := Ports(task)
			for _, p := range list {
				ports = append(ports, fmt.Sprintf("%s: %q %d/%s host %d %q", task.Key.ID, p.Name, p.Number, p.Proto, p.HostPort, p.VIPs))
			}
		}
	}
	for f, s := range t.Services.All() {
		name := f.Addr.Addr().String()
		if s.Name != "" {
			name = s.Name + ".l4lb.thisdcos.directory"
		}
		vips = append(vips, fmt.Sprintf("%s:%d/%s %q %q", name, f.Addr.Port(), f.Proto, s.Label, s.Framework))
		var backends []string
		for _, b := range s.Backends {
			weight := 0 // DC/OS knows but two weights, and no state
			if b.State == Up {
				weight = 1
			}
			backends = append(backends, fmt.Sprintf("%s:%d weight %d on %s", b.Addr.Addr(), b.Addr.Port(), weight, b.Agent))
		}
		if slices.Sort(backends); len(backends) > 0 {
			services = append(services, fmt.Sprintf("%s:%d/%s %q", f.Addr.Addr(), f.Addr.Port(), f.Proto, backends))
		}
	}
	slices.Sort(vips)
	return ports, slices.Compact(vips), services // one VIP may have rows in both families
}

// betterThanDCOS is what we do where DC/OS does something that its users would
// not have wished.
var betterThanDCOS = map[string]struct {
	rows     []string
	problems []string
}{
	"vip-label-grammar/label-03": {rows: []string{`10.1.2.3:80/tcp "" "" 10.0.0.243:8080=up*1(t.1)`}},
	"vip-label-grammar/label-15": {problems: []string{`VIP_0=:80: name "" has no ASCII letter or digit`}},
	"vip-label-grammar/label-16": {problems: []string{`VIP_0=/:80: name "/" has no ASCII letter or digit`}},
	"vip-label-grammar/label-24": {problems: []string{`VIP_0=1.2.3:80: "1.2.3" is not an IPv4 address and too like one for a name`}},
	"vip-label-grammar/label-25": {problems: []string{`VIP_0=01.2.3.4:80: "01.2.3.4" is not an IPv4 address and too like one for a name`}},
	"vip-label-grammar/label-27": {problems: []string{`VIP_0=10.1.2.3/24:80: "10.1.2.3/24" is a network, not an address`}},
	"vip-label-grammar/label-28": {
		rows:     []string{`11.72.106.145:80/tcp "t.marathon" "/été" 10.0.0.243:8080=up*1(t.1)`},
		problems: []string{"VIP_0=/été:80: served as t: only ASCII letters and digits can be in a name"},
	},
	"vip-key-variants/key-04": {rows: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 10.0.0.243:8080=up*1(t.1)`}},
	"vip-key-variants/key-06": {rows: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 10.0.0.243:8080=up*1(t.1)`}},
	"vip-key-variants/slash-and-noslash": {
		rows: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 10.0.0.243:8080=up*1(a) 10.0.0.243:8081=up*1(b)`},
	},
	"task-labels/tasklabel-06": {problems: []string{"vip_port5=tcp://web:80: the task has no port resource of index 5"}},
	"network-mode/mode-two-networks": {
		rows: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.1.3:8080=up*1(t.1) 192.168.5.3:8080=up*1(t.1)`},
	},
	"network-mode/mode-v6vip-v4only": {
		rows:     []string{`[fd01:c::1]:80/tcp "" ""`},
		problems: []string{"VIP_0=fd01:c::1:80: no backend is of the VIP's address family: [9.0.1.3:8080]"},
	},
	"network-mode/mode-v6vip-hostscope": {
		rows:     []string{`[fd01:c::1]:80/tcp "" ""`},
		problems: []string{"VIP_0=fd01:c::1:80: no backend is of the VIP's address family: [10.0.0.243:20000]"},
	},
	"scope/scope-unknown":            {},
	"scope/scope-twice":              {rows: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 10.0.0.243:8080=up*1(t.1)`}},
	"protocol/port-zero-host":        {},
	"health/status-newest-has-no-ip": {rows: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 10.0.0.243:9000=up*1(t.1)`}},
}

func TestStatesAreServedAsInDCOS(t *testing.T) {
	ran := map[string]bool{}
	for _, c := range dcosCases(t, "vip-label-grammar", "vip-key-variants", "task-labels", "network-mode", "scope",
		"protocol", "health", "task-state", "fixture") {
		var in stateCase
		var expect stateWant
		c.decode(t, &in, &expect)
		if in.Format != "mesos-v1-GET_STATE" {
			continue // an event stream: the sources' affair
		}
		t.Run(c.Name, func(t *testing.T) {
			snap := in.snapshot(t)
			table := Build(nil, snap, in.config())
			if better, ok := betterThanDCOS[c.Name]; ok != c.Quirk {
				t.Fatalf("the case is a quirk: %v, and we do better: %v", c.Quirk, ok)
			} else if ok {
				ran[c.Name] = true
				if d := cmp.Diff(better.rows, text(table)); d != "" {
					t.Errorf("rows (-want +got):\n%s", d)
				}
				if d := cmp.Diff(better.problems, problemLines(table.Problems(), "t.1")); d != "" {
					t.Errorf("problems (-want +got):\n%s", d)
				}
				return
			}
			ports, vips, services := asDCOS(snap, table)
			wantPorts, wantVIPs, wantServices := expect.lines()
			set := cmp.Options{cmpopts.EquateEmpty(), cmpopts.SortSlices(strings.Compare)}
			if d := cmp.Diff(wantPorts, ports, set); d != "" {
				t.Errorf("ports (-want +got):\n%s", d)
			}
			if d := cmp.Diff(wantVIPs, vips, set); d != "" {
				t.Errorf("VIPs (-want +got):\n%s", d)
			}
			if d := cmp.Diff(wantServices, services, set); d != "" {
				t.Errorf("services (-want +got):\n%s", d)
			}
		})
	}
	for name := range betterThanDCOS {
		if !ran[name] {
			t.Errorf("there is no case %s", name)
		}
	}
}

func TestFamiliesOfBackendsAreThoseOfDCOS(t *testing.T) {
	for _, c := range dcosCases(t, "backend-family") {
		t.Run(c.Name, func(t *testing.T) {
			var in struct {
				IPv6    bool `json:"enable_ipv6"`
				VIP     string
				Address string `json:"container_address"`
			}
			var want struct{ Accepted bool }
			c.decode(t, &in, &want)
			cfg := DefaultConfig()
			cfg.IPv6 = in.IPv6
			table := Build(nil, snapshotOf(appOf("app", newTask("t", model.Running, []string{in.Address}, in.VIP+":80"))), cfg)
			backends, problems := 0, len(table.Problems())
			for _, s := range table.Services.All() {
				backends += len(s.Backends)
			}
			if (backends == 1) != want.Accepted || (problems == 0) != want.Accepted {
				t.Errorf("%d backends and %d problems, accepted should be %v", backends, problems, want.Accepted)
			}
		})
	}
}

// polled is a task as DC/OS' poller has it.
type polled struct {
	Name, Framework, State string
	AgentIP                string   `json:"agent_ip"`
	TaskIP                 []string `json:"task_ip"`
	Healthy                *bool
	Ports                  []struct {
		Protocol string
		Port     uint16
		HostPort uint16 `json:"host_port"`
		VIP      []string
	}
}

func (p polled) task(tb testing.TB) *model.Task {
	tb.Helper()
	t := newTask(p.Name, stateNamed(tb, p.State), p.TaskIP)
	t.AgentAddr = netip.MustParseAddr(p.AgentIP)
	if p.Healthy != nil && !*p.Healthy {
		t.Health = model.Unhealthy
	}
	for _, port := range p.Ports {
		proto, err := model.ParseProto(port.Protocol)
		if err != nil {
			tb.Fatal(err)
		}
		mp := model.Port{Proto: proto, Number: port.Port, HostPort: port.HostPort}
		for i, v := range port.VIP {
			mp.Labels = append(mp.Labels, model.Label{Key: fmt.Sprint("VIP_", i), Value: v})
		}
		t.Ports = append(t.Ports, mp)
	}
	return t
}

func stateNamed(tb testing.TB, name string) model.TaskState {
	tb.Helper()
	for s := model.Preparing; s <= model.Terminal; s++ {
		if s.String() == name {
			return s
		}
	}
	tb.Fatalf("no state is called %s", name)
	return 0
}

func TestPolledTasksAreServedAsInDCOS(t *testing.T) {
	type outcome struct{ Backends []string }
	for _, c := range dcosCases(t, "poller") {
		t.Run(c.Name, func(t *testing.T) {
			var in struct {
				Tasks []polled
				Polls [][]polled
			}
			var want struct {
				outcome
				VIPs  []outcome
				After []outcome
			}
			c.decode(t, &in, &want)
			polls, after := in.Polls, want.After
			if polls == nil {
				polls, after = [][]polled{in.Tasks}, append(want.VIPs, want.outcome)[:1]
			}
			var table *Table
			for i, poll := range polls {
				var tasks []*model.Task
				for _, p := range poll {
					tasks = append(tasks, p.task(t))
				}
				snap := snapshotOf()
				if len(tasks) > 0 {
					snap = snapshotOf(appOf("app", tasks...))
				}
				table = Build(table, snap, DefaultConfig())
				got := []string{}
				for _, s := range table.Services.All() {
					if s.Name != "merp.marathon" || s.Frontend.Addr.Port() != 5000 {
						t.Errorf("poll %d: there is a service %+v", i, s)
					}
					for _, b := range s.Backends {
						weight := map[State]int{Up: 1}[b.State]
						got = append(got, fmt.Sprintf("%s w%d", b.Addr, weight))
					}
				}
				if d := cmp.Diff(after[i].Backends, got); d != "" {
					t.Errorf("poll %d: backends (-want +got):\n%s", i, d)
				}
			}
		})
	}
}

// TestABackendIsWhereAutoipLeads: DC/OS' name that leads to the address at
// which a task can be reached, and the VIP's backend, agree in every mode.
func TestABackendIsWhereAutoipLeads(t *testing.T) {
	ports := map[string]model.Port{
		"host":                     {Number: 8080},
		"bridge ucr":               {Number: 8080, HostPort: 20000},
		"overlay":                  {Number: 8080},
		"overlay with a host port": {Number: 8080, HostPort: 20000},
	}
	const agent, container = "10.0.0.1", "9.0.0.1"
	for _, c := range dcosCases(t, "service-discovery-matrix") {
		t.Run(c.Name, func(t *testing.T) {
			var in struct{ Mode string }
			var want struct{ Autoip, Containerip string }
			c.decode(t, &in, &want)
			at := map[string]string{"A": agent, "C": container}
			port, ok := ports[in.Mode]
			if !ok {
				t.Fatalf("mode %s is not known here", in.Mode)
			}
			port.Proto, port.Labels = model.TCP, parseLabels("VIP_0=/web:80")
			task := newTask("t", model.Running, []string{at[want.Containerip]})
			task.Ports = []model.Port{port}
			table := Build(nil, snapshotOf(appOf("app", task)), DefaultConfig())
			var got []string
			for _, s := range table.Services.All() {
				for _, b := range s.Backends {
					got = append(got, b.Addr.Addr().String())
				}
			}
			if d := cmp.Diff([]string{at[want.Autoip]}, got); d != "" {
				t.Errorf("backends (-want +got):\n%s", d)
			}
		})
	}
}

func TestNamesHaveAddressesWhileTheyHaveBackends(t *testing.T) {
	for _, c := range dcosCases(t, "vip-dns") {
		if c.Name != "vip-dns/lookup_vips" {
			continue // the others say less of the same
		}
		var in struct {
			V4 []string `json:"v4_range"`
		}
		var want struct{ After []map[string]*string }
		c.decode(t, &in, &want)
		cfg := DefaultConfig()
		cfg.First4, cfg.Last4 = netip.MustParseAddr(in.V4[0]), netip.MustParseAddr(in.V4[1])

		app := func(name, framework, addr string, values ...string) *model.App {
			a := appOf(name, newTask(name, model.Running, []string{addr}, values...))
			a.Framework = framework
			return a
		}
		foo := app("foo", "bar", "1.2.3.4", "/foo:80")
		rest := []*model.App{app("ip", "x", "1.2.3.4", "1.2.3.4:80", "1.2.3.5:80"), app("baz", "qux", "1.2.3.4", "/baz:80"), app("qux", "ipv6", "1::1", "/qux:80")}
		var table *Table
		for i, apps := range [][]*model.App{append(rest, foo), rest, nil} {
			table = Build(table, snapshotOf(apps...), cfg)
			got, expect := map[string]string{}, map[string]string{}
			for f, s := range table.Services.All() {
				kind := " A"
				if f.Addr.Addr().Is6() {
					kind = " AAAA"
				}
				if s.Name != "" {
					got[s.Name+kind] = f.Addr.Addr().String()
				}
			}
			for name, addr := range want.After[i] {
				if addr != nil {
					expect[name] = *addr
				}
			}
			if d := cmp.Diff(expect, got); d != "" {
				t.Errorf("step %d (-want +got):\n%s", i, d)
			}
		}
	}
}
