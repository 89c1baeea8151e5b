package devcluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The types below are the operator API's messages (mesos.v1, as Mesos 1.12
// writes them), down to the order of fields. See the Mesos protobuf files for
// what they mean.

// double is a number that always has a decimal point, as Mesos writes doubles.
type double float64

func (d double) MarshalJSON() ([]byte, error) {
	b := strconv.AppendFloat(nil, float64(d), 'f', -1, 64)
	if !bytes.ContainsRune(b, '.') {
		b = append(b, ".0"...)
	}
	return b, nil
}

type ident struct {
	Value string `json:"value"`
}

type nanoseconds struct {
	Nanoseconds int64 `json:"nanoseconds"`
}

type label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type labels struct {
	Labels []label `json:"labels,omitempty"`
}

type scalar struct {
	Value double `json:"value"`
}

type portRange struct {
	Begin int `json:"begin"`
	End   int `json:"end"`
}

type ranges struct {
	Range []portRange `json:"range"`
}

type allocation struct {
	Role string `json:"role"`
}

type resource struct {
	Name           string      `json:"name"`
	Type           string      `json:"type"`
	Scalar         *scalar     `json:"scalar,omitempty"`
	Ranges         *ranges     `json:"ranges,omitempty"`
	Role           string      `json:"role,omitempty"`
	AllocationInfo *allocation `json:"allocation_info,omitempty"`
}

type capability struct {
	Type string `json:"type"`
}

type agentInfo struct {
	Hostname  string     `json:"hostname"`
	Port      int        `json:"port"`
	Resources []resource `json:"resources"`
	ID        ident      `json:"id"`
}

type agentRecord struct {
	AgentInfo      agentInfo    `json:"agent_info"`
	Active         bool         `json:"active"`
	Deactivated    bool         `json:"deactivated"`
	Version        string       `json:"version"`
	PID            string       `json:"pid"`
	RegisteredTime nanoseconds  `json:"registered_time"`
	TotalResources []resource   `json:"total_resources"`
	Capabilities   []capability `json:"capabilities"`
}

type frameworkInfo struct {
	User            string       `json:"user"`
	Name            string       `json:"name"`
	ID              ident        `json:"id"`
	FailoverTimeout double       `json:"failover_timeout"`
	Checkpoint      bool         `json:"checkpoint"`
	Roles           []string     `json:"roles"`
	Hostname        string       `json:"hostname"`
	WebUIURL        string       `json:"webui_url"`
	Capabilities    []capability `json:"capabilities"`
}

type frameworkRecord struct {
	FrameworkInfo    frameworkInfo `json:"framework_info"`
	Active           bool          `json:"active"`
	Connected        bool          `json:"connected"`
	Recovered        bool          `json:"recovered"`
	RegisteredTime   nanoseconds   `json:"registered_time"`
	ReregisteredTime nanoseconds   `json:"reregistered_time"`
}

type discoveryPort struct {
	Number   int     `json:"number"`
	Name     string  `json:"name,omitempty"`
	Protocol string  `json:"protocol"`
	Labels   *labels `json:"labels,omitempty"`
}

type discoveryPorts struct {
	Ports []discoveryPort `json:"ports,omitempty"`
}

type discovery struct {
	Visibility string         `json:"visibility"`
	Name       string         `json:"name"`
	Ports      discoveryPorts `json:"ports"`
}

type portMapping struct {
	HostPort      int    `json:"host_port"`
	ContainerPort int    `json:"container_port"`
	Protocol      string `json:"protocol"`
}

type dockerInfo struct {
	Image          string        `json:"image"`
	Network        string        `json:"network"`
	PortMappings   []portMapping `json:"port_mappings,omitempty"`
	Privileged     bool          `json:"privileged"`
	ForcePullImage bool          `json:"force_pull_image"`
}

type ipAddress struct {
	Protocol  string `json:"protocol"`
	IPAddress string `json:"ip_address"`
}

type networkInfo struct {
	IPAddresses  []ipAddress   `json:"ip_addresses,omitempty"`
	Name         string        `json:"name,omitempty"`
	PortMappings []portMapping `json:"port_mappings,omitempty"`
}

type containerInfo struct {
	Type         string        `json:"type"`
	Docker       *dockerInfo   `json:"docker,omitempty"`
	NetworkInfos []networkInfo `json:"network_infos,omitempty"`
}

type commandInfo struct {
	Shell bool   `json:"shell"`
	Value string `json:"value"`
}

type httpCheck struct {
	Protocol string `json:"protocol"`
	Scheme   string `json:"scheme"`
	Port     int    `json:"port"`
	Path     string `json:"path"`
}

type tcpCheck struct {
	Protocol string `json:"protocol"`
	Port     int    `json:"port"`
}

type healthCheck struct {
	DelaySeconds        double       `json:"delay_seconds"`
	IntervalSeconds     double       `json:"interval_seconds"`
	TimeoutSeconds      double       `json:"timeout_seconds"`
	ConsecutiveFailures int          `json:"consecutive_failures"`
	GracePeriodSeconds  double       `json:"grace_period_seconds"`
	Type                string       `json:"type"`
	Command             *commandInfo `json:"command,omitempty"`
	HTTP                *httpCheck   `json:"http,omitempty"`
	TCP                 *tcpCheck    `json:"tcp,omitempty"`
}

type containerStatus struct {
	ContainerID  ident         `json:"container_id"`
	NetworkInfos []networkInfo `json:"network_infos"`
	ExecutorPID  int           `json:"executor_pid,omitempty"`
}

type taskStatus struct {
	TaskID          ident            `json:"task_id"`
	State           string           `json:"state"`
	Message         string           `json:"message,omitempty"`
	Source          string           `json:"source"`
	Reason          string           `json:"reason,omitempty"`
	AgentID         ident            `json:"agent_id"`
	ExecutorID      ident            `json:"executor_id"`
	Timestamp       double           `json:"timestamp"`
	UUID            []byte           `json:"uuid"`
	Healthy         *bool            `json:"healthy,omitempty"`
	ContainerStatus *containerStatus `json:"container_status,omitempty"`
}

type taskRecord struct {
	Name              string         `json:"name"`
	TaskID            ident          `json:"task_id"`
	FrameworkID       ident          `json:"framework_id"`
	AgentID           ident          `json:"agent_id"`
	State             string         `json:"state"`
	Resources         []resource     `json:"resources"`
	Statuses          []taskStatus   `json:"statuses,omitempty"`
	StatusUpdateState string         `json:"status_update_state,omitempty"`
	StatusUpdateUUID  []byte         `json:"status_update_uuid,omitempty"`
	Labels            labels         `json:"labels"`
	Discovery         discovery      `json:"discovery"`
	Container         *containerInfo `json:"container,omitempty"`
	HealthCheck       *healthCheck   `json:"health_check,omitempty"`
}

type getTasks struct {
	Tasks            []taskRecord `json:"tasks"`
	UnreachableTasks []taskRecord `json:"unreachable_tasks"`
	CompletedTasks   []taskRecord `json:"completed_tasks"`
}

type getExecutors struct {
	Executors []json.RawMessage `json:"executors"`
}

type getFrameworks struct {
	Frameworks          []frameworkRecord `json:"frameworks"`
	CompletedFrameworks []frameworkRecord `json:"completed_frameworks"`
}

type getAgents struct {
	Agents          []agentRecord `json:"agents"`
	RecoveredAgents []agentInfo   `json:"recovered_agents"`
}

type getState struct {
	GetTasks      getTasks      `json:"get_tasks"`
	GetExecutors  getExecutors  `json:"get_executors"`
	GetFrameworks getFrameworks `json:"get_frameworks"`
	GetAgents     getAgents     `json:"get_agents"`
}

type subscribed struct {
	GetState                 getState `json:"get_state"`
	HeartbeatIntervalSeconds double   `json:"heartbeat_interval_seconds"`
}

type taskUpdated struct {
	FrameworkID ident      `json:"framework_id"`
	Status      taskStatus `json:"status"`
	State       string     `json:"state"`
}

// message is one event or answer: {"type": "T", "t": payload}; a nil payload is
// left out.
func message(kind string, payload any) []byte {
	if payload == nil {
		return fmt.Appendf(nil, `{"type":%q}`, kind)
	}
	body, err := json.Marshal(payload)
	if err != nil {
		panic(err) // our own types always marshal
	}
	return fmt.Appendf(nil, `{"type":%q,%q:%s}`, kind, strings.ToLower(kind), body)
}

// record frames a message as RecordIO.
func record(msg []byte) []byte {
	return fmt.Appendf(nil, "%d\n%s", len(msg), msg)
}
