package mesostest

import (
	"encoding/json"
	"net/netip"
)

// Task is a task as a test describes it; Event functions turn it into the JSON
// of the v1 operator API.
type Task struct {
	Framework, Agent string // ids
	ID, Name         string
	State            string     // "TASK_RUNNING" and so on
	IP               netip.Addr // in its status; zero for none
	Healthy          *bool      // the verdict of a Mesos health check; nil for none
	Ports            []Port
	Mappings         []Mapping // in a bridge network
	Docker           bool      // by Docker, else by Mesos' own containerizer
}

// Mapping leads from a port of the agent to one of the container, by TCP.
type Mapping struct{ Host, Container int }

// Port is a discovery port, with labels as key, value, key, value.
type Port struct {
	Number   int
	Name     string
	Protocol string
	Labels   []string
}

type object = map[string]any

func id(value string) object { return object{"value": value} }

// Agent returns an agent as get_agents lists it.
func Agent(agentID string, addr netip.Addr) object {
	return object{
		"agent_info": object{"id": id(agentID), "hostname": addr.String(), "port": 5051},
		"active":     true,
		"pid":        "slave(1)@" + netip.AddrPortFrom(addr, 5051).String(),
	}
}

// Framework returns a framework as get_frameworks lists it.
func Framework(frameworkID, name string) object {
	return object{"framework_info": object{"id": id(frameworkID), "name": name}, "active": true, "connected": true}
}

// Subscribed returns a SUBSCRIBED event.
func Subscribed(heartbeatSeconds float64, agents, frameworks []object, tasks []Task) []byte {
	return FailedOver(heartbeatSeconds, agents, nil, frameworks, tasks)
}

// FailedOver returns a SUBSCRIBED event of a new master, which has not heard yet
// from the agents with the ids recovered.
func FailedOver(heartbeatSeconds float64, agents []object, recovered []string, frameworks []object, tasks []Task) []byte {
	waits := []object{}
	for _, agentID := range recovered {
		waits = append(waits, object{"id": id(agentID), "hostname": agentID + ".invalid", "port": 5051})
	}
	list := []object{}
	for _, t := range tasks {
		list = append(list, t.object())
	}
	return marshal(object{"type": "SUBSCRIBED", "subscribed": object{
		"heartbeat_interval_seconds": heartbeatSeconds,
		"get_state": object{
			"get_tasks":      object{"tasks": list},
			"get_agents":     object{"agents": agents, "recovered_agents": waits},
			"get_frameworks": object{"frameworks": frameworks},
		},
	}})
}

// Heartbeat returns a HEARTBEAT event.
func Heartbeat() []byte { return marshal(object{"type": "HEARTBEAT"}) }

// TaskAdded returns a TASK_ADDED event.
func TaskAdded(t Task) []byte {
	return marshal(object{"type": "TASK_ADDED", "task_added": object{"task": t.object()}})
}

// TaskUpdated returns a TASK_UPDATED event that brings t to its State.
func TaskUpdated(t Task) []byte {
	return marshal(object{"type": "TASK_UPDATED", "task_updated": object{
		"framework_id": id(t.Framework), "state": t.State, "status": t.status(),
	}})
}

// AgentAdded returns an AGENT_ADDED event.
func AgentAdded(agent object) []byte {
	return marshal(object{"type": "AGENT_ADDED", "agent_added": object{"agent": agent}})
}

// AgentRemoved returns an AGENT_REMOVED event.
func AgentRemoved(agentID string) []byte {
	return marshal(object{"type": "AGENT_REMOVED", "agent_removed": object{"agent_id": id(agentID)}})
}

// FrameworkAdded returns a FRAMEWORK_ADDED event.
func FrameworkAdded(framework object) []byte {
	return marshal(object{"type": "FRAMEWORK_ADDED", "framework_added": object{"framework": framework}})
}

// FrameworkUpdated returns a FRAMEWORK_UPDATED event.
func FrameworkUpdated(framework object) []byte {
	return marshal(object{"type": "FRAMEWORK_UPDATED", "framework_updated": object{"framework": framework}})
}

// FrameworkRemoved returns a FRAMEWORK_REMOVED event.
func FrameworkRemoved(frameworkID, name string) []byte {
	return marshal(object{"type": "FRAMEWORK_REMOVED", "framework_removed": object{
		"framework_info": object{"id": id(frameworkID), "name": name}}})
}

func (t Task) object() object {
	ports := []object{}
	for _, p := range t.Ports {
		labels := []object{}
		for i := 0; i+1 < len(p.Labels); i += 2 {
			labels = append(labels, object{"key": p.Labels[i], "value": p.Labels[i+1]})
		}
		ports = append(ports, object{
			"number": p.Number, "name": p.Name, "protocol": p.Protocol, "labels": object{"labels": labels},
		})
	}
	o := object{
		"task_id": id(t.ID), "framework_id": id(t.Framework), "agent_id": id(t.Agent),
		"name": t.Name, "state": t.State, "statuses": []object{t.status()},
		"discovery": object{"visibility": "FRAMEWORK", "name": t.Name, "ports": object{"ports": ports}},
	}
	if len(t.Mappings) > 0 {
		o["container"] = t.container()
	}
	return o
}

// container is that of a task in a bridge network, as Marathon asks for it.
func (t Task) container() object {
	list := []object{}
	for _, m := range t.Mappings {
		list = append(list, object{"host_port": m.Host, "container_port": m.Container, "protocol": "tcp"})
	}
	if t.Docker {
		return object{"type": "DOCKER", "docker": object{"image": "i", "network": "BRIDGE", "port_mappings": list}}
	}
	return object{"type": "MESOS", "network_infos": []object{{"name": "mesos-bridge", "port_mappings": list}}}
}

func (t Task) status() object {
	s := object{"task_id": id(t.ID), "agent_id": id(t.Agent), "state": t.State, "timestamp": 1.5}
	if t.Healthy != nil {
		s["healthy"] = *t.Healthy
	}
	if t.IP.IsValid() {
		s["container_status"] = object{"network_infos": []object{
			{"ip_addresses": []object{{"protocol": "IPv4", "ip_address": t.IP.String()}}},
		}}
	}
	return s
}

// marshal cannot fail: the values above hold nothing that JSON cannot.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
