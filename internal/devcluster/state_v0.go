package devcluster

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The types below are /state, the older form of the same picture.

type v0State struct {
	Version               string        `json:"version"`
	StartTime             double        `json:"start_time"`
	ElectedTime           double        `json:"elected_time"`
	ID                    string        `json:"id"`
	PID                   string        `json:"pid"`
	Hostname              string        `json:"hostname"`
	Capabilities          []string      `json:"capabilities"`
	ActivatedSlaves       double        `json:"activated_slaves"`
	DeactivatedSlaves     double        `json:"deactivated_slaves"`
	UnreachableSlaves     double        `json:"unreachable_slaves"`
	Leader                string        `json:"leader"`
	LeaderInfo            v0LeaderInfo  `json:"leader_info"`
	Flags                 struct{}      `json:"flags"`
	Slaves                []v0Slave     `json:"slaves"`
	RecoveredSlaves       []v0Recovered `json:"recovered_slaves"`
	Frameworks            []v0Framework `json:"frameworks"`
	CompletedFrameworks   []v0Framework `json:"completed_frameworks"`
	OrphanTasks           []v0Task      `json:"orphan_tasks"`
	UnregisteredFramework []v0Framework `json:"unregistered_frameworks"`
}

type v0LeaderInfo struct {
	ID       string `json:"id"`
	PID      string `json:"pid"`
	Port     uint16 `json:"port"`
	Hostname string `json:"hostname"`
}

type v0Recovered struct {
	ID       string `json:"id"`
	Hostname string `json:"hostname"`
	Port     int    `json:"port"`
}

type v0Slave struct {
	v0Recovered
	Attributes     struct{}       `json:"attributes"`
	PID            string         `json:"pid"`
	RegisteredTime double         `json:"registered_time"`
	Resources      map[string]any `json:"resources"`
	Active         bool           `json:"active"`
	Deactivated    bool           `json:"deactivated"`
	Version        string         `json:"version"`
	Capabilities   []string       `json:"capabilities"`
}

type v0Framework struct {
	ID               string   `json:"id"`
	Name             string   `json:"name"`
	Capabilities     []string `json:"capabilities"`
	Hostname         string   `json:"hostname"`
	WebUIURL         string   `json:"webui_url"`
	Active           bool     `json:"active"`
	Connected        bool     `json:"connected"`
	Recovered        bool     `json:"recovered"`
	User             string   `json:"user"`
	FailoverTimeout  double   `json:"failover_timeout"`
	Checkpoint       bool     `json:"checkpoint"`
	RegisteredTime   double   `json:"registered_time"`
	UnregisteredTime double   `json:"unregistered_time"`
	Roles            []string `json:"roles"`
	Tasks            []v0Task `json:"tasks"`
	UnreachableTasks []v0Task `json:"unreachable_tasks"`
	CompletedTasks   []v0Task `json:"completed_tasks"`
}

type v0Task struct {
	ID          string         `json:"id"`
	Name        string         `json:"name"`
	FrameworkID string         `json:"framework_id"`
	ExecutorID  string         `json:"executor_id"`
	SlaveID     string         `json:"slave_id"`
	State       string         `json:"state"`
	Resources   map[string]any `json:"resources"`
	Role        string         `json:"role"`
	Statuses    []v0Status     `json:"statuses"`
	Labels      []label        `json:"labels"`
	Discovery   discovery      `json:"discovery"`
	Container   *containerInfo `json:"container,omitempty"`
	HealthCheck *healthCheck   `json:"health_check,omitempty"`
}

type v0Status struct {
	State           string            `json:"state"`
	Timestamp       double            `json:"timestamp"`
	ContainerStatus v0ContainerStatus `json:"container_status"`
	Healthy         *bool             `json:"healthy,omitempty"`
}

type v0ContainerStatus struct {
	ContainerID  ident         `json:"container_id"`
	NetworkInfos []networkInfo `json:"network_infos"`
}

func (m *master) serveState(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, m.v0State())
}

func (m *master) v0State() v0State {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	st, info := m.c.stateLocked(), m.info()
	out := v0State{
		Version: mesosVersion, StartTime: timestamp(m.started), ElectedTime: timestamp(m.c.world.elected),
		ID: m.uuid, PID: info.PID, Hostname: info.Hostname, Capabilities: names(info.Capabilities),
		Leader: info.PID, LeaderInfo: v0LeaderInfo{m.uuid, info.PID, info.Port, info.Hostname},
		Slaves: []v0Slave{}, RecoveredSlaves: []v0Recovered{}, Frameworks: []v0Framework{},
		CompletedFrameworks: []v0Framework{}, OrphanTasks: []v0Task{}, UnregisteredFramework: []v0Framework{},
	}
	for _, a := range st.GetAgents.Agents {
		out.ActivatedSlaves++
		out.Slaves = append(out.Slaves, v0Slave{
			v0Recovered: v0Recover(a.AgentInfo), PID: a.PID, RegisteredTime: a.RegisteredTime.seconds(),
			Resources: v0Resources(a.TotalResources), Active: true, Version: a.Version, Capabilities: names(a.Capabilities),
		})
	}
	for _, a := range st.GetAgents.RecoveredAgents {
		out.RecoveredSlaves = append(out.RecoveredSlaves, v0Recover(a))
	}
	for _, f := range st.GetFrameworks.Frameworks {
		i := f.FrameworkInfo
		out.Frameworks = append(out.Frameworks, v0Framework{
			ID: i.ID.Value, Name: i.Name, Capabilities: names(i.Capabilities), Hostname: i.Hostname, WebUIURL: i.WebUIURL,
			Active: f.Active, Connected: f.Connected, User: i.User, FailoverTimeout: i.FailoverTimeout, Checkpoint: i.Checkpoint,
			RegisteredTime: f.RegisteredTime.seconds(), Roles: i.Roles, Tasks: v0Tasks(st.GetTasks.Tasks),
			UnreachableTasks: []v0Task{}, CompletedTasks: v0Tasks(st.GetTasks.CompletedTasks),
		})
	}
	return out
}

func v0Recover(a agentInfo) v0Recovered { return v0Recovered{a.ID.Value, a.Hostname, a.Port} }

func v0Tasks(records []taskRecord) []v0Task {
	out := []v0Task{}
	for _, r := range records {
		t := v0Task{
			ID: r.TaskID.Value, Name: r.Name, FrameworkID: r.FrameworkID.Value, SlaveID: r.AgentID.Value,
			State: r.State, Resources: v0Resources(r.Resources), Role: "*", Statuses: []v0Status{},
			Labels: append([]label{}, r.Labels.Labels...), Discovery: r.Discovery, Container: r.Container, HealthCheck: r.HealthCheck,
		}
		for _, s := range r.Statuses {
			cs := s.ContainerStatus
			t.Statuses = append(t.Statuses, v0Status{s.State, s.Timestamp, v0ContainerStatus{cs.ContainerID, cs.NetworkInfos}, s.Healthy})
		}
		out = append(out, t)
	}
	return out
}

// v0Resources flattens resources: scalars to numbers, ports to a sorted text.
func v0Resources(list []resource) map[string]any {
	out := map[string]any{"cpus": double(0), "mem": double(0), "disk": double(0), "gpus": double(0)}
	for _, r := range list {
		if r.Scalar != nil {
			out[r.Name] = r.Scalar.Value
			continue
		}
		var text []string
		for _, p := range slices.SortedFunc(slices.Values(r.Ranges.Range), func(a, b portRange) int { return a.Begin - b.Begin }) {
			text = append(text, fmt.Sprintf("%d-%d", p.Begin, p.End))
		}
		out[r.Name] = "[" + strings.Join(text, ", ") + "]"
	}
	return out
}

func names(list []capability) []string {
	out := []string{}
	for _, c := range list {
		out = append(out, c.Type)
	}
	return out
}

func (n nanoseconds) seconds() double { return double(float64(n.Nanoseconds/1000) / 1e6) }
