package marathon

import (
	"encoding/json"
	"slices"
	"strings"

	"waggle/model"
)

// The shapes of Marathon's documents, as far as we read them, of 1.5 and later
// and of what came before. Unknown keys are skipped, absent ones are zero.
//
// encoding/json goes on after a value of the wrong type: that field stays zero
// and the first such error is returned at the end. So a document is used as far
// as it could be read, and the error becomes its Problem.

type appDocument struct {
	ID              string            `json:"id"`
	Labels          map[string]string `json:"labels"`
	Networks        []network         `json:"networks"`
	PortDefinitions []portDefinition  `json:"portDefinitions"`
	Container       *struct {
		Docker *struct {
			Network      string        `json:"network"`      // 1.4 and older
			PortMappings []portMapping `json:"portMappings"` // likewise
		} `json:"docker"`
		PortMappings []portMapping `json:"portMappings"`
	} `json:"container"`
	IPAddress *struct { // 1.4 and older
		NetworkName string `json:"networkName"`
		Discovery   struct {
			Ports []struct {
				Number   int64             `json:"number"`
				Name     string            `json:"name"`
				Protocol string            `json:"protocol"`
				Labels   map[string]string `json:"labels"`
			} `json:"ports"`
		} `json:"discovery"`
	} `json:"ipAddress"`
	Ports        []int64           `json:"ports"` // service ports; all there is before 1.0
	HealthChecks []json.RawMessage `json:"healthChecks"`
	Readiness    []struct {
		TaskID string `json:"taskId"`
		Ready  bool   `json:"ready"`
	} `json:"readinessCheckResults"` // during deployments
	Tasks []json.RawMessage `json:"tasks"`
}

type network struct {
	Mode string `json:"mode"`
	Name string `json:"name"`
}

type portDefinition struct {
	Port     int64             `json:"port"`
	Protocol string            `json:"protocol"`
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels"`
}

type portMapping struct {
	ContainerPort int64             `json:"containerPort"`
	HostPort      *int64            `json:"hostPort"`
	ServicePort   int64             `json:"servicePort"`
	Protocol      string            `json:"protocol"`
	Name          string            `json:"name"`
	Labels        map[string]string `json:"labels"`
	NetworkNames  []string          `json:"networkNames"`
}

type taskDocument struct {
	ID          string  `json:"id"`
	Host        string  `json:"host"`
	SlaveID     string  `json:"slaveId"`
	State       *string `json:"state"` // since 1.0
	StartedAt   string  `json:"startedAt"`
	Ports       []int64 `json:"ports"` // those of the agent that were given, in the order of what asked for one
	IPAddresses []struct {
		IPAddress string `json:"ipAddress"`
	} `json:"ipAddresses"`
	HealthCheckResults []*healthResult `json:"healthCheckResults"`
	Region             string          `json:"region"`
	Zone               string          `json:"zone"`
}

type healthResult struct {
	Alive               bool   `json:"alive"`
	ConsecutiveFailures int    `json:"consecutiveFailures"`
	LastFailure         string `json:"lastFailure"`
}

// podDocument is a pod as /v2/pods/::status has it.
type podDocument struct {
	ID   string `json:"id"`
	Spec struct {
		Networks   []network `json:"networks"`
		Containers []struct {
			Name        string            `json:"name"`
			Labels      map[string]string `json:"labels"`
			Endpoints   []endpoint        `json:"endpoints"`
			HealthCheck json.RawMessage   `json:"healthCheck"`
		} `json:"containers"`
	} `json:"spec"`
	Instances []json.RawMessage `json:"instances"`
}

type endpoint struct {
	Name          string            `json:"name"`
	ContainerPort int64             `json:"containerPort"`
	HostPort      *int64            `json:"hostPort"`
	Protocol      []string          `json:"protocol"`
	Labels        map[string]string `json:"labels"`
	NetworkNames  []string          `json:"networkNames"`
}

type podInstance struct {
	ID            string `json:"id"`
	AgentHostname string `json:"agentHostname"`
	AgentID       string `json:"agentId"`
	AgentRegion   string `json:"agentRegion"`
	AgentZone     string `json:"agentZone"`
	Networks      []struct {
		Name      string   `json:"name"`
		Addresses []string `json:"addresses"`
	} `json:"networks"`
	Containers []podContainer `json:"containers"`
}

type podContainer struct {
	Name        string `json:"name"`
	Status      string `json:"status"`
	ContainerID string `json:"containerId"` // the id of the task
	Endpoints   []struct {
		Name              string `json:"name"`
		AllocatedHostPort int64  `json:"allocatedHostPort"`
	} `json:"endpoints"`
	Conditions []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"conditions"`
}

// unmarshal decodes raw as far as it can and returns what was wrong with it, of
// the object id, whose fields are below path.
func unmarshal(raw []byte, v any, id func() string, path string) []model.Problem {
	err := json.Unmarshal(raw, v)
	if err == nil {
		return nil
	}
	p := model.Problem{Task: id(), Field: path, Error: err.Error()}
	if wrong, ok := err.(*json.UnmarshalTypeError); ok {
		p.Field, p.Value, p.Error = strings.TrimPrefix(path+"."+wrong.Field, "."), wrong.Value, wrong.Value+" cannot stand here"
	}
	return []model.Problem{p}
}

// reversed is how Mesos sees the path of an app or pod: its parts reversed,
// joined by dots.
func reversed(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	slices.Reverse(parts)
	return strings.Join(parts, ".")
}

// addresses reads addresses, of one network unless it is empty. Texts that are
// none are skipped.
func addresses(texts []string, network string) []model.Address {
	var out []model.Address
	for _, text := range texts {
		if a, ok := model.ParseAddress(text, network); ok {
			out = append(out, a)
		}
	}
	return out
}
