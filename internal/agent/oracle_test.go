package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"waggle/internal/outside"
)

// teller says what should be served after each recorded event, from the JSON
// alone and without a thought for what changed.
type teller struct {
	agents, frameworks map[string]string
	tasks              map[string]map[string]any
}

func newTeller() *teller {
	return &teller{map[string]string{}, map[string]string{}, map[string]map[string]any{}}
}

func dig(v any, path ...string) any {
	for _, key := range path {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

func text(v any, path ...string) string { s, _ := dig(v, path...).(string); return s }

func items(v any, path ...string) []any { l, _ := dig(v, path...).([]any); return l }

func (o *teller) hear(tb testing.TB, record []byte) {
	tb.Helper()
	var e any
	if err := json.Unmarshal(record, &e); err != nil {
		tb.Fatal(err)
	}
	agent := func(a any) {
		_, at, _ := strings.Cut(text(a, "pid"), "@")
		o.agents[text(a, "agent_info", "id", "value")] = strings.Split(at, ":")[0]
	}
	framework := func(f any) {
		o.frameworks[text(f, "framework_info", "id", "value")] = text(f, "framework_info", "name")
	}
	task := func(t any) { o.tasks[text(t, "task_id", "value")] = t.(map[string]any) }
	switch text(e, "type") {
	case "SUBSCRIBED":
		*o = *newTeller()
		state := dig(e, "subscribed", "get_state")
		for _, a := range items(state, "get_agents", "agents") {
			agent(a)
		}
		for _, f := range items(state, "get_frameworks", "frameworks") {
			framework(f)
		}
		for _, t := range append(items(state, "get_tasks", "tasks"), items(state, "get_tasks", "unreachable_tasks")...) {
			task(t)
		}
	case "TASK_ADDED":
		task(dig(e, "task_added", "task"))
	case "TASK_UPDATED":
		u := dig(e, "task_updated")
		if t := o.tasks[text(u, "status", "task_id", "value")]; t != nil {
			t["state"] = text(u, "state")
			t["statuses"] = append(items(t, "statuses"), dig(u, "status"))
		}
	case "AGENT_ADDED":
		agent(dig(e, "agent_added", "agent"))
	case "FRAMEWORK_ADDED":
		framework(dig(e, "framework_added", "framework"))
	case "FRAMEWORK_UPDATED":
		framework(dig(e, "framework_updated", "framework"))
	case "FRAMEWORK_REMOVED":
		delete(o.frameworks, text(e, "framework_removed", "framework_info", "id", "value"))
	}
}

// health is the last verdict: "true", "false", or "" where nobody checks.
func health(t map[string]any) string {
	out := ""
	if t["health_check"] != nil {
		out = "false"
	}
	for _, s := range items(t, "statuses") {
		if b, ok := dig(s, "healthy").(bool); ok {
			out = fmt.Sprint(b)
		}
	}
	return out
}

// view is what clients should see of tasks. All recorded tasks share their
// agent's network.
func (o *teller) view() served {
	names, up, sick, slow := map[string][]string{}, map[string][]string{}, map[string][]string{}, map[string][]string{}
	for _, t := range o.tasks {
		framework, agent := o.frameworks[text(t, "framework_id", "value")], o.agents[text(t, "agent_id", "value")]
		state := text(t, "state")
		if framework == "" || agent == "" || state != "TASK_RUNNING" && state != "TASK_KILLING" {
			continue
		}
		name := text(t, "discovery", "name")
		if name == "" {
			name = text(t, "name")
		}
		if state == "TASK_RUNNING" {
			names[name+"."+framework+".mesos."] = append(names[name+"."+framework+".mesos."], agent)
		}
		for _, p := range items(t, "discovery", "ports", "ports") {
			if proto := text(p, "protocol"); proto != "tcp" && proto != "udp" {
				continue // "udp,tcp" serves no VIP
			}
			for _, l := range items(p, "labels", "labels") {
				if !strings.HasPrefix(strings.ToUpper(text(l, "key")), "VIP") {
					continue
				}
				key := vipKey(text(l, "value"), framework, text(p, "protocol"))
				backend := fmt.Sprintf("%s:%d", agent, int(dig(p, "number").(float64)))
				switch {
				case state == "TASK_KILLING":
					slow[key] = append(slow[key], backend)
				case health(t) == "false":
					sick[key] = append(sick[key], backend)
				default:
					up[key] = append(up[key], backend)
				}
			}
		}
	}
	for _, rest := range []map[string][]string{sick, slow} { // who is used when nobody better is there
		for key, list := range rest {
			if up[key] == nil {
				up[key] = list
			}
		}
	}
	out := served{}
	for _, lists := range []map[string][]string{names, up} {
		for key, list := range lists {
			slices.Sort(list)
			out[key] = strings.Join(slices.Compact(list), " ")
		}
	}
	return out
}

func vipKey(label, framework, proto string) string {
	i := strings.LastIndexByte(label, ':')
	left, port := label[:i], label[i+1:]
	if strings.Count(left, ".") == 3 {
		return left + ":" + port + "/" + proto
	}
	return strings.ReplaceAll(left, "/", "") + "." + framework + ".l4lb:" + port + "/" + proto
}

// records are the events of a recorded stream.
func records(tb testing.TB, path string) [][]byte {
	tb.Helper()
	body := outside.Read(tb, "fixtures", path)
	if !bytes.HasPrefix(body, []byte("{")) {
		var out [][]byte
		for len(body) > 0 {
			var n int
			if _, err := fmt.Sscanf(string(body[:min(20, len(body))]), "%d\n", &n); err != nil {
				tb.Fatal(err)
			}
			body = body[bytes.IndexByte(body, '\n')+1:]
			if n > len(body) {
				break // cut where its master died
			}
			out, body = append(out, body[:n]), body[n:]
		}
		return out
	}
	return bytes.Split(bytes.TrimSpace(body), []byte("\n"))
}

// expected is what a teller says of a recorded stream, record by record.
func expected(tb testing.TB, path string) (views []served, keys map[string]bool) {
	tb.Helper()
	o, keys := newTeller(), map[string]bool{}
	for _, r := range records(tb, path) {
		o.hear(tb, r)
		v := o.view()
		views = append(views, v)
		for key := range v {
			keys[key] = true
		}
	}
	return views, keys
}
