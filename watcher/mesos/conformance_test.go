package mesos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
	"waggle/model"
)

// dcosTask is a task as DC/OS' daemon understands it. Which VIPs it has is not
// for this package, so ports that exist only for a VIP label are left out.
type dcosTask struct {
	AgentIP   string     `json:"agent_ip"`
	Framework string     `json:"framework"`
	Name      string     `json:"name"`
	Healthy   *bool      `json:"healthy"`
	State     string     `json:"state"`
	Ports     []dcosPort `json:"ports"`
	TaskIP    []string   `json:"task_ip"`
}

type dcosPort struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	HostPort uint16 `json:"host_port"`
}

type dcosCase struct {
	Name  string `json:"name"`
	Group string `json:"group"`
	Quirk bool   `json:"quirk"`
	Input struct {
		Format   string            `json:"format"`
		Fixture  string            `json:"fixture"`
		TaskID   string            `json:"task_id"` // of the only task meant
		Messages []json.RawMessage `json:"messages"`
	}
	Expect json.RawMessage
}

// document returns the case's input as a file that Decode reads.
func (c dcosCase) document(tb testing.TB) ([]byte, Format) {
	tb.Helper()
	format := GetState
	if c.Input.Format == "" {
		format = Auto
	}
	if strings.HasPrefix(c.Input.Format, "mesos-v1-event-stream") {
		format = Events
	}
	if c.Input.Fixture != "" {
		return outside.Read(tb, "fixtures", "dcos-net", strings.TrimPrefix(c.Input.Fixture, "fixtures/")), format
	}
	var lines [][]byte
	for _, m := range c.Input.Messages {
		var line bytes.Buffer
		if err := json.Compact(&line, m); err != nil {
			tb.Fatal(err)
		}
		lines = append(lines, line.Bytes())
	}
	return bytes.Join(lines, []byte("\n")), format
}

// better are the quirks that touch tasks, and what we make of them instead.
var better = map[string]func(dcosTask) dcosTask{
	"network-mode/mode-two-networks":    same,
	"network-mode/mode-v6vip-v4only":    same,
	"network-mode/mode-v6vip-hostscope": same,
	"scope/scope-unknown":               same, // its one port is dropped either way
	"scope/scope-twice": func(t dcosTask) dcosTask {
		t.Ports = []dcosPort{{Name: "default", Protocol: "tcp", HostPort: 8080}}
		return t
	},
	"protocol/port-zero-host": func(t dcosTask) dcosTask { t.Ports = nil; return t },
	"health/status-newest-has-no-ip": func(t dcosTask) dcosTask {
		t.TaskIP = []string{"10.0.0.243"}
		return t
	},
	"dns-names/dnsname-12":                  same,
	"event-stream/stream-agent-removed":     same, // a grace of 30 s, then gone
	"event-stream/stream-framework-renamed": func(t dcosTask) dcosTask { t.Framework = "newname"; return t },
}

func same(t dcosTask) dcosTask { return t }

func TestTasksAreThoseOfDCOS(t *testing.T) {
	var cases []dcosCase
	unmarshal(t, outside.Read(t, "conformance", "dcos-net.json"), &cases)
	ran := map[string]int{}
	for _, c := range cases {
		if !strings.HasPrefix(c.Input.Format, "mesos-v1") && c.Group != "fixture-task" {
			continue // what becomes of tasks later on is for other packages
		}
		ran[c.Group]++
		t.Run(c.Name, func(t *testing.T) {
			var expect struct {
				Tasks map[string]dcosTask
				Task  dcosTask
			}
			unmarshal(t, c.Expect, &expect)
			if c.Input.TaskID != "" {
				expect.Tasks = map[string]dcosTask{c.Input.TaskID: expect.Task}
			}
			want := map[string]dcosTask{}
			for id, task := range expect.Tasks {
				task.Ports = slices.DeleteFunc(task.Ports, func(p dcosPort) bool { return p.Name == "" })
				if fix := better[c.Name]; fix != nil && c.Quirk {
					task = fix(task)
				}
				want[id] = task
			}
			text, format := c.document(t)
			snap, err := Decode(t.Context(), bytes.NewReader(text), format, fakeResolve)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]dcosTask{}
			for key, task := range tasksOf(snap) {
				if c.Input.TaskID != "" && c.Input.TaskID != key.ID {
					continue
				}
				// DC/OS lists tasks by id alone, so of two frameworks' tasks
				// with one id it shows the later.
				if _, twice := got[key.ID]; !twice || task.Framework == want[key.ID].Framework {
					got[key.ID] = asDCOS(task)
				}
			}
			if d := cmp.Diff(normal(want), normal(got)); d != "" {
				t.Errorf("%s", d)
			}
			if auto, err := Detect(text); err != nil || format != Auto && auto != format {
				t.Errorf("taken for %q, %v", auto, err)
			}
		})
	}
	for group, least := range map[string]int{
		"vip-label-grammar": 23, "vip-key-variants": 13, "task-labels": 7, "network-mode": 14, "scope": 4, "protocol": 9,
		"task-state": 10, "health": 6, "dns-names": 12, "event-stream": 14, "fixture": 6, "fixture-task": 15,
	} {
		if ran[group] < least {
			t.Errorf("group %s: ran %d cases, want %d", group, ran[group], least)
		}
	}
}

func asDCOS(t *model.Task) dcosTask {
	out := dcosTask{
		AgentIP: t.AgentAddr.String(), Framework: t.Framework, Name: t.DiscoveryName(), State: t.State.String(),
	}
	if t.Health != model.HealthUnknown {
		healthy := t.Health == model.Healthy
		out.Healthy = &healthy
	}
	for _, a := range t.Addrs {
		out.TaskIP = append(out.TaskIP, a.Addr.String())
	}
	for _, p := range t.Ports {
		out.Ports = append(out.Ports, dcosPort{p.Name, p.Proto.String(), p.Number, p.HostPort})
	}
	return out
}

// normal sorts what is a set.
func normal(tasks map[string]dcosTask) map[string]dcosTask {
	for id, t := range tasks {
		slices.Sort(t.TaskIP)
		slices.SortFunc(t.Ports, func(a, b dcosPort) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		if len(t.Ports) == 0 {
			t.Ports = nil
		}
		tasks[id] = t
	}
	return tasks
}
