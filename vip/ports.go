package vip

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"waggle/model"
)

// Port is a port of a task with the VIPs asked for on it.
type Port struct {
	model.Port
	// VIPs are the values of the port's VIP labels as written, those that
	// cannot be read included. The scheme of a task label is left out.
	VIPs []string

	labels []label // those that can be read
}

// shared reports whether the labels that can be read ask for more than one service.
func (p Port) shared() bool {
	return slices.ContainsFunc(p.labels, func(l label) bool {
		first := p.labels[0]
		return l.name != first.name || l.addr != first.addr || l.port != first.port
	})
}

// Ports returns t.Ports in their order with the VIPs of their labels and of the
// task's own vip_portN labels; those append a port, without a name, where
// t.Ports has none with that number. Each label that cannot be read becomes a
// Problem and costs nothing else. The Labels of the ports are shared with t.
func Ports(t *model.Task) ([]Port, []model.Problem) {
	r := reader{task: t}
	for _, p := range t.Ports {
		r.portLabels(p)
	}
	for _, l := range t.Labels {
		r.taskLabel(l)
	}
	return r.ports, r.problems
}

// reader collects what the labels of one task say.
type reader struct {
	task     *model.Task
	ports    []Port
	problems []model.Problem
}

func (r *reader) problem(l model.Label, err error) {
	r.problems = append(r.problems, model.Problem{
		Task: r.task.Key.ID, Field: l.Key, Value: l.Value, Error: err.Error(),
	})
}

// add gives p the VIP that value asks for; l is the label it comes from.
func (r *reader) add(p *Port, l model.Label, value string) {
	p.VIPs = append(p.VIPs, value)
	read, err := parseLabel(value)
	if err != nil {
		r.problem(l, err)
		return
	}
	if read.name != "" && losesLetters(read.left) {
		r.problem(l, fmt.Errorf("served as %s: only ASCII letters and digits can be in a name", read.name))
	}
	read.key, read.value = l.Key, l.Value
	p.labels = append(p.labels, read)
}

func (r *reader) portLabels(port model.Port) {
	p := Port{Port: port}
	var options []model.Label
	for _, l := range port.Labels {
		switch _, option, ok := parseKey(l.Key); {
		case !ok:
		case option != "":
			options = append(options, l)
		default:
			r.add(&p, l, l.Value)
		}
	}
	for _, l := range options {
		if err := p.setOption(l); err != nil {
			r.problem(l, err)
		}
	}
	r.ports = append(r.ports, p)
}

// setOption applies a label that stands beside a VIP label of p.
func (p *Port) setOption(l model.Label) error {
	base, option, _ := parseKey(l.Key)
	besides := func(key string) bool { return strings.EqualFold(key, base) }
	if !slices.ContainsFunc(p.Port.Labels, func(l model.Label) bool { return besides(l.Key) }) {
		return fmt.Errorf("there is no VIP label %s on this port", base)
	}
	for i := range p.labels {
		if !besides(p.labels[i].key) {
			continue
		}
		if err := p.labels[i].setOption(option, l.Value); err != nil {
			return err
		}
	}
	return nil
}

func (l *label) setOption(option, value string) (err error) {
	if option == "WEIGHT" {
		weight, err := parseWeight(value)
		if err == nil {
			l.weight = weight
		}
		return err
	}
	var o Options
	if l.options != nil {
		o = *l.options
	}
	if err := o.Set(option, value); err != nil {
		return err
	}
	l.options = &o
	return nil
}

// taskLabel reads a label of the task of the form vip_port1 = udp://name:53. The
// index counts through the task's port resources.
func (r *reader) taskLabel(l model.Label) {
	const prefix = "vip_port"
	if len(l.Key) <= len(prefix) || !strings.EqualFold(l.Key[:len(prefix)], prefix) {
		return
	}
	index, badIndex := strconv.ParseUint(l.Key[len(prefix):], 10, 32)
	scheme, value, _ := strings.Cut(l.Value, "://")
	proto, badScheme := model.ParseProto(scheme)
	switch {
	case badIndex != nil && badScheme != nil:
		return // someone else's label, like vip_portal
	case badIndex != nil:
		r.problem(l, errors.New("what follows vip_port in the key is not the index of a port resource"))
		return
	case badScheme != nil:
		r.problem(l, errors.New("value does not start with tcp:// or udp://"))
		return
	}
	number, ok := resourcePort(r.task.Resources, index)
	if !ok {
		r.problem(l, fmt.Errorf("the task has no port resource of index %d", index))
		return
	}
	r.add(r.port(proto, number), l, value)
}

// resourcePort returns the port of that index in the ranges written out.
func resourcePort(ranges []model.PortRange, index uint64) (port uint16, ok bool) {
	for _, r := range ranges {
		if r.Last < r.First {
			continue
		}
		size := uint64(r.Last-r.First) + 1
		if index < size {
			port = r.First + uint16(index)
			return port, port != 0
		}
		index -= size
	}
	return 0, false
}

// port returns the task's port behind a port of the agent, a new one where
// discovery lists none.
func (r *reader) port(proto model.Proto, number uint16) *Port {
	want := model.Port{Proto: proto, HostPort: number}
	if r.task.HostNetwork() {
		want.Number, want.HostPort = number, 0
	}
	for i := range r.ports {
		p := &r.ports[i]
		if p.Proto == proto && p.HostPort == want.HostPort && (want.HostPort != 0 || p.Number == number) {
			return p
		}
	}
	for _, m := range r.task.Mappings {
		if m.Proto == proto && m.HostPort == want.HostPort && want.HostPort != 0 {
			want.Number = m.ContainerPort
			break
		}
	}
	r.ports = append(r.ports, Port{Port: want})
	return &r.ports[len(r.ports)-1]
}
