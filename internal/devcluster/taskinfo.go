package devcluster

import (
	"maps"
	"net/netip"
	"slices"
)

// taskInfo is what Marathon and the agent tell Mesos of a task when it is
// launched: everything but its states.
func taskInfo(a *App, ports []int) taskRecord {
	return taskRecord{
		Name:        a.name(),
		State:       stateStaging,
		Resources:   resources(a, ports),
		Labels:      labelList(a.Labels),
		Discovery:   discovery{Visibility: "FRAMEWORK", Name: a.name(), Ports: discoveryPorts{discoveryPortList(a, ports)}},
		Container:   container(a, ports),
		HealthCheck: mesosCheck(a, ports),
	}
}

// discoveryPortList is Marathon's PortDiscovery: one entry for each protocol
// and, without a port on the agent, for each network.
func discoveryPortList(a *App, ports []int) []discoveryPort {
	var out []discoveryPort
	for i, s := range a.ports() {
		scopes := [][]label{nil}
		switch {
		case a.mode() == modeHost:
		case s.host:
			scopes = [][]label{{{"network-scope", "host"}}}
		default:
			scopes = nil
			for _, n := range s.networks {
				scopes = append(scopes, []label{{"network-scope", "container"}, {"network-name", n}})
			}
		}
		for _, p := range s.protocols {
			for _, scope := range scopes {
				d := discoveryPort{Number: ports[i], Name: s.name, Protocol: p.String()}
				if l := append(labelList(s.labels).Labels, scope...); len(l) > 0 {
					d.Labels = &labels{l}
				}
				out = append(out, d)
			}
		}
	}
	return out
}

func labelList(m map[string]string) labels {
	var out labels
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out.Labels = append(out.Labels, label{k, m[k]})
	}
	return out
}

// container is what Marathon asks Mesos for, although here no container is made.
func container(a *App, ports []int) *containerInfo {
	if a.Container == nil {
		return nil
	}
	out := &containerInfo{Type: a.Container.Type}
	mappings := mappings(a, ports)
	if d := a.Container.Docker; d != nil && out.Type == "DOCKER" {
		out.Docker = &dockerInfo{Image: d.Image, Privileged: d.Privileged, ForcePullImage: d.ForcePullImage, PortMappings: mappings}
		out.Docker.Network = map[string]string{modeHost: "HOST", modeBridge: "BRIDGE", modeContainer: "USER"}[a.mode()]
		mappings = nil
	}
	switch {
	case a.mode() == modeContainer:
		out.NetworkInfos = networkInfos(a, mappings)
	case a.mode() == modeBridge && out.Docker == nil:
		out.NetworkInfos = []networkInfo{{Name: "mesos-bridge", PortMappings: mappings}}
	}
	return out
}

func mappings(a *App, ports []int) []portMapping {
	if a.mode() == modeHost {
		return nil
	}
	var out []portMapping
	for i, s := range a.ports() {
		if !s.host {
			continue
		}
		m := portMapping{HostPort: ports[i], ContainerPort: s.container}
		if m.ContainerPort == 0 {
			m.ContainerPort = m.HostPort
		}
		for _, p := range s.protocols {
			m.Protocol = p.String()
			out = append(out, m)
		}
	}
	return out
}

// networkInfos names the container networks a is in.
func networkInfos(a *App, mappings []portMapping) []networkInfo {
	var out []networkInfo
	for _, n := range a.Networks {
		out = append(out, networkInfo{Name: n.Name, PortMappings: mappings})
	}
	return out
}

// mesosCheck is the check that Mesos runs; nil if Marathon runs all.
func mesosCheck(a *App, ports []int) *healthCheck {
	i := slices.IndexFunc(a.HealthChecks, HealthCheck.mesos)
	if i < 0 {
		return nil
	}
	h := a.HealthChecks[i]
	out := &healthCheck{
		DelaySeconds:        double(h.DelaySeconds),
		IntervalSeconds:     double(h.IntervalSeconds),
		TimeoutSeconds:      double(h.TimeoutSeconds),
		ConsecutiveFailures: h.MaxConsecutiveFailures,
		GracePeriodSeconds:  double(h.GracePeriodSeconds),
		Type:                h.kind(),
	}
	switch out.Type {
	case "COMMAND":
		out.Command = &commandInfo{Shell: true, Value: h.Command.Value}
	case "TCP":
		out.TCP = &tcpCheck{Protocol: "IPv4", Port: h.port(ports)}
	default:
		out.HTTP = &httpCheck{Protocol: "IPv4", Scheme: h.scheme(), Port: h.port(ports), Path: h.Path}
		out.Type = "HTTP"
	}
	return out
}

func resources(a *App, ports []int) []resource {
	out := scalars(a.CPUs, a.Mem, a.Disk, a.GPUs)
	var r []portRange
	for i, s := range a.ports() {
		if s.host {
			r = append(r, portRange{ports[i], ports[i]})
		}
	}
	if len(r) > 0 {
		out = append(out, resource{Name: "ports", Type: "RANGES", Ranges: &ranges{r}})
	}
	for i := range out {
		out[i].AllocationInfo = &allocation{"*"}
	}
	return out
}

// scalars leaves out what is 0, as Mesos does.
func scalars(cpus, mem, disk, gpus float64) []resource {
	var out []resource
	for _, s := range []struct {
		name  string
		value float64
	}{{"cpus", cpus}, {"mem", mem}, {"disk", disk}, {"gpus", gpus}} {
		if s.value > 0 {
			out = append(out, resource{Name: s.name, Type: "SCALAR", Scalar: &scalar{double(s.value)}})
		}
	}
	return out
}

// hostPorts are the ports Marathon lists for a task: those it has on the agent.
func hostPorts(a *App, ports []int) []int {
	out := []int{}
	for i, s := range a.ports() {
		if s.host {
			out = append(out, ports[i])
		}
	}
	return out
}

// protocolOf names the family of an address as Mesos does.
func protocolOf(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}
