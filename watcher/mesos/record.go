package mesos

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"waggle/model"
)

// record is what we know of one task. Updates bring neither name nor ports, so
// what the description said is kept.
type record struct {
	// task is what the task's description and statuses say, joined with what
	// its agent and framework add. It is ours alone, and may be changed, while
	// agent and framework are nil; after that it is published and only copied.
	task      *model.Task
	agent     *model.Agent
	framework *model.Framework

	held   bool     // as the last Snapshot had it, and not told of by this master
	mapped bool     // task.Mappings are of the description, which beats statuses
	bad    *trouble // nil for nearly every task
}

// trouble is what was wrong with a task.
type trouble struct {
	described []error // its description; kept, since it is not said again
	updated   error   // its last update
	joined    []model.Problem
}

// note changes what was wrong, and keeps nothing where nothing was.
func (r *record) note(f func(*trouble)) {
	var b trouble
	if r.bad != nil {
		b = *r.bad
	}
	f(&b)
	if r.bad = &b; b.described == nil && b.updated == nil && b.joined == nil {
		r.bad = nil
	}
}

// status is one report on a task, as both APIs tell it.
type status struct {
	state     string
	timestamp float64
	healthy   any // a bool, nil, or wrong
	container *containerStatus
	labels    []v1Label
}

// scratch is memory for reading one task after the other: what a task is read
// into is most of the garbage of a picture.
type scratch struct {
	task     v1Task
	statuses []status
}

// clean empties the task and keeps the memory of its lists. encoding/json does
// not clear what it finds in a list.
func (s *scratch) clean() *v1Task {
	t := &s.task
	resources, statuses, labels := t.Resources[:cap(t.Resources)], t.Statuses[:cap(t.Statuses)], t.Labels.Labels[:cap(t.Labels.Labels)]
	for i := range resources {
		ranges := resources[i].Ranges.Range[:cap(resources[i].Ranges.Range)]
		clear(ranges)
		resources[i] = v1Resource{}
		resources[i].Ranges.Range = ranges[:0]
	}
	clear(statuses)
	clear(labels)
	clear(s.statuses)
	*t = v1Task{Resources: resources[:0], Statuses: statuses[:0]}
	t.Labels.Labels = labels[:0]
	return t
}

// newRecord reads one task of the v1 API. Nothing of it stays in s.
func newRecord(raw json.RawMessage, s *scratch) *record {
	t := s.clean()
	err := readInto(raw, t)
	r := &record{
		task: &model.Task{
			Key:       model.TaskKey{FrameworkID: t.FrameworkID.Value, ID: t.TaskID.Value},
			Name:      t.Name,
			AgentID:   t.AgentID.Value,
			State:     model.ParseTaskState(t.State),
			Discovery: t.Discovery.model(),
			Mappings:  t.Container.mappings(),
			Resources: t.ranges(),
			Labels:    modelLabels(t.Labels.Labels),
		},
	}
	s.statuses = s.statuses[:0]
	for _, one := range t.Statuses {
		s.statuses = append(s.statuses, one.status())
	}
	r.describe(bool(t.HealthCheck), s.statuses, err)
	return r
}

func (t *v1Task) ranges() []model.PortRange {
	var out []model.PortRange
	for _, res := range t.Resources {
		if res.Name != "ports" {
			continue
		}
		for _, p := range res.Ranges.Range {
			out = append(out, model.PortRange{First: p.Begin, Last: p.End})
		}
	}
	return slices.Clip(out)
}

func (s v1Status) status() status {
	return status{s.State, s.Timestamp, s.Healthy, s.ContainerStatus, s.Labels.Labels}
}

// describe completes the description with its statuses, the oldest first, and
// with the errors of reading it, which may be nil. Of statuses with one
// timestamp the first listed counts, and one from before the epoch is none, as
// in mesos-dns. A task whose health check has not spoken yet is unhealthy.
func (r *record) describe(checked bool, list []status, errs ...error) {
	r.mapped = len(r.task.Mappings) > 0
	if checked {
		r.task.Health = model.Unhealthy
	}
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b status) int { return cmp.Compare(a.timestamp, b.timestamp) })
	for _, s := range list {
		if s.timestamp > -1 {
			errs = append(errs, r.take(s))
		}
	}
	for _, err := range errs {
		if err != nil {
			r.note(func(b *trouble) { b.described = append(b.described, err) })
		}
	}
}

// missing returns an error if the task cannot be told from others or belongs
// nowhere, so that there is no task to show a problem of.
func (r *record) missing() error {
	var field string
	switch t := r.task; {
	case t.Key.ID == "":
		field = "task_id"
	case t.Key.FrameworkID == "":
		field = "framework_id"
	case t.AgentID == "":
		field = "agent_id"
	default:
		return nil
	}
	errs := []error{errors.New("missing or unreadable")}
	if r.bad != nil {
		errs = append(errs, r.bad.described...)
	}
	return &fieldError{field, "", errors.Join(errs...)}
}

// edit returns the task for changing.
func (r *record) edit() *model.Task {
	if r.agent != nil {
		t := *r.task
		r.task, r.agent, r.framework = &t, nil, nil
	}
	return r.task
}

// take takes over what one status says; what it does not say stays. Addresses
// count only from a running task: a starting one may show its agent's.
func (r *record) take(s status) error {
	t := r.edit()
	var err error
	switch healthy := s.healthy.(type) {
	case nil:
	case bool:
		t.Health = model.Unhealthy
		if healthy {
			t.Health = model.Healthy
		}
	default:
		err = &fieldError{"status.healthy", "", errors.New("no bool")}
	}
	if s.state != "TASK_RUNNING" {
		return err
	}
	a := s.container.addresses()
	if t.AddrsKept = len(a) == 0 && len(t.Addrs) > 0; len(a) > 0 {
		t.Addrs = a
	}
	if m := s.container.mappings(); len(m) > 0 && !r.mapped {
		t.Mappings = m
	}
	if l := labelAddrs(s.labels); l != nil {
		t.LabelAddrs = l
	}
	return err
}

func labelAddrs(labels []v1Label) *model.LabelAddrs {
	var out model.LabelAddrs
	for _, l := range labels {
		list := &out.Docker
		switch l.Key {
		case "Docker.NetworkSettings.IPAddress":
		case "MesosContainerizer.NetworkSettings.IPAddress":
			list = &out.Mesos
		default:
			continue
		}
		if a, err := netip.ParseAddr(l.Value); err == nil {
			*list = append(*list, a.Unmap())
		}
	}
	if out.Docker == nil && out.Mesos == nil {
		return nil
	}
	return &out
}

// join adds what agent and framework say.
func (r *record) join(agent *model.Agent, framework *model.Framework) {
	if r.agent == agent && r.framework == framework {
		return
	}
	t := r.edit()
	t.Framework, t.AgentAddr = framework.Name, agent.Addr
	ports, problems := model.JoinPorts(t)
	t.Ports = ports
	if r.bad != nil || problems != nil {
		r.note(func(b *trouble) { b.joined = problems })
	}
	r.agent, r.framework = agent, framework
}

// share makes t hold the very parts of like that equal its own: the instances
// of an app are described alike, and there may be thousands.
func share(t, like *model.Task) {
	if t.Name == like.Name {
		t.Name = like.Name
	}
	for i := range t.Addrs {
		if len(like.Addrs) > 0 && t.Addrs[i].Network == like.Addrs[0].Network {
			t.Addrs[i].Network = like.Addrs[0].Network
		}
	}
	if reflect.DeepEqual(t.Discovery, like.Discovery) {
		t.Discovery = like.Discovery
	}
	if slices.Equal(t.Labels, like.Labels) {
		t.Labels = like.Labels
	}
	if slices.Equal(t.Mappings, like.Mappings) {
		t.Mappings = like.Mappings
	}
	if reflect.DeepEqual(t.Ports, like.Ports) {
		t.Ports = like.Ports
	}
}

// problems adds the task's problems to list.
func (r *record) problems(list []model.Problem) []model.Problem {
	if r.bad == nil {
		return list
	}
	for _, err := range r.bad.described {
		list = append(list, problem(r.task.Key.ID, err))
	}
	if r.bad.updated != nil {
		list = append(list, problem(r.task.Key.ID, r.bad.updated))
	}
	return append(list, r.bad.joined...)
}

func (r *record) app() model.AppKey {
	return model.AppKey{FrameworkID: r.task.Key.FrameworkID, Name: r.task.DiscoveryName()}
}

func byID(r *record, id string) int { return strings.Compare(r.task.Key.ID, id) }
