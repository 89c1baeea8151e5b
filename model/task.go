package model

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// TaskKey identifies a task: task ids are unique only within a framework.
type TaskKey struct {
	FrameworkID string
	ID          string
}

// TaskState is what a task's state means to us, whatever the scheduler calls it.
type TaskState uint8

// Preparing tasks are not served yet (or not reachable now), Running ones are
// served, Killing ones keep their connections but get no new ones and no name,
// Terminal ones have ended.
const (
	Preparing TaskState = iota
	Running
	Killing
	Terminal
)

// String returns the lower-case name.
func (s TaskState) String() string {
	return [...]string{"preparing", "running", "killing", "terminal"}[s&3]
}

// ParseTaskState reads a state as Mesos and Marathon write it, "TASK_RUNNING"
// for one. A state it does not know is Preparing: staging, starting, unreachable,
// and what newer masters invent.
func ParseTaskState(state string) TaskState {
	switch state {
	case "TASK_RUNNING":
		return Running
	case "TASK_KILLING":
		return Killing
	case "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST",
		"TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR":
		return Terminal
	}
	return Preparing
}

// Health is a verdict on a task. HealthUnknown means that nobody checks it,
// and counts as healthy; a task whose check has not spoken yet is Unhealthy.
type Health uint8

// The verdicts.
const (
	HealthUnknown Health = iota
	Healthy
	Unhealthy
)

// Address is an address of a task in one network. Network is empty where the
// scheduler does not name it.
type Address struct {
	Addr    netip.Addr
	Network string
}

// ParseAddress reads an address in a network; ok is false for a text that is none.
// CNI may report an IPv6 address with its prefix length, which is left out.
func ParseAddress(text, network string) (_ Address, ok bool) {
	text, _, _ = strings.Cut(text, "/")
	a, err := netip.ParseAddr(text)
	return Address{Addr: a.Unmap(), Network: network}, err == nil
}

// Label is one key and value as the user wrote them. Keys may repeat.
type Label struct {
	Key, Value string
}

// SortedLabels returns labels sorted by key, for schedulers that write them as an
// object, the order of whose keys means nothing.
func SortedLabels(m map[string]string) []Label {
	var out []Label
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, Label{Key: k, Value: m[k]})
	}
	return out
}

// Discovery is what a task says of itself for service discovery.
type Discovery struct {
	Name  string // may be empty
	Ports []DiscoveryPort
}

// DiscoveryPort is one port of a Discovery as the scheduler wrote it, not yet
// checked: Number may be out of range and Protocol any text.
type DiscoveryPort struct {
	Number   int64
	Name     string // may be empty
	Protocol string
	Labels   []Label

	ServicePort uint16 // see Port
}

// PortMapping says that HostPort of the agent leads to ContainerPort of the
// task. ByMesos says that Mesos' own containerizer has made it (a mapping of a
// network, not of Docker): then the container is routed on its agent.
type PortMapping struct {
	HostPort, ContainerPort uint16
	Proto                   Proto
	ByMesos                 bool
}

// PortRange is an inclusive range of agent ports given to a task.
type PortRange struct {
	First, Last uint16
}

// LabelAddrs are addresses that old container runtimes reported in status
// labels; only the "docker" and "mesos" IP sources of mesos-dns read them.
type LabelAddrs struct {
	Docker, Mesos []netip.Addr
}

// Task is one instance of an app. Sources fill the raw fields and call
// JoinPorts for Ports.
type Task struct {
	Key       TaskKey
	Name      string // as the framework wrote it; not unique, not a DNS name
	Framework string // the framework's name
	AgentID   string
	AgentAddr netip.Addr // zero while the agent's address is unknown
	State     TaskState
	Health    Health

	// Addrs are the task's own addresses in the order reported: the agent's
	// alone in host networking, the container's otherwise. Empty when unknown.
	Addrs []Address
	// AddrsKept says that the newest status has no addresses, so that Addrs are
	// those of an older one.
	AddrsKept  bool
	LabelAddrs *LabelAddrs // nil for nearly every task

	Discovery *Discovery // nil when the task has none
	Mappings  []PortMapping
	Resources []PortRange
	Labels    []Label

	Ports []Port // what JoinPorts made of the fields above
}

// DiscoveryName returns the name the task goes by: that of its discovery
// information, else its own.
func (t *Task) DiscoveryName() string {
	if t.Discovery != nil && t.Discovery.Name != "" {
		return t.Discovery.Name
	}
	return t.Name
}

// HostNetwork reports whether the task shares its agent's network: its only
// address is the agent's.
func (t *Task) HostNetwork() bool {
	return len(t.Addrs) == 1 && t.Addrs[0].Addr == t.AgentAddr
}
