package mesos

import (
	"slices"
	"strconv"
	"strings"

	"waggle/model"
)

// The shapes of the v1 operator API, as far as we read them. Unknown keys are
// skipped, absent ones are zero.
//
// encoding/json goes on after a value of the wrong type: that field stays zero
// and the first such error is returned at the end. So a record is used as far
// as it could be read, and the error becomes its Problem.

type v1ID struct {
	Value string `json:"value"`
}

type v1Labels struct {
	Labels []v1Label `json:"labels"`
}

type v1Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type v1Task struct {
	Name        string       `json:"name"`
	TaskID      v1ID         `json:"task_id"`
	FrameworkID v1ID         `json:"framework_id"`
	AgentID     v1ID         `json:"agent_id"`
	State       string       `json:"state"`
	Resources   []v1Resource `json:"resources"`
	Statuses    []v1Status   `json:"statuses"`
	Labels      v1Labels     `json:"labels"`
	Discovery   *discovery   `json:"discovery"`
	Container   *container   `json:"container"`
	HealthCheck present      `json:"health_check"`
}

// present notes that a value is there, and keeps nothing of it.
type present bool

// UnmarshalJSON takes any value; null is as good as none.
func (p *present) UnmarshalJSON(text []byte) error {
	*p = string(text) != "null"
	return nil
}

type v1Resource struct {
	Name   string `json:"name"`
	Ranges struct {
		Range []struct {
			Begin uint16 `json:"begin"`
			End   uint16 `json:"end"`
		} `json:"range"`
	} `json:"ranges"`
}

type v1Status struct {
	TaskID          v1ID             `json:"task_id"`
	State           string           `json:"state"`
	Timestamp       float64          `json:"timestamp"`
	Healthy         any              `json:"healthy"` // see takeHealth
	Labels          v1Labels         `json:"labels"`
	ContainerStatus *containerStatus `json:"container_status"`
}

// discovery, container and containerStatus read the same in both APIs.
type discovery struct {
	Name  string `json:"name"`
	Ports struct {
		Ports []struct {
			Number   int64    `json:"number"`
			Name     string   `json:"name"`
			Protocol string   `json:"protocol"`
			Labels   v1Labels `json:"labels"`
		} `json:"ports"`
	} `json:"ports"`
}

type container struct {
	Docker struct {
		PortMappings []portMapping `json:"port_mappings"`
	} `json:"docker"`
	NetworkInfos []networkInfo `json:"network_infos"`
}

type containerStatus struct {
	NetworkInfos []networkInfo `json:"network_infos"`
}

type networkInfo struct {
	Name        string `json:"name"`
	IPAddress   string `json:"ip_address"` // Mesos 0.25 and older
	IPAddresses []struct {
		IPAddress string `json:"ip_address"`
	} `json:"ip_addresses"`
	PortMappings []portMapping `json:"port_mappings"`
}

type portMapping struct {
	HostPort      uint16 `json:"host_port"`
	ContainerPort uint16 `json:"container_port"`
	Protocol      string `json:"protocol"`
}

type v1Agent struct {
	AgentInfo struct {
		ID       v1ID   `json:"id"`
		Hostname string `json:"hostname"`
		Port     uint16 `json:"port"`
		Domain   domain `json:"domain"`
	} `json:"agent_info"`
	PID    string `json:"pid"`
	Active *bool  `json:"active"`
}

// domain says where an agent stands; both APIs tell it alike.
type domain struct {
	FaultDomain struct {
		Region struct {
			Name string `json:"name"`
		} `json:"region"`
		Zone struct {
			Name string `json:"name"`
		} `json:"zone"`
	} `json:"fault_domain"`
}

func (d domain) zone() string {
	return model.FaultDomain(d.FaultDomain.Region.Name, d.FaultDomain.Zone.Name)
}

type v1Framework struct {
	FrameworkInfo v1FrameworkInfo `json:"framework_info"`
	Active        bool            `json:"active"`
}

type v1FrameworkInfo struct {
	ID       v1ID   `json:"id"`
	Name     string `json:"name"`
	Hostname string `json:"hostname"`
}

// v1Update is the payload of TASK_UPDATED.
type v1Update struct {
	FrameworkID v1ID     `json:"framework_id"`
	State       string   `json:"state"`
	Status      v1Status `json:"status"`
}

func modelLabels(list []v1Label) []model.Label {
	var out []model.Label
	for _, l := range list {
		out = append(out, model.Label(l))
	}
	return slices.Clip(out)
}

func (d *discovery) model() *model.Discovery {
	if d == nil {
		return nil
	}
	out := &model.Discovery{Name: d.Name, Ports: make([]model.DiscoveryPort, 0, len(d.Ports.Ports))}
	for _, p := range d.Ports.Ports {
		out.Ports = append(out.Ports, model.DiscoveryPort{
			Number: p.Number, Name: p.Name, Protocol: p.Protocol, Labels: modelLabels(p.Labels.Labels),
		})
	}
	return out
}

func (c *container) mappings() []model.PortMapping {
	if c == nil {
		return nil
	}
	return slices.Clip(append(modelMappings(c.Docker.PortMappings, false), networkMappings(c.NetworkInfos)...))
}

func networkMappings(infos []networkInfo) []model.PortMapping {
	var out []model.PortMapping
	for _, i := range infos {
		out = append(out, modelMappings(i.PortMappings, true)...)
	}
	return out
}

// modelMappings splits a protocol like "udp,tcp", which Marathon passes on as
// the user wrote it.
func modelMappings(list []portMapping, byMesos bool) []model.PortMapping {
	var out []model.PortMapping
	for _, m := range list {
		for word := range strings.SplitSeq(m.Protocol, ",") {
			proto := model.TCP // the API's default
			if word != "" {
				var err error
				if proto, err = model.ParseProto(word); err != nil {
					continue // such a mapping can serve no port of ours
				}
			}
			out = append(out, model.PortMapping{HostPort: m.HostPort, ContainerPort: m.ContainerPort, Proto: proto, ByMesos: byMesos})
		}
	}
	return out
}

// addresses returns the addresses of a container, in the order reported.
// Texts that are no address are skipped.
func (s *containerStatus) addresses() []model.Address {
	if s == nil {
		return nil
	}
	var out []model.Address
	for _, info := range s.NetworkInfos {
		texts := []string{info.IPAddress}
		if len(info.IPAddresses) > 0 {
			texts = texts[:0]
			for _, a := range info.IPAddresses {
				texts = append(texts, a.IPAddress)
			}
		}
		for _, text := range texts {
			if a, ok := model.ParseAddress(text, info.Name); ok {
				out = append(out, a)
			}
		}
	}
	return slices.Clip(out)
}

func (s *containerStatus) mappings() []model.PortMapping {
	if s == nil {
		return nil
	}
	return networkMappings(s.NetworkInfos)
}

// parsePID reads the address of a libprocess PID, "slave(1)@10.0.0.5:5051". A
// host that is a name is returned as such.
func parsePID(pid string) (host string, port uint16) {
	_, rest, ok := strings.Cut(strings.TrimSpace(pid), "@")
	if !ok {
		return "", 0
	}
	i := strings.LastIndexByte(rest, ':')
	if i < 0 || strings.HasSuffix(rest, "]") {
		return strings.Trim(rest, "[]"), 0
	}
	n, err := strconv.ParseUint(rest[i+1:], 10, 16)
	if err != nil {
		return "", 0
	}
	return strings.Trim(rest[:i], "[]"), uint16(n)
}
