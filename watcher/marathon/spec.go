package marathon

import (
	"cmp"
	"slices"
	"strings"

	"waggle/model"
)

// spec is what the tasks of an app, or of a container of a pod, have in common.
type spec struct {
	name      string // of a task
	discovery string // the name it is found by: the path reversed
	host      bool   // it shares the agent's network
	networks  []string
	ports     []port
	labels    []model.Label
	checks    int // health checks whose verdicts Marathon has
}

// port is one port of a spec.
type port struct {
	name      string
	protocols []string
	number    int64 // in the container; 0: the one of the agent
	takes     bool  // a port of the agent
	service   uint16
	networks  []string // which serve it; empty means all of the spec's
	labels    []model.Label
}

// instance is a task as Marathon tells of it.
type instance struct {
	spec    *spec
	id      string
	agentID string
	host    string // the agent's name or address
	zone    string
	state   model.TaskState
	health  model.Health
	spoken  bool // a check has given that verdict, not the lack of one
	ready   bool // or nobody asks
	addrs   []model.Address
	ports   []int64 // of the agent, one for each port of the spec that takes one; 0 where there is none
}

// spec reads what the app's tasks have in common.
func (a *appDocument) spec() *spec {
	s := &spec{name: reversed(a.ID), discovery: reversed(a.ID), labels: model.SortedLabels(a.Labels), checks: len(a.HealthChecks)}
	mode := a.mode()
	s.host = mode == modeHost
	for _, n := range a.networks() {
		if n.Name != "" {
			s.networks = append(s.networks, n.Name)
		}
	}
	if s.host {
		for _, d := range a.definitions() {
			s.ports = append(s.ports, port{
				name: d.Name, protocols: protocols(d.Protocol), takes: true, service: servicePort(d.Port), labels: model.SortedLabels(d.Labels),
			})
		}
		return s
	}
	for _, m := range a.mappings() {
		s.ports = append(s.ports, port{
			name: m.Name, protocols: protocols(m.Protocol), number: m.ContainerPort, takes: m.HostPort != nil || mode == modeBridge,
			service: servicePort(m.ServicePort), networks: m.NetworkNames, labels: model.SortedLabels(m.Labels),
		})
	}
	return s
}

// The modes a network may have.
const (
	modeHost      = "host"
	modeBridge    = "container/bridge"
	modeContainer = "container"
)

// networks returns the app's networks in the form of 1.5. None is the host's.
func (a *appDocument) networks() []network {
	switch {
	case len(a.Networks) > 0:
		return a.Networks
	case a.Container != nil && a.Container.Docker != nil && a.Container.Docker.Network == "BRIDGE":
		return []network{{Mode: modeBridge}}
	case a.IPAddress != nil:
		return []network{{Mode: modeContainer, Name: a.IPAddress.NetworkName}}
	case a.Container != nil && a.Container.Docker != nil && a.Container.Docker.Network == "USER":
		return []network{{Mode: modeContainer}}
	}
	return nil
}

// mode is that of all networks, which are never mixed.
func (a *appDocument) mode() string {
	if n := a.networks(); len(n) > 0 {
		return cmp.Or(n[0].Mode, modeContainer)
	}
	return modeHost
}

func (a *appDocument) mappings() []portMapping {
	if c := a.Container; c != nil {
		if len(c.PortMappings) > 0 {
			return c.PortMappings
		}
		if c.Docker != nil && len(c.Docker.PortMappings) > 0 {
			return c.Docker.PortMappings
		}
	}
	var out []portMapping
	if a.IPAddress != nil {
		for _, p := range a.IPAddress.Discovery.Ports {
			out = append(out, portMapping{ContainerPort: p.Number, Name: p.Name, Protocol: p.Protocol, Labels: p.Labels})
		}
	}
	return out
}

func (a *appDocument) definitions() []portDefinition {
	if a.PortDefinitions != nil {
		return a.PortDefinitions
	}
	var out []portDefinition
	for _, p := range a.Ports {
		out = append(out, portDefinition{Port: p})
	}
	return out
}

// specs reads what the tasks of each of the pod's containers have in common, by
// the container's name.
func (p *podDocument) specs() map[string]*spec {
	out := map[string]*spec{}
	for _, c := range p.Spec.Containers {
		s := &spec{name: c.Name, discovery: reversed(p.ID), labels: model.SortedLabels(c.Labels)}
		if len(c.HealthCheck) > 0 && string(c.HealthCheck) != "null" {
			s.checks = 1
		}
		s.host = len(p.Spec.Networks) == 0 || cmp.Or(p.Spec.Networks[0].Mode, modeContainer) == modeHost
		for _, n := range p.Spec.Networks {
			if n.Name != "" {
				s.networks = append(s.networks, n.Name)
			}
		}
		for _, e := range c.Endpoints {
			one := port{
				name: e.Name, number: e.ContainerPort, takes: s.host || e.HostPort != nil,
				networks: e.NetworkNames, labels: model.SortedLabels(e.Labels),
			}
			if one.protocols = e.Protocol; len(one.protocols) == 0 {
				one.protocols = protocols("")
			}
			s.ports = append(s.ports, one)
		}
		out[c.Name] = s
	}
	return out
}

// discover returns what Marathon writes into the discovery information of a task
// that was given ports of its agent, and its port mappings: an entry for each
// protocol and, where no port of the agent leads to it, for each network.
func (s *spec) discover(given []int64) ([]model.DiscoveryPort, []model.PortMapping) {
	var out []model.DiscoveryPort
	var mappings []model.PortMapping
	for _, p := range s.ports {
		var onAgent int64
		if p.takes {
			if len(given) == 0 {
				continue // not given yet
			}
			onAgent, given = given[0], given[1:]
		}
		inside := cmp.Or(p.number, onAgent)
		for _, proto := range p.protocols {
			add := func(number int64, more ...model.Label) {
				out = append(out, model.DiscoveryPort{
					Number: number, Name: p.name, Protocol: proto, ServicePort: p.service, Labels: slices.Concat(p.labels, more),
				})
			}
			switch {
			case s.host:
				add(onAgent)
			case p.takes:
				add(onAgent, model.Label{Key: "network-scope", Value: "host"})
				if m, ok := mapping(onAgent, inside, proto); ok {
					mappings = append(mappings, m)
				}
			default:
				for _, l := range scopes(p.networks, s.networks) {
					add(inside, l...)
				}
			}
		}
	}
	return out, mappings
}

// scopes are the labels of the entries of a port that networks serve: those of
// the port, else all.
func scopes(ofPort, all []string) [][]model.Label {
	if len(ofPort) == 0 {
		ofPort = all
	}
	scope := model.Label{Key: "network-scope", Value: "container"}
	if len(ofPort) == 0 {
		return [][]model.Label{{scope}}
	}
	var out [][]model.Label
	for _, n := range ofPort {
		out = append(out, []model.Label{scope, {Key: "network-name", Value: n}})
	}
	return out
}

func mapping(host, container int64, proto string) (model.PortMapping, bool) {
	p, err := model.ParseProto(proto)
	if err != nil || host <= 0 || host > 65535 || container <= 0 || container > 65535 {
		return model.PortMapping{}, false
	}
	return model.PortMapping{HostPort: uint16(host), ContainerPort: uint16(container), Proto: p}, true
}

// protocols splits "udp,tcp"; tcp is the default.
func protocols(text string) []string {
	var out []string
	for word := range strings.SplitSeq(cmp.Or(text, "tcp"), ",") {
		out = append(out, strings.TrimSpace(word))
	}
	return out
}

func servicePort(n int64) uint16 {
	if n < 0 || n > 65535 {
		return 0
	}
	return uint16(n)
}
