package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"waggle/model"
)

// runSpec is an app or a pod with its tasks, as it was last read.
type runSpec struct {
	id        string // its path
	pod       bool
	instances []instance
	problems  []model.Problem
}

// readApp reads an app with its tasks. The error is for a document that does not
// say which app it is.
func readApp(raw []byte) (*runSpec, error) {
	var a appDocument
	problems := unmarshal(raw, &a, func() string { return a.ID }, "")
	if a.ID == "" {
		return nil, nameless("app", problems)
	}
	s := a.spec()
	r := &runSpec{id: path(a.ID), problems: problems}
	unready := map[string]bool{}
	for _, c := range a.Readiness {
		unready[c.TaskID] = unready[c.TaskID] || !c.Ready
	}
	for i, raw := range a.Tasks {
		var t taskDocument
		wrong := unmarshal(raw, &t, func() string { return t.ID }, fmt.Sprintf("tasks[%d]", i))
		if t.ID == "" {
			wrong = append(wrong, model.Problem{Task: a.ID, Field: fmt.Sprintf("tasks[%d].id", i), Error: "missing or unreadable"})
		} else {
			one := t.instance(s)
			one.ready = !unready[t.ID]
			r.instances = append(r.instances, one)
		}
		r.problems = append(r.problems, wrong...)
	}
	return r, nil
}

func (t *taskDocument) instance(s *spec) instance {
	i := instance{spec: s, id: t.ID, agentID: t.SlaveID, host: t.Host, zone: model.FaultDomain(t.Region, t.Zone), ports: t.Ports}
	switch {
	case t.State != nil:
		i.state = model.ParseTaskState(*t.State)
	case t.StartedAt != "":
		i.state = model.Running
	}
	var texts []string
	for _, a := range t.IPAddresses {
		texts = append(texts, a.IPAddress)
	}
	i.addrs = addresses(texts, s.network())
	i.health, i.spoken = verdict(s.checks, t.HealthCheckResults)
	return i
}

// network is the one that addresses are in; with several Marathon does not say
// which has which.
func (s *spec) network() string {
	if len(s.networks) == 1 && !s.host {
		return s.networks[0]
	}
	return ""
}

// verdict is healthy where every check has found the task alive. A check that
// has not spoken counts as failed, and spoken says whether one that has did.
func verdict(checks int, results []*healthResult) (h model.Health, spoken bool) {
	alive, failed := 0, false
	for _, r := range results {
		switch {
		case r == nil:
		case r.Alive:
			alive++
		case r.ConsecutiveFailures > 0 || r.LastFailure != "":
			failed = true
		}
	}
	switch {
	case failed:
		return model.Unhealthy, true
	case checks == 0 && alive == 0:
		return model.HealthUnknown, true
	case alive < checks:
		return model.Unhealthy, false
	}
	return model.Healthy, true
}

// readPod reads a pod's status. The error is for one that does not say which pod
// it is of.
func readPod(raw []byte) (*runSpec, error) {
	var p podDocument
	problems := unmarshal(raw, &p, func() string { return p.ID }, "")
	if p.ID == "" {
		return nil, nameless("pod", problems)
	}
	r := &runSpec{id: path(p.ID), pod: true, problems: problems}
	specs := p.specs()
	for n, raw := range p.Instances {
		var in podInstance
		field := fmt.Sprintf("instances[%d]", n)
		r.problems = append(r.problems, unmarshal(raw, &in, func() string { return in.ID }, field)...)
		for i := range in.Containers {
			c := &in.Containers[i]
			s := specs[c.Name]
			if s == nil {
				// Of an older version of the pod: its name and state are known.
				s = &spec{name: c.Name, discovery: reversed(p.ID)}
			}
			if c.ContainerID == "" {
				continue // not launched yet
			}
			r.instances = append(r.instances, c.instance(s, &in))
		}
	}
	return r, nil
}

func (c *podContainer) instance(s *spec, in *podInstance) instance {
	i := instance{
		spec: s, id: c.ContainerID, agentID: in.AgentID, host: in.AgentHostname, zone: model.FaultDomain(in.AgentRegion, in.AgentZone),
		state: model.ParseTaskState(c.Status), ready: true, spoken: true,
	}
	for _, n := range in.Networks {
		i.addrs = append(i.addrs, addresses(n.Addresses, n.Name)...)
	}
	given := map[string]int64{}
	for _, e := range c.Endpoints {
		given[e.Name] = e.AllocatedHostPort
	}
	for _, p := range s.ports {
		if p.takes {
			i.ports = append(i.ports, given[p.name])
		}
	}
	if s.checks == 0 {
		return i
	}
	i.health, i.spoken = model.Unhealthy, false
	for _, cond := range c.Conditions {
		if cond.Name == "healthy" {
			if i.spoken = true; cond.Value == "true" {
				i.health = model.Healthy
			}
		}
	}
	return i
}

func path(id string) string { return "/" + strings.Trim(id, "/") }

func nameless(kind string, problems []model.Problem) error {
	err := errors.New("id: missing or unreadable")
	for _, p := range problems {
		err = fmt.Errorf("%w: %s", err, p.Error)
	}
	return fmt.Errorf("%s: %w", kind, err)
}

// documents reads the answer to /v2/apps, /v2/apps/{id}, /v2/groups or
// /v2/pods/::status, and gives each app and pod to each, one after
// the other: an answer may have hundreds of megabytes.
func documents(r io.Reader, each func(raw []byte, pod bool)) error {
	dec := json.NewDecoder(r)
	first, err := dec.Token()
	switch {
	case err != nil:
		return err
	case first == json.Delim('['):
		for dec.More() {
			var raw json.RawMessage
			if err := dec.Decode(&raw); err != nil {
				return err
			}
			each(raw, isPod(raw))
		}
		_, err = dec.Token()
	case first == json.Delim('{'):
		err = group(dec, each)
	default:
		err = errors.New("neither an object nor an array")
	}
	return err
}

func isPod(raw []byte) bool {
	var keys struct {
		Spec, Instances json.RawMessage
	}
	return json.Unmarshal(raw, &keys) == nil && keys.Spec != nil
}

// group reads the rest of an object that holds apps, pods and groups.
func group(dec *json.Decoder, each func(raw []byte, pod bool)) error {
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		switch key {
		case "apps", "pods":
			err = list(dec, func() error {
				var raw json.RawMessage
				if err := dec.Decode(&raw); err != nil {
					return err
				}
				each(raw, key == "pods")
				return nil
			})
		case "groups":
			err = list(dec, func() error {
				if open, err := dec.Token(); err != nil || open != json.Delim('{') {
					return errors.Join(err, errors.New("a group is no object"))
				}
				return group(dec, each)
			})
		default:
			var raw json.RawMessage
			if err = dec.Decode(&raw); key == "app" && err == nil {
				each(raw, false)
			}
		}
		if err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

// list reads an array, or null.
func list(dec *json.Decoder, item func() error) error {
	open, err := dec.Token()
	if err != nil || open == nil {
		return err
	}
	if open != json.Delim('[') {
		return errors.New("no array where one should be")
	}
	for dec.More() {
		if err := item(); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}
