package mesos

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waggle/model"
	"waggle/watcher/mesos/mesostest"
)

// plainly compares models by what they hold.
var plainly = cmp.Options{
	cmpopts.EquateEmpty(),
	cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}),
}

// content is a Snapshot as plain maps, for whole comparisons.
type content struct {
	Apps       map[model.AppKey]*model.App
	Agents     map[string]*model.Agent
	Frameworks map[string]*model.Framework
	Leader     netip.AddrPort
	Problems   []model.Problem
	Masters    []netip.AddrPort
}

func contentOf(s *model.Snapshot) content {
	return content{
		Apps: collect(s.Apps), Agents: collect(s.Agents), Frameworks: collect(s.Frameworks),
		Leader: s.Leader, Masters: s.Masters, Problems: s.Problems,
	}
}

func collect[K, V comparable](g model.Groups[K, V]) map[K]V {
	out := map[K]V{}
	for k, v := range g.All() {
		out[k] = v
	}
	return out
}

func diffSnapshots(a, b *model.Snapshot) string {
	return cmp.Diff(contentOf(a), contentOf(b), plainly)
}

func decode(tb testing.TB, text string, f Format) *model.Snapshot {
	tb.Helper()
	s, err := Decode(tb.Context(), strings.NewReader(text), f, fakeResolve)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// stateWith is a GET_STATE answer of one agent A (10.0.0.5), one framework F
// (marathon) and the given tasks.
func stateWith(tasks ...string) string {
	return `{"type":"GET_STATE","get_state":{
"get_agents":{"agents":[{"agent_info":{"id":{"value":"A"},"hostname":"10.0.0.5","port":5051},"active":true,"pid":"slave(1)@10.0.0.5:5051"}]},
"get_frameworks":{"frameworks":[{"framework_info":{"id":{"value":"F"},"name":"marathon"},"active":true}]},
"get_tasks":{"tasks":[` + strings.Join(tasks, ",") + `]}}}`
}

// taskWith is a running task t of F on A with fields of one's own.
func taskWith(fields string) string {
	return `{"task_id":{"value":"t"},"framework_id":{"value":"F"},"agent_id":{"value":"A"},"name":"web","state":"TASK_RUNNING",` + fields + `}`
}

const good = `{"task_id":{"value":"good"},"framework_id":{"value":"F"},"agent_id":{"value":"A"},"name":"web","state":"TASK_RUNNING"}`

func TestABadObjectCostsOnlyItselfAndIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name, task string
		served     bool // the task is, as far as it could be read
		problem    model.Problem
	}{
		{"a task that is no object", `7`, false, model.Problem{Field: "task_id", Error: "missing or unreadable\nnumber where object should be"}},
		{"a task without anything", `{}`, false, model.Problem{Field: "task_id", Error: "missing or unreadable"}},
		{"a task without a framework", `{"task_id":{"value":"t"}}`, false, model.Problem{Task: "t", Field: "framework_id", Error: "missing or unreadable"}},
		{"a framework_id of the wrong type", `{"task_id":{"value":"t"},"framework_id":"F"}`, false,
			model.Problem{Task: "t", Field: "framework_id", Error: "missing or unreadable\nframework_id: string where object should be"}},
		{"a task without an agent", `{"task_id":{"value":"t"},"framework_id":{"value":"F"}}`, false, model.Problem{Task: "t", Field: "agent_id", Error: "missing or unreadable"}},
		{"a task that is no JSON inside", `{"task_id":{"value":"t"},"framework_id":}`, false,
			model.Problem{Field: "task_id", Error: "missing or unreadable\ninvalid character '}' looking for beginning of value"}},
		{"a state of the wrong type", taskWith(`"state":9`), true, model.Problem{Task: "t", Field: "state", Value: "number", Error: "number where string should be"}},
		{"labels that are a string", taskWith(`"labels":"x"`), true, model.Problem{Task: "t", Field: "labels", Value: "string", Error: "string where object should be"}},
		{"labels that are a list, as /state has them", taskWith(`"labels":[]`), true, model.Problem{Task: "t", Field: "labels", Value: "array", Error: "array where object should be"}},
		{"a list of labels that is an object", taskWith(`"labels":{"labels":{}}`), true, model.Problem{Task: "t", Field: "labels.labels", Value: "object", Error: "object where array should be"}},
		{"a label that is a string", taskWith(`"labels":{"labels":["x"]}`), true, model.Problem{Task: "t", Field: "labels.labels", Value: "string", Error: "string where object should be"}},
		{"a label's value that is a number", taskWith(`"labels":{"labels":[{"key":"VIP_0","value":80}]}`), true, model.Problem{Task: "t", Field: "labels.labels.value", Value: "number", Error: "number where string should be"}},
		{"statuses that are a number", taskWith(`"statuses":1`), true, model.Problem{Task: "t", Field: "statuses", Value: "number", Error: "number where array should be"}},
		{"a verdict that is a string", taskWith(`"statuses":[{"state":"TASK_RUNNING","healthy":"yes"}]`), true, model.Problem{Task: "t", Field: "status.healthy", Error: "no bool"}},
		{"a port's number that is a string", taskWith(`"discovery":{"ports":{"ports":[{"number":"80","protocol":"tcp"}]}}`), true,
			model.Problem{Task: "t", Field: "discovery.ports.ports.number", Value: "string", Error: "string where number should be"}},
		{"a port's number with a fraction", taskWith(`"discovery":{"ports":{"ports":[{"number":80.5,"protocol":"tcp"}]}}`), true,
			model.Problem{Task: "t", Field: "discovery.ports.ports.number", Value: "number 80.5", Error: "number 80.5 where number should be"}},
		{"a port beyond all ports", taskWith(`"discovery":{"ports":{"ports":[{"number":70000,"protocol":"tcp"}]}}`), true,
			model.Problem{Task: "t", Field: "discovery.ports[0]", Value: "70000/tcp", Error: "port number 70000 is not within 1 to 65535"}},
		{"a mapping beyond all ports", taskWith(`"container":{"docker":{"port_mappings":[{"host_port":70000,"container_port":80}]}}`), true,
			model.Problem{Task: "t", Field: "container.docker.port_mappings.host_port", Value: "number 70000", Error: "number 70000 where number up to 65535 should be"}},
		{"a range beyond all ports", taskWith(`"resources":[{"name":"ports","ranges":{"range":[{"begin":1,"end":-1}]}}]`), true,
			model.Problem{Task: "t", Field: "resources.ranges.range.end", Value: "number -1", Error: "number -1 where number up to 65535 should be"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := decode(t, stateWith(good, tt.task, strings.ReplaceAll(good, `"good"`, `"later"`)), GetState)
			if d := cmp.Diff([]model.Problem{tt.problem}, s.AllProblems()); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
			tasks := tasksOf(s)
			for id, want := range map[string]bool{"good": true, "later": true, "t": tt.served} {
				if got := tasks[model.TaskKey{FrameworkID: "F", ID: id}] != nil; got != want {
					t.Errorf("task %s served: %v, want %v", id, got, want)
				}
			}
			if task := tasks[model.TaskKey{FrameworkID: "F", ID: "t"}]; task != nil && task.Health != model.HealthUnknown {
				t.Errorf("the task counts as %v though nobody said so", task.Health)
			}
		})
	}
}

func TestOtherBadObjectsAreNamedToo(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		format     Format
		problem    model.Problem
	}{
		{"an agent without an id", `{"get_state":{"get_agents":{"agents":[{"agent_info":{"hostname":"x"}}]}}}`, GetState,
			model.Problem{Field: "agent", Error: "id missing or unreadable"}},
		{"an agent's port beyond all ports", `{"get_state":{"get_agents":{"agents":[{"agent_info":{"id":{"value":"A"},"hostname":"10.0.0.5","port":70000}}]}}}`, GetState,
			model.Problem{Task: "A", Field: "agent_info.port", Value: "number 70000", Error: "number 70000 where number up to 65535 should be"}},
		{"an agent whose name nobody knows", `{"get_state":{"get_agents":{"agents":[{"agent_info":{"id":{"value":"A"},"hostname":"nowhere"}}]}}}`, GetState,
			model.Problem{Task: "A", Field: "hostname", Value: "nowhere", Error: "no address is known for it"}},
		{"a framework's name of the wrong type", `{"get_state":{"get_frameworks":{"frameworks":[{"framework_info":{"id":{"value":"F"},"name":[]}}]}}}`, GetState,
			model.Problem{Task: "F", Field: "framework_info.name", Value: "array", Error: "array where string should be"}},
		{"a list that is an object", `{"get_state":{"get_tasks":{"tasks":{}}}}`, GetState,
			model.Problem{Field: "get_state.get_tasks.tasks", Value: "object", Error: "object where array should be"}},
		{"a line that is no event", "{\"subscribed\":{\"get_state\":{}}}\nhello\n", Events,
			model.Problem{Field: "line 2", Error: "invalid character 'h' looking for beginning of value"}},
		{"an event laid out over lines that is cut", "{\"subscribed\":{\"get_state\":{}}}\n{\n \"type\":\n{\"type\":\"HEARTBEAT\"}\n", Events,
			model.Problem{Field: "line 2", Error: "unexpected EOF"}},
		{"a cut stream", "31\n{\"subscribed\":{\"get_state\":{}}}100\n{\"type\"", RecordIO,
			model.Problem{Field: "record 2", Error: "skip rest of record 2: read record 2, 93 bytes short: unexpected EOF"}},
		{"a record that is no JSON", "31\n{\"subscribed\":{\"get_state\":{}}}3\nabc20\n{\"type\":\"HEARTBEAT\"}", RecordIO,
			model.Problem{Field: "record 2", Error: "'a' where an object should begin"}},
		{"an update for a task never described", "{\"subscribed\":{\"get_state\":{}}}\n" +
			`{"task_updated":{"framework_id":{"value":"F"},"state":"TASK_RUNNING","status":{"task_id":{"value":"t"}}}}`, Events,
			model.Problem{Field: "task_updated", Error: errUnknownTask.Error()}},
		{"an update without ids", "{\"subscribed\":{\"get_state\":{}}}\n" + `{"task_updated":{"state":"TASK_RUNNING"}}`, Events,
			model.Problem{Field: "task_updated", Error: "task_id or framework_id missing or unreadable"}},
		{"a leader of the wrong type", `{"leader":1,"slaves":[]}`, State,
			model.Problem{Field: "leader", Value: "1", Error: "number where string should be"}},
		{"ports that are no ranges", `{"slaves":[{"id":"A","pid":"slave(1)@10.0.0.5:5051"}],"frameworks":[{"id":"F","name":"m","tasks":[{"id":"t","slave_id":"A","resources":{"ports":"[31000, 5-x, 7-9]"}}]}]}`, State,
			model.Problem{Task: "t", Field: "resources.ports", Value: "[31000, 5-x, 7-9]", Error: "\"31000\" is no range of ports\n\"5-x\" is no range of ports"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := decode(t, tt.text, tt.format)
			if d := cmp.Diff([]model.Problem{tt.problem}, s.AllProblems()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestEventsAreReadHoweverTheyAreLaidOut(t *testing.T) {
	events := []string{
		string(mesostest.Subscribed(15, []map[string]any{mesostest.Agent("A", netip.MustParseAddr("10.0.0.5"))},
			[]map[string]any{mesostest.Framework("F", "marathon")}, nil)),
		string(mesostest.TaskAdded(mesostest.Task{Framework: "F", Agent: "A", ID: "t", Name: "web", State: "TASK_RUNNING"})),
	}
	var pretty []string
	for _, e := range events {
		var out bytes.Buffer
		if err := json.Indent(&out, []byte(e), "", "  "); err != nil {
			t.Fatal(err)
		}
		pretty = append(pretty, out.String())
	}
	for name, text := range map[string]string{
		"a line each":           strings.Join(events, "\n"),
		"over several lines":    strings.Join(pretty, "\n"),
		"one behind the other":  strings.Join(events, " "),
		"an array":              "[" + strings.Join(events, ",") + "]",
		"an array, over lines":  "[\n" + strings.Join(pretty, ",\n") + "\n]\n",
		"with empty lines":      "\n\n" + strings.Join(events, "\n\n\n") + "\n\n",
		"with carriage returns": strings.Join(events, "\r\n") + "\r\n",
	} {
		s := decode(t, text, Auto)
		if tasks := tasksOf(s); len(tasks) != 1 || len(s.AllProblems()) != 0 {
			t.Errorf("%s: %d tasks, problems %v", name, len(tasks), s.AllProblems())
		}
	}
}

func TestADocumentWithoutAPictureIsAnError(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		format     Format
		want       string
	}{
		{"nothing", "", Auto, "neither RecordIO nor a JSON object; name its form"},
		{"a list", "[]", Auto, "neither RecordIO nor a JSON object; name its form"},
		{"some other object", `{"a":1}`, Auto, "neither events, nor GET_STATE, nor /state, nor of Marathon; name its form"},
		{"a broken object", `{"a"`, Auto, "read first document: unexpected EOF"},
		{"Marathon's apps", `{"apps":[]}`, Auto, "a document of Marathon, not of Mesos"},
		{"Marathon by name", `{}`, Marathon, "a document of Marathon, not of Mesos"},
		{"a heartbeat alone", `{"type":"HEARTBEAT"}`, Auto, "read as events: no picture of a cluster in it"},
		{"GET_STATE without a state", `{"type":"GET_STATE"}`, GetState, "read as get_state: no picture of a cluster in it"},
		{"a cut GET_STATE", `{"get_state":{"get_tasks":{"tasks":[{"a`, Auto, "read as get_state: get_state.get_tasks.tasks: unexpected EOF"},
		{"two documents", `{"get_state":{}}{}`, GetState, "read as get_state: more than one document"},
		{"no RecordIO", "hello", RecordIO, `read as recordio: record 0: not RecordIO: record 1 at byte 0 has length "h"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode(t.Context(), strings.NewReader(tt.text), tt.format, fakeResolve)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestFormatsAreKnownByName(t *testing.T) {
	for _, name := range Formats() {
		if f, err := ParseFormat(name); err != nil || string(f) != name {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	if _, err := ParseFormat("xml"); err == nil || err.Error() != `"xml" is none of auto, events, recordio, get_state, state, marathon` {
		t.Errorf("got %v", err)
	}
}

func TestStatusesGiveAddressesAndHealth(t *testing.T) {
	status := func(state, timestamp, rest string) string {
		return `{"state":"` + state + `","timestamp":` + timestamp + rest + `}`
	}
	ip := func(a string) string {
		return `,"container_status":{"network_infos":[{"name":"dcos","ip_addresses":[{"ip_address":"` + a + `"}]}]}`
	}
	addr := func(a string) []model.Address {
		return []model.Address{{Addr: netip.MustParseAddr(a), Network: "dcos"}}
	}
	for _, tt := range []struct {
		name, fields string
		addrs        []model.Address
		health       model.Health
	}{
		{"the newest running status gives the address", `"statuses":[` + status("TASK_RUNNING", "3", ip("9.0.0.3")) + `,` + status("TASK_RUNNING", "2", ip("9.0.0.2")) + `]`, addr("9.0.0.3"), model.HealthUnknown},
		{"of two at one time the first listed does", `"statuses":[` + status("TASK_RUNNING", "2", ip("9.0.0.3")) + `,` + status("TASK_RUNNING", "2", ip("9.0.0.2")) + `]`, addr("9.0.0.3"), model.HealthUnknown},
		{"an older one does where the newest has none", `"statuses":[` + status("TASK_RUNNING", "2", ip("9.0.0.2")) + `,` + status("TASK_RUNNING", "3", "") + `]`, addr("9.0.0.2"), model.HealthUnknown},
		{"a starting status shows the agent's, not the task's", `"statuses":[` + status("TASK_STARTING", "2", ip("10.0.0.5")) + `]`, nil, model.HealthUnknown},
		{"a killing status does too", `"statuses":[` + status("TASK_RUNNING", "2", ip("9.0.0.2")) + `,` + status("TASK_KILLING", "3", ip("10.0.0.5")) + `]`, addr("9.0.0.2"), model.HealthUnknown},
		{"a prefix length is cut off", `"statuses":[` + status("TASK_RUNNING", "2", ip("fd01::5/64")) + `]`, addr("fd01::5"), model.HealthUnknown},
		{"an address in IPv6 clothes is IPv4", `"statuses":[` + status("TASK_RUNNING", "2", ip("::ffff:9.0.0.2")) + `]`, addr("9.0.0.2"), model.HealthUnknown},
		{"a text that is no address is skipped", `"statuses":[` + status("TASK_RUNNING", "2", ip("nine")) + `]`, nil, model.HealthUnknown},
		{"the single address of old masters counts", `"statuses":[` + status("TASK_RUNNING", "2", `,"container_status":{"network_infos":[{"name":"dcos","ip_address":"9.0.0.2"}]}`) + `]`, addr("9.0.0.2"), model.HealthUnknown},
		{"a verdict counts without a check", `"statuses":[` + status("TASK_RUNNING", "2", `,"healthy":false`) + `]`, nil, model.Unhealthy},
		{"a verdict beats the check's silence", `"health_check":{"type":"TCP"},"statuses":[` + status("TASK_RUNNING", "2", `,"healthy":true`) + `]`, nil, model.Healthy},
		{"a check that is silent means unhealthy", `"health_check":{"type":"TCP"}`, nil, model.Unhealthy},
		{"no check means nobody knows", `"health_check":null`, nil, model.HealthUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := decode(t, stateWith(taskWith(tt.fields)), GetState)
			task := tasksOf(s)[model.TaskKey{FrameworkID: "F", ID: "t"}]
			if task == nil {
				t.Fatal("task not served")
			}
			if d := cmp.Diff(tt.addrs, task.Addrs, plainly); d != "" {
				t.Error(d)
			}
			if task.Health != tt.health {
				t.Errorf("health %v, want %v", task.Health, tt.health)
			}
			if p := s.AllProblems(); len(p) > 0 {
				t.Errorf("problems %v", p)
			}
		})
	}
}

func TestOldStateIsReadWithAllItsOddities(t *testing.T) {
	s := decode(t, `{"leader":"master@10.0.0.1:5050",
"slaves":[{"id":"A","hostname":"node","port":1,"pid":"slave(1)@10.0.0.5:5051","active":true},{"id":"B","hostname":"localhost","active":false}],
"frameworks":[{"id":"F","name":"marathon","pid":"scheduler-1@10.0.0.9:15101","hostname":"x","active":true,
 "tasks":[{"id":"t","name":"web","slave_id":"A","state":"TASK_RUNNING","resources":{"ports":"[31000-31001, 31005-31005, 9-8]"},
  "labels":[{"key":"k","value":"v"}],
  "statuses":[{"state":"TASK_RUNNING","timestamp":1.5,"healthy":true,
   "labels":[{"key":"Docker.NetworkSettings.IPAddress","value":"172.17.0.2"},{"key":"MesosContainerizer.NetworkSettings.IPAddress","value":"172.17.0.3"},{"key":"Docker.NetworkSettings.IPAddress","value":"none"}]}]},
  {"id":"elsewhere","name":"web","slave_id":"C","state":"TASK_RUNNING"}],
 "unreachable_tasks":[{"id":"u","name":"web","slave_id":"B","state":"TASK_UNREACHABLE"}],
 "completed_tasks":[{"id":"old","name":"web","slave_id":"A","state":"TASK_FINISHED"}]}],
"completed_frameworks":[{"id":"G","name":"gone"}]}`, Auto)
	docker, mesos := []netip.Addr{netip.MustParseAddr("172.17.0.2")}, []netip.Addr{netip.MustParseAddr("172.17.0.3")}
	key := model.AppKey{FrameworkID: "F", Name: "web"}
	want := content{
		Leader: netip.MustParseAddrPort("10.0.0.1:5050"),
		Agents: map[string]*model.Agent{
			"A": {ID: "A", Hostname: "node", Addr: netip.MustParseAddr("10.0.0.5"), Port: 5051, Active: true},
			"B": {ID: "B", Hostname: "localhost", Addr: netip.MustParseAddr("127.0.0.1")},
		},
		Frameworks: map[string]*model.Framework{
			"F": {ID: "F", Name: "marathon", Hostname: "x", Addr: netip.MustParseAddr("10.0.0.9"), Port: 15101, Active: true},
		},
		Apps: map[model.AppKey]*model.App{key: {Key: key, Framework: "marathon", Tasks: []*model.Task{
			{
				Key: model.TaskKey{FrameworkID: "F", ID: "t"}, Name: "web", Framework: "marathon", AgentID: "A",
				AgentAddr: netip.MustParseAddr("10.0.0.5"), State: model.Running, Health: model.Healthy,
				LabelAddrs: &model.LabelAddrs{Docker: docker, Mesos: mesos},
				Resources:  []model.PortRange{{First: 31000, Last: 31001}, {First: 31005, Last: 31005}},
				Labels:     []model.Label{{Key: "k", Value: "v"}},
			},
			{
				Key: model.TaskKey{FrameworkID: "F", ID: "u"}, Name: "web", Framework: "marathon", AgentID: "B",
				AgentAddr: netip.MustParseAddr("127.0.0.1"), State: model.Preparing,
			},
		}}},
	}
	if d := cmp.Diff(want, contentOf(s), plainly); d != "" {
		t.Error(d)
	}
}

func TestPIDs(t *testing.T) {
	for _, tt := range []struct {
		pid, host string
		port      uint16
	}{
		{"slave(1)@10.0.0.5:5051", "10.0.0.5", 5051},
		{"slave(1)@[fd01::5]:5051", "fd01::5", 5051},
		{"slave(1)@[fd01::5]", "fd01::5", 0},
		{" scheduler-1@host.example:1 ", "host.example", 1},
		{"slave(1)@10.0.0.5", "10.0.0.5", 0},
		{"slave(1)@10.0.0.5:70000", "", 0},
		{"slave(1)@10.0.0.5:", "", 0},
		{"10.0.0.5:5051", "", 0},
		{"", "", 0},
		{"@", "", 0},
	} {
		if host, port := parsePID(tt.pid); host != tt.host || port != tt.port {
			t.Errorf("%q is %q, %d; want %q, %d", tt.pid, host, port, tt.host, tt.port)
		}
	}
}

func TestSharingAmongTasksOfAnAppNeverChangesThem(t *testing.T) {
	same := `"labels":{"labels":[{"key":"k","value":"v"}]},"discovery":{"name":"web","ports":{"ports":[{"number":80,"protocol":"tcp"}]}}`
	other := `"labels":{"labels":[{"key":"k","value":"w"}]},"discovery":{"name":"web","ports":{"ports":[{"number":81,"protocol":"tcp"}]}}`
	id := func(id, fields string) string { return strings.Replace(taskWith(fields), `"t"`, `"`+id+`"`, 1) }
	together := tasksOf(decode(t, stateWith(id("a", same), id("b", same), id("c", other)), GetState))
	for ident, fields := range map[string]string{"a": same, "b": same, "c": other} {
		key := model.TaskKey{FrameworkID: "F", ID: ident}
		alone := tasksOf(decode(t, stateWith(id(ident, fields)), GetState))
		if d := cmp.Diff(alone[key], together[key], plainly); d != "" {
			t.Error(d)
		}
	}
	a, b := together[model.TaskKey{FrameworkID: "F", ID: "a"}], together[model.TaskKey{FrameworkID: "F", ID: "b"}]
	if a.Discovery != b.Discovery || &a.Labels[0] != &b.Labels[0] || &a.Ports[0] != &b.Ports[0] {
		t.Error("equal descriptions are held twice")
	}
}

// FuzzDecode: no input makes any format panic, and equal input gives an equal
// Snapshot and an equal error.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(stateWith(good)))
	f.Add([]byte(stateWith(taskWith(`"labels":{"labels":[1]},"statuses":[{"healthy":"x"}]`))))
	f.Add([]byte(`{"leader":"master@1.2.3.4:5","slaves":[{"id":"A","pid":"s@1.2.3.4:5"}],"frameworks":[{"id":"F","tasks":[{"id":"t","slave_id":"A","resources":{"ports":"[1-2"}}]}]}`))
	f.Add([]byte("31\n{\"subscribed\":{\"get_state\":{}}}2\n{}"))
	f.Add([]byte("{\"subscribed\":{\"get_state\":{}}}\n{\"task_updated\":{}}\n{\"agent_removed\":{\"agent_id\":{\"value\":\"A\"}}}"))
	for _, path := range []string{"dcos-net/vip-labels.json", "dcos-net/pod-tasks.json", "mesos-dns/mesos-dns-fake.json"} {
		if text, err := os.ReadFile(filepath.Join("../../../shared/fixtures", path)); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, name := range Formats() {
			a, err := Decode(t.Context(), bytes.NewReader(text), Format(name), fakeResolve)
			b, err2 := Decode(t.Context(), bytes.NewReader(text), Format(name), fakeResolve)
			if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
				t.Fatalf("%s: %v, then %v", name, err, err2)
			}
			if err != nil {
				continue
			}
			if d := diffSnapshots(a, b); d != "" {
				t.Fatalf("%s: %s", name, d)
			}
		}
	})
}
