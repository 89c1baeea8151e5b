package mesos

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"waggle/model"
)

// oracle is the state machine once more, over bare JSON and without any care
// for speed: what it says and what a world says must agree.
type oracle struct {
	agents     map[string]string // address by id
	frameworks map[string]string // name by id
	tasks      map[string]*oracleTask
	removed    map[string]time.Time
}

type oracleTask struct {
	framework, agent, id, name string
	state                      string
	health                     string
	addrs                      []string
	ended                      time.Time
}

func newOracle() *oracle {
	return &oracle{map[string]string{}, map[string]string{}, map[string]*oracleTask{}, map[string]time.Time{}}
}

// at walks down objects by key; what is not there is nil.
func at(v any, path ...string) any {
	for _, key := range path {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

func str(v any, path ...string) string { s, _ := at(v, path...).(string); return s }

func list(v any, path ...string) []any { l, _ := at(v, path...).([]any); return l }

func (o *oracle) event(tb testing.TB, text []byte) {
	tb.Helper()
	var e any
	if err := json.Unmarshal(text, &e); err != nil {
		tb.Fatal(err)
	}
	if state := at(e, "subscribed", "get_state"); state != nil {
		*o = *newOracle()
		for _, a := range list(state, "get_agents", "agents") {
			o.agent(a)
		}
		for _, f := range list(state, "get_frameworks", "frameworks") {
			o.framework(f)
		}
		for _, t := range append(list(state, "get_tasks", "tasks"), list(state, "get_tasks", "unreachable_tasks")...) {
			o.task(t)
		}
	}
	switch str(e, "type") {
	case "TASK_ADDED":
		o.task(at(e, "task_added", "task"))
	case "TASK_UPDATED":
		u := at(e, "task_updated")
		key := str(u, "framework_id", "value") + "/" + str(u, "status", "task_id", "value")
		if t := o.tasks[key]; t != nil {
			t.state = class(str(u, "state"))
			t.status(at(u, "status"))
			if t.state == "terminal" {
				delete(o.tasks, key)
			}
		}
	case "AGENT_ADDED":
		o.agent(at(e, "agent_added", "agent"))
	case "AGENT_REMOVED":
		if id := str(e, "agent_removed", "agent_id", "value"); o.agents[id] != "" {
			o.removed[id] = time.Now()
		}
	case "FRAMEWORK_ADDED":
		o.framework(at(e, "framework_added", "framework"))
	case "FRAMEWORK_UPDATED":
		o.framework(at(e, "framework_updated", "framework"))
	case "FRAMEWORK_REMOVED":
		delete(o.frameworks, str(e, "framework_removed", "framework_info", "id", "value"))
	}
}

func (o *oracle) agent(a any) {
	id := str(a, "agent_info", "id", "value")
	host := strings.TrimSuffix(str(a, "pid")[strings.Index(str(a, "pid"), "@")+1:], ":5051")
	if host == "" {
		host = str(a, "agent_info", "hostname")
	}
	o.agents[id] = host
	delete(o.removed, id)
}

func (o *oracle) framework(f any) {
	o.frameworks[str(f, "framework_info", "id", "value")] = str(f, "framework_info", "name")
}

func (o *oracle) task(v any) {
	t := &oracleTask{
		framework: str(v, "framework_id", "value"), agent: str(v, "agent_id", "value"), id: str(v, "task_id", "value"),
		name: str(v, "name"), state: class(str(v, "state")), health: "unknown",
	}
	if name := str(v, "discovery", "name"); name != "" {
		t.name = name
	}
	if at(v, "health_check") != nil {
		t.health = "unhealthy"
	}
	for _, s := range list(v, "statuses") {
		t.status(s)
	}
	if t.state == "terminal" {
		t.ended = time.Now()
	}
	o.tasks[t.framework+"/"+t.id] = t
}

func (t *oracleTask) status(s any) {
	switch at(s, "healthy") {
	case true:
		t.health = "healthy"
	case false:
		t.health = "unhealthy"
	}
	var addrs []string
	for _, n := range list(s, "container_status", "network_infos") {
		for _, a := range list(n, "ip_addresses") {
			addrs = append(addrs, str(a, "ip_address"))
		}
	}
	if len(addrs) > 0 && str(s, "state") == "TASK_RUNNING" {
		t.addrs = addrs
	}
}

func class(state string) string {
	switch state {
	case "TASK_RUNNING":
		return "running"
	case "TASK_KILLING":
		return "killing"
	case "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR":
		return "terminal"
	}
	return "preparing"
}

// sweep drops what time takes away.
func (o *oracle) sweep() {
	for id, at := range o.removed {
		if time.Since(at) >= keepRemoved {
			delete(o.removed, id)
			delete(o.agents, id)
			for key, t := range o.tasks {
				if t.agent == id {
					delete(o.tasks, key)
				}
			}
		}
	}
	for key, t := range o.tasks {
		if t.state == "terminal" && !t.ended.IsZero() && time.Since(t.ended) >= keepEnded {
			delete(o.tasks, key)
		}
	}
}

// view is what is to be seen, a line each, sorted.
func (o *oracle) view() []string {
	var out []string
	for id, addr := range o.agents {
		out = append(out, fmt.Sprintf("agent %s at %s", id, addr))
	}
	for id, name := range o.frameworks {
		out = append(out, fmt.Sprintf("framework %s is %s", id, name))
	}
	for _, t := range o.tasks {
		framework, known := o.frameworks[t.framework]
		if addr := o.agents[t.agent]; known && addr != "" {
			out = append(out, fmt.Sprintf("task %s of %s %s at %s in app %s: %s, %s, %v",
				t.id, t.framework, framework, addr, t.name, t.state, t.health, t.addrs))
		}
	}
	slices.Sort(out)
	return out
}

// viewOf is the same of a Snapshot.
func viewOf(s *model.Snapshot) []string {
	var out []string
	for id, a := range s.Agents.All() {
		out = append(out, fmt.Sprintf("agent %s at %s", id, a.Addr))
	}
	for id, f := range s.Frameworks.All() {
		out = append(out, fmt.Sprintf("framework %s is %s", id, f.Name))
	}
	for key, app := range s.Apps.All() {
		for _, t := range app.Tasks {
			addrs := []string{}
			for _, a := range t.Addrs {
				addrs = append(addrs, a.Addr.String())
			}
			health := [...]string{"unknown", "healthy", "unhealthy"}[t.Health]
			out = append(out, fmt.Sprintf("task %s of %s %s at %s in app %s: %s, %s, %v",
				t.Key.ID, key.FrameworkID, app.Framework, t.AgentAddr, key.Name, t.State, health, addrs))
		}
	}
	slices.Sort(out)
	return out
}
