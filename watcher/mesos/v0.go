package mesos

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"waggle/model"
)

// The shapes of /state where they differ from the v1 API.

type v0Framework struct {
	ID               string            `json:"id"`
	Name             string            `json:"name"`
	PID              string            `json:"pid"`
	Hostname         string            `json:"hostname"`
	Active           bool              `json:"active"`
	Tasks            []json.RawMessage `json:"tasks"`
	UnreachableTasks []json.RawMessage `json:"unreachable_tasks"`
}

type v0Agent struct {
	ID       string `json:"id"`
	Hostname string `json:"hostname"`
	Port     uint16 `json:"port"`
	PID      string `json:"pid"`
	Active   *bool  `json:"active"`
}

type v0Task struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	FrameworkID string `json:"framework_id"`
	AgentID     string `json:"slave_id"`
	State       string `json:"state"`
	Resources   struct {
		Ports string `json:"ports"`
	} `json:"resources"`
	Statuses    []v0Status       `json:"statuses"`
	Labels      []v1Label        `json:"labels"`
	Discovery   *discovery       `json:"discovery"`
	Container   *container       `json:"container"`
	HealthCheck *json.RawMessage `json:"health_check"`
}

type v0Status struct {
	State           string           `json:"state"`
	Timestamp       float64          `json:"timestamp"`
	Healthy         any              `json:"healthy"`
	Labels          []v1Label        `json:"labels"`
	ContainerStatus *containerStatus `json:"container_status"`
}

// statePlan returns what of a /state document is read into w.
func (w *world) statePlan(leader func(netip.AddrPort)) map[string]visit {
	return map[string]visit{
		"leader": {value: func(raw json.RawMessage) {
			var pid string
			if err := readInto(raw, &pid); err != nil {
				w.wrong("", &fieldError{"leader", string(raw), err})
				return
			}
			host, port := parsePID(pid)
			if a, err := netip.ParseAddr(host); err == nil {
				leader(netip.AddrPortFrom(a.Unmap(), port))
			}
		}},
		"slaves":     {each: w.addOldAgent},
		"frameworks": {each: w.addOldFramework},
	}
}

func (w *world) addOldAgent(raw json.RawMessage) {
	var a v0Agent
	err := readInto(raw, &a)
	w.putAgent(model.Agent{ID: a.ID, Hostname: a.Hostname, Port: a.Port, Active: a.Active == nil || *a.Active}, a.PID, err)
}

func (w *world) addOldFramework(raw json.RawMessage) {
	var f v0Framework
	err := readInto(raw, &f)
	w.putFramework(model.Framework{ID: f.ID, Name: f.Name, Hostname: f.Hostname, Active: f.Active}, f.PID, err)
	for _, raw := range append(f.Tasks, f.UnreachableTasks...) {
		r := oldRecord(raw, f.ID)
		// Some frameworks gave one id to tasks of several apps; each counts.
		if same := w.tasks[r.task.Key]; same != nil && same.app() != r.app() {
			delete(w.tasks, r.task.Key)
		}
		w.put(r)
	}
}

// oldRecord reads one task of /state, whose framework is the one it is listed
// in.
func oldRecord(raw json.RawMessage, framework string) *record {
	var t v0Task
	err := readInto(raw, &t)
	ranges, rangesErr := parseRanges(t.Resources.Ports)
	r := &record{
		task: &model.Task{
			Key:       model.TaskKey{FrameworkID: framework, ID: t.ID},
			Name:      t.Name,
			AgentID:   t.AgentID,
			State:     parseState(t.State),
			Discovery: t.Discovery.model(),
			Mappings:  t.Container.mappings(),
			Resources: ranges,
			Labels:    modelLabels(t.Labels),
		},
	}
	statuses := make([]status, len(t.Statuses))
	for i, s := range t.Statuses {
		statuses[i] = status{s.State, s.Timestamp, s.Healthy, s.ContainerStatus, s.Labels}
	}
	r.describe(t.HealthCheck != nil, statuses, err, rangesErr)
	return r
}

// parseRanges reads "[31000-31001, 31005-31005]". Parts that are no range are
// left out and named in the error; an inverted range is empty.
func parseRanges(text string) ([]model.PortRange, error) {
	_, inner, _ := strings.Cut(text, "[")
	inner, _, _ = strings.Cut(inner, "]")
	var out []model.PortRange
	var errs []error
	for part := range strings.SplitSeq(inner, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		from, to, _ := strings.Cut(part, "-")
		first, err1 := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
		last, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
		if err := errors.Join(err1, err2); err != nil {
			errs = append(errs, fmt.Errorf("%q is no range of ports", part))
			continue
		}
		if first <= last {
			out = append(out, model.PortRange{First: uint16(first), Last: uint16(last)})
		}
	}
	if errs != nil {
		return out, &fieldError{"resources.ports", text, errors.Join(errs...)}
	}
	return out, nil
}
