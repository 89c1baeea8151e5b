package model

import (
	"fmt"
	"strconv"
	"strings"
)

// The labels that schedulers put on a discovery port to say what its number
// means and which of the task's networks serves it.
const (
	scopeLabel   = "network-scope"
	networkLabel = "network-name"
)

// JoinPorts returns the ports of t: those its discovery information lists, each
// completed from the port mapping that has its number. A port that cannot be
// used is left out and becomes a Problem. Sources store the result in t.Ports.
func JoinPorts(t *Task) ([]Port, []Problem) {
	if t.Discovery == nil {
		return nil, nil
	}
	var ports []Port
	var problems []Problem
	hostMode := t.State != Preparing && t.State != Terminal && t.HostNetwork()
	for i, d := range t.Discovery.Ports {
		if d.Number == 0 {
			continue // what Mesos itself shows for a port that was never assigned
		}
		p, err := joinPort(d, t.Mappings)
		if err != nil {
			problems = append(problems, Problem{
				Task: t.Key.ID, Field: fmt.Sprintf("discovery.ports[%d]", i), Value: d.String(), Error: err.Error(),
			})
			continue
		}
		if hostMode && p.HostPort != 0 {
			p.Number, p.HostPort = p.HostPort, 0
		}
		ports = append(ports, p)
	}
	return ports, problems
}

// String returns "name number/protocol" as the task wrote them.
func (d DiscoveryPort) String() string {
	return strings.TrimSpace(d.Name + " " + strconv.FormatInt(d.Number, 10) + "/" + d.Protocol)
}

func joinPort(d DiscoveryPort, mappings []PortMapping) (Port, error) {
	proto, err := ParseProto(d.Protocol)
	if err != nil {
		return Port{}, err
	}
	if d.Number < 1 || d.Number > 65535 {
		return Port{}, fmt.Errorf("port number %d is not within 1 to 65535", d.Number)
	}
	n := uint16(d.Number)
	p := Port{Name: d.Name, Proto: proto, Labels: d.Labels, ServicePort: d.ServicePort}
	if p.Name == "" {
		p.Name = "default"
	}
	p.Network, _ = firstLabel(d.Labels, networkLabel)
	onHost, onContainer := findMapping(mappings, proto, n)
	scope, given := firstLabel(d.Labels, scopeLabel)
	switch {
	case given && scope != "host" && scope != "container":
		return Port{}, fmt.Errorf("label %s is %q, neither host nor container", scopeLabel, scope)
	case scope == "host" || !given && onHost != nil:
		p.HostPort = n
		if onHost != nil {
			p.Number = onHost.ContainerPort
		}
	default:
		p.Number = n
		if onContainer != nil {
			p.HostPort = onContainer.HostPort
		}
	}
	return p, nil
}

// findMapping returns the mappings that have n as their host port and as their
// container port.
func findMapping(mappings []PortMapping, proto Proto, n uint16) (onHost, onContainer *PortMapping) {
	for i := range mappings {
		m := &mappings[i]
		if m.Proto != proto {
			continue
		}
		if m.HostPort == n && onHost == nil {
			onHost = m
		}
		if m.ContainerPort == n && onContainer == nil {
			onContainer = m
		}
	}
	return onHost, onContainer
}

func firstLabel(labels []Label, key string) (string, bool) {
	for _, l := range labels {
		if l.Key == key {
			return l.Value, true
		}
	}
	return "", false
}
