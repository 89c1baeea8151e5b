package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"waggle/model"
)

// document is the shape of a file. Its entries are decoded one by one, so that
// a bad one costs itself.
type document struct {
	Services []yaml.Node `yaml:"services"`
	Tasks    []yaml.Node `yaml:"tasks"`
}

// service is one instance of an app at each of its addresses.
type service struct {
	Common    common   `yaml:",inline"`
	Addresses []string `yaml:"addresses"`
}

// task is one instance with all its addresses.
type task struct {
	Common    common   `yaml:",inline"`
	ID        string   `yaml:"id"`
	Addresses []string `yaml:"addresses"`
	Agent     string   `yaml:"agent"` // default the first of Addresses
}

type common struct {
	Name      string            `yaml:"name"`
	Framework string            `yaml:"framework"` // default "static"
	Health    string            `yaml:"health"`    // healthy, unhealthy, or nothing for unchecked
	Ports     []port            `yaml:"ports"`
	Labels    map[string]string `yaml:"labels"`
}

type port struct {
	Name     string            `yaml:"name"`
	Port     int64             `yaml:"port"`
	HostPort int64             `yaml:"host_port"` // port of the agent that leads there
	Protocol string            `yaml:"protocol"`  // default "tcp"
	VIP      string            `yaml:"vip"`       // short for the label VIP_0
	Labels   map[string]string `yaml:"labels"`
}

const defaultFramework = "static"

// parsed is what one file says.
type parsed struct {
	tasks    []*model.Task
	problems []model.Problem
}

// parse reads one file; name is for problems. It returns an error, which says
// the line, if the file as a whole makes no sense, and a Problem for each entry
// that does not.
func parse(name string, text []byte) (*parsed, error) {
	var root yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&root); errors.Is(err, io.EOF) {
		return nil, errors.New("there is no document in it; an empty one is written {}")
	} else if err != nil {
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	top := root.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: services or tasks expected at the top", top.Line)
	}
	var doc document
	if err := top.Decode(&doc); err != nil {
		return nil, err
	}
	p := &parsed{}
	if err := unknownKeys(top, reflect.TypeFor[document]()); err != nil {
		p.problem("", name, top.Line, err)
	}
	for i := range doc.Services {
		n := &doc.Services[i]
		var s service
		if err := decode(n, &s); err != nil {
			p.problem(s.Common.Name, name, n.Line, err)
			continue
		}
		for _, a := range s.Addresses {
			p.add(name, n.Line, &s.Common, s.Common.Name+"."+a, []string{a}, a)
		}
		if len(s.Addresses) == 0 {
			p.problem(s.Common.Name, name, n.Line, errors.New("addresses: there are none"))
		}
	}
	for i := range doc.Tasks {
		n := &doc.Tasks[i]
		var t task
		if err := decode(n, &t); err != nil {
			p.problem(t.ID, name, n.Line, err)
			continue
		}
		p.add(name, n.Line, &t.Common, t.ID, t.Addresses, t.Agent)
	}
	return p, nil
}

// decode reads one entry strictly.
func decode[T any](n *yaml.Node, v *T) error {
	return errors.Join(n.Decode(v), unknownKeys(n, reflect.TypeFor[T]()))
}

// unknownKeys returns an error for the first key of n that type t, or what it
// is made of, does not have.
func unknownKeys(n *yaml.Node, t reflect.Type) error {
	switch {
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for _, e := range n.Content {
			if err := unknownKeys(e, t.Elem()); err != nil {
				return err
			}
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct && t != reflect.TypeFor[yaml.Node]():
		keys := map[string]reflect.Type{}
		for _, f := range reflect.VisibleFields(t) {
			if name := f.Tag.Get("yaml"); name == ",inline" {
				for _, g := range reflect.VisibleFields(f.Type) {
					keys[g.Tag.Get("yaml")] = g.Type
				}
			} else {
				keys[name] = f.Type
			}
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			of, ok := keys[n.Content[i].Value]
			if !ok {
				return fmt.Errorf("line %d: unknown key %q", n.Content[i].Line, n.Content[i].Value)
			}
			if err := unknownKeys(n.Content[i+1], of); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *parsed) problem(id, name string, line int, err error) {
	p.problems = append(p.problems, model.Problem{
		Task: id, Field: fmt.Sprintf("%s line %d", name, line), Error: strings.ReplaceAll(err.Error(), "\n", "; "),
	})
}

// add makes a task, or a Problem if it cannot be one.
func (p *parsed) add(name string, line int, c *common, id string, addrs []string, agent string) {
	t, err := c.task(id, addrs, agent)
	if err != nil {
		p.problem(id, name, line, err)
		return
	}
	ports, problems := model.JoinPorts(t)
	t.Ports = ports
	for _, pr := range problems {
		pr.Field = fmt.Sprintf("%s line %d %s", name, line, pr.Field)
		p.problems = append(p.problems, pr)
	}
	p.tasks = append(p.tasks, t)
}

func (c *common) task(id string, addrs []string, agent string) (*model.Task, error) {
	framework := c.Framework
	if framework == "" {
		framework = defaultFramework
	}
	switch {
	case c.Name == "":
		return nil, errors.New("name: it is missing")
	case id == "":
		return nil, errors.New("id: it is missing")
	case len(addrs) == 0:
		return nil, errors.New("addresses: there are none")
	}
	t := &model.Task{
		Key:  model.TaskKey{FrameworkID: frameworkID(framework), ID: id},
		Name: c.Name, Framework: framework, AgentID: "file", State: model.Running,
		Labels: model.SortedLabels(c.Labels), Discovery: &model.Discovery{Name: c.Name},
	}
	switch c.Health {
	case "":
	case "healthy":
		t.Health = model.Healthy
	case "unhealthy":
		t.Health = model.Unhealthy
	default:
		return nil, fmt.Errorf("health: %q is neither healthy nor unhealthy", c.Health)
	}
	for _, text := range addrs {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("addresses: %w", err)
		}
		t.Addrs = append(t.Addrs, model.Address{Addr: a.Unmap()})
	}
	t.AgentAddr = t.Addrs[0].Addr
	if agent != "" {
		a, err := netip.ParseAddr(agent)
		if err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
		t.AgentAddr = a.Unmap()
	}
	return t, c.setPorts(t)
}

func (c *common) setPorts(t *model.Task) error {
	for i, p := range c.Ports {
		d := model.DiscoveryPort{Number: p.Port, Name: p.Name, Protocol: p.Protocol, Labels: model.SortedLabels(p.Labels)}
		if d.Protocol == "" {
			d.Protocol = "tcp"
		}
		if p.VIP != "" {
			d.Labels = append([]model.Label{{Key: "VIP_0", Value: p.VIP}}, d.Labels...)
		}
		if d.Number == 0 {
			return fmt.Errorf("ports[%d]: port: it is missing", i)
		}
		if p.HostPort != 0 {
			proto, err := model.ParseProto(d.Protocol)
			if err != nil || p.HostPort < 1 || p.HostPort > 65535 || p.Port < 1 || p.Port > 65535 {
				return errors.Join(err, fmt.Errorf("ports[%d]: port %d, host_port %d: both must be within 1 to 65535", i, p.Port, p.HostPort))
			}
			t.Mappings = append(t.Mappings, model.PortMapping{HostPort: uint16(p.HostPort), ContainerPort: uint16(p.Port), Proto: proto})
		}
		t.Discovery.Ports = append(t.Discovery.Ports, d)
	}
	return nil
}

// frameworkID keeps what is written in files apart from a scheduler's tasks of
// an equal framework name: they share names and VIPs, but no task is another's.
func frameworkID(name string) string { return "file:" + name }
