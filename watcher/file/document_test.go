package file

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waggle/model"
)

// static is a task as an entry without anything special makes it.
func static(id, name string, addrs ...string) *model.Task {
	t := &model.Task{
		Key: model.TaskKey{FrameworkID: "file:static", ID: id}, Name: name, Framework: "static",
		AgentID: "file", State: model.Running, Discovery: &model.Discovery{Name: name},
	}
	for _, a := range addrs {
		t.Addrs = append(t.Addrs, model.Address{Addr: netip.MustParseAddr(a)})
	}
	t.AgentAddr = t.Addrs[0].Addr
	return t
}

func with(t *model.Task, change func(*model.Task)) *model.Task {
	change(t)
	return t
}

func tcp(number int64, name string, labels ...model.Label) func(*model.Task) {
	return func(t *model.Task) {
		t.Discovery.Ports = []model.DiscoveryPort{{Number: number, Name: name, Protocol: "tcp", Labels: labels}}
		t.Ports, _ = model.JoinPorts(t)
	}
}

func TestParse(t *testing.T) {
	vip := model.Label{Key: "VIP_0", Value: "/db:5432"}
	for _, tt := range []struct {
		name, text string
		want       []*model.Task
		problems   []model.Problem
	}{
		{name: "a service is an instance at each address",
			text: "services: [{name: db, addresses: [10.0.0.7, 'fd00::8'], ports: [{name: sql, port: 5432, vip: '/db:5432'}]}]",
			want: []*model.Task{
				with(static("db.10.0.0.7", "db", "10.0.0.7"), tcp(5432, "sql", vip)),
				with(static("db.fd00::8", "db", "fd00::8"), tcp(5432, "sql", vip)),
			}},
		{name: "a task is one instance with all its addresses",
			text: "tasks: [{id: p-1, name: p, addresses: [10.0.3.9, 'fd00::9']}]",
			want: []*model.Task{static("p-1", "p", "10.0.3.9", "fd00::9")}},
		{name: "JSON is read too, tabs and all",
			text: "{\n\t\"tasks\": [\n\t\t{\"id\": \"p-1\", \"name\": \"p\", \"addresses\": [\"10.0.3.9\"]}\n\t]\n}\n",
			want: []*model.Task{static("p-1", "p", "10.0.3.9")}},
		{name: "framework, agent, health and labels are the task's",
			text: "tasks: [{id: p, name: p, framework: office, agent: 10.0.0.1, health: unhealthy, addresses: [10.0.3.9], labels: {b: '2', a: '1'}}]",
			want: []*model.Task{with(static("p", "p", "10.0.3.9"), func(t *model.Task) {
				t.Framework, t.Key.FrameworkID, t.AgentAddr = "office", "file:office", netip.MustParseAddr("10.0.0.1")
				t.Health, t.Labels = model.Unhealthy, []model.Label{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}}
			})}},
		{name: "a host port leads to the port",
			text: "tasks: [{id: p, name: p, agent: 10.0.0.1, addresses: [10.0.3.9], ports: [{port: 80, host_port: 30080}]}]",
			want: []*model.Task{with(static("p", "p", "10.0.3.9"), func(t *model.Task) {
				t.AgentAddr = netip.MustParseAddr("10.0.0.1")
				t.Mappings = []model.PortMapping{{HostPort: 30080, ContainerPort: 80, Proto: model.TCP}}
				t.Discovery.Ports = []model.DiscoveryPort{{Number: 80, Protocol: "tcp"}}
				t.Ports = []model.Port{{Name: "default", Proto: model.TCP, Number: 80, HostPort: 30080}}
			})}},
		{name: "a bad entry costs itself",
			text: "services:\n- name: a\n  addresses: [nowhere]\n- name: b\n  addresses: [10.0.0.1]\n- name: c\ntasks:\n- name: d\n  addresses: [10.0.0.1]\n- id: e\n  name: e\n",
			want: []*model.Task{static("b.10.0.0.1", "b", "10.0.0.1")},
			problems: []model.Problem{
				{Task: "a.nowhere", Field: "f line 2", Error: `addresses: ParseAddr("nowhere"): unable to parse IP`},
				{Task: "c", Field: "f line 6", Error: "addresses: there are none"},
				{Field: "f line 8", Error: "id: it is missing"},
				{Task: "e", Field: "f line 10", Error: "addresses: there are none"},
			}},
		{name: "an unknown key costs its entry, and names its line",
			text:     "services:\n- name: a\n  addresses: [10.0.0.1]\n  ports:\n  - port: 1\n    prot: udp\n",
			problems: []model.Problem{{Task: "a", Field: "f line 2", Error: `line 6: unknown key "prot"`}}},
		{name: "an unknown key at the top costs nothing",
			text:     "tsks: []\nservices: [{name: b, addresses: [10.0.0.1]}]\n",
			want:     []*model.Task{static("b.10.0.0.1", "b", "10.0.0.1")},
			problems: []model.Problem{{Field: "f line 1", Error: `line 1: unknown key "tsks"`}}},
		{name: "a value of the wrong kind costs its entry",
			text:     "services: [{name: a, addresses: [10.0.0.1], ports: [{port: many}]}]",
			problems: []model.Problem{{Task: "a", Field: "f line 1", Error: "yaml: unmarshal errors:;   line 1: cannot unmarshal !!str `many` into int64"}}},
		{name: "health is one of two words",
			text:     "services: [{name: a, addresses: [10.0.0.1], health: fine}]",
			problems: []model.Problem{{Task: "a.10.0.0.1", Field: "f line 1", Error: `health: "fine" is neither healthy nor unhealthy`}}},
		{name: "a port that cannot be used costs itself",
			text: "services: [{name: a, addresses: [10.0.0.1], ports: [{port: 70000}, {port: 80}]}]",
			want: []*model.Task{with(static("a.10.0.0.1", "a", "10.0.0.1"), func(t *model.Task) {
				t.Discovery.Ports = []model.DiscoveryPort{{Number: 70000, Protocol: "tcp"}, {Number: 80, Protocol: "tcp"}}
				t.Ports = []model.Port{{Name: "default", Proto: model.TCP, Number: 80}}
			})},
			problems: []model.Problem{{Task: "a.10.0.0.1", Field: "f line 1 discovery.ports[0]", Value: "70000/tcp", Error: "port number 70000 is not within 1 to 65535"}}},
		{name: "a host port out of range costs its entry",
			text:     "services: [{name: a, addresses: [10.0.0.1], ports: [{port: 80, host_port: 70000}]}]",
			problems: []model.Problem{{Task: "a.10.0.0.1", Field: "f line 1", Error: "ports[0]: port 80, host_port 70000: both must be within 1 to 65535"}}},
		{name: "nothing is said by an empty mapping", text: "{}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse("f", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			addr := cmpopts.EquateComparable(netip.Addr{})
			if d := cmp.Diff(tt.want, got.tasks, addr, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("tasks (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.problems, got.problems); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

func TestAFileThatMakesNoSenseSaysWhere(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "no document",
		"# nothing\n":                 "no document",
		"services:\n- name: [\n":      "line 2",
		"- name: a\n":                 "line 1: services or tasks expected",
		"services: 3\n":               "line 1: cannot unmarshal",
		"{}\n---\n{}\n":               "more than one",
		"{\"tasks\": [{\"id\": 1,}, ": "line 1",
		"\x00\x01":                    "control characters",
	} {
		if _, err := parse("f", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestTheDocumentedExampleIsRead keeps docs/static-services.md true.
func TestTheDocumentedExampleIsRead(t *testing.T) {
	page, err := os.ReadFile("../../docs/static-services.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	p, err := parse("example", []byte(example))
	if err != nil || len(p.problems) > 0 || len(p.tasks) != 3 {
		t.Errorf("%v, %+v", err, p)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"services: [{name: db, addresses: [10.0.0.7], ports: [{port: 1, vip: '/a:1', labels: {a: b}}]}]",
		"tasks: [{id: a, name: b, agent: 1.2.3.4, addresses: ['::1'], ports: [{port: 1, host_port: 2, protocol: udp}]}]",
		"a: &a {b: [*a]}\nservices: [*a]\n", "services: [<<: {name: x}]", "- - -", "{}", "tasks: [~, 3, {}, []]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parse("f", text)
		if err != nil {
			return
		}
		files := []*content{{path: "f", good: p}}
		snap := snapshot(&model.Snapshot{}, files)
		for key, app := range snap.Apps.All() {
			if key != app.Key || len(app.Tasks) == 0 {
				t.Errorf("app %v: %+v", key, app)
			}
		}
		again := snapshot(snap, files)
		for c := range model.Diff(snap.Apps, again.Apps) {
			t.Errorf("read twice, %v differs", c.Key)
		}
	})
}
