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

type v0Agent struct {
	ID       string `json:"id"`
	Hostname string `json:"hostname"`
	Port     uint16 `json:"port"`
	PID      string `json:"pid"`
	Active   *bool  `json:"active"`
	Domain   domain `json:"domain"`
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
	Statuses    []v0Status `json:"statuses"`
	Labels      []v1Label  `json:"labels"`
	Discovery   *discovery `json:"discovery"`
	Container   *container `json:"container"`
	HealthCheck present    `json:"health_check"`
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
		"slaves":           {each: w.addOldAgent},
		"recovered_slaves": {each: w.addOldRecovered},
		"frameworks":       {items: w.oldFrameworks()},
	}
}

func (w *world) addOldAgent(raw json.RawMessage) {
	var a v0Agent
	err := readInto(raw, &a)
	w.putAgent(model.Agent{
		ID: a.ID, Hostname: a.Hostname, Port: a.Port, Active: a.Active == nil || *a.Active, Zone: a.Domain.zone(),
	}, a.PID, err)
}

func (w *world) addOldRecovered(raw json.RawMessage) {
	var a v0Agent
	if err := readInto(raw, &a); w.noted("recovered agent", a.ID, err) {
		w.recovered[a.ID] = struct{}{}
	}
}

// oldFrameworks returns what is read of one framework, whose tasks may be most
// of the document: they are taken one by one.
func (w *world) oldFrameworks() *visit {
	var f model.Framework
	var pid string
	var err error
	text := func(key string, into *string) visit {
		return visit{value: func(raw json.RawMessage) { err = errors.Join(err, readField(key, raw, into)) }}
	}
	task := func(raw json.RawMessage) { w.addOldTask(raw, f.ID) }
	return &visit{
		before: func() { f, pid, err = model.Framework{}, "", nil },
		object: map[string]visit{
			"id": text("id", &f.ID), "name": text("name", &f.Name), "pid": text("pid", &pid), "hostname": text("hostname", &f.Hostname),
			"active": {value: func(raw json.RawMessage) { err = errors.Join(err, readField("active", raw, &f.Active)) }},
			"tasks":  {each: task}, "unreachable_tasks": {each: task},
		},
		after: func() { w.putFramework(f, pid, err) },
	}
}

// addOldTask takes a task that is listed in a framework, whose id is empty where
// that comes later.
func (w *world) addOldTask(raw json.RawMessage, framework string) {
	r := oldRecord(raw, framework)
	// Some frameworks gave one id to tasks of several apps; each counts.
	if same := w.tasks.get(r.task.Key); same != nil && same.app() != r.app() {
		w.tasks.remove(r.task.Key)
	}
	w.put(r)
}

// oldRecord reads one task of /state, whose framework is the one it is listed
// in, or what it says itself where that is not known yet.
func oldRecord(raw json.RawMessage, framework string) *record {
	var t v0Task
	err := readInto(raw, &t)
	if framework == "" {
		framework = t.FrameworkID
	}
	ranges, rangesErr := parseRanges(t.Resources.Ports)
	r := &record{
		task: &model.Task{
			Key:       model.TaskKey{FrameworkID: framework, ID: t.ID},
			Name:      t.Name,
			AgentID:   t.AgentID,
			State:     model.ParseTaskState(t.State),
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
	r.describe(bool(t.HealthCheck), statuses, err, rangesErr)
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
