package vip

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"waggle/internal/outside"
	"waggle/model"
)

// stateCase is the input of a case that shows a master's or agent's state.
type stateCase struct {
	Format, Fixture string
	Messages        []stateMessage
	Min             string `json:"min_named_ip"`
	Max             string `json:"max_named_ip"`
	IPv6            bool   `json:"enable_ipv6"`
}

func (c stateCase) config() Config {
	cfg := DefaultConfig()
	if c.Min != "" {
		cfg.First4 = netip.MustParseAddr(c.Min)
	}
	cfg.Last4, cfg.IPv6 = netip.MustParseAddr(c.Max), c.IPv6
	return cfg
}

// The records of GET_STATE, as far as VIPs need them.
type (
	idJSON     struct{ Value string }
	labelsJSON struct{ Labels []model.Label }
	netJSON    struct {
		Name string
		IPs  []struct {
			IP string `json:"ip_address"`
		} `json:"ip_addresses"`
		Mappings []mappingJSON `json:"port_mappings"`
	}
	mappingJSON struct {
		HostPort      uint16 `json:"host_port"`
		ContainerPort uint16 `json:"container_port"`
		Protocol      string
	}
	taskJSON struct {
		ID          idJSON `json:"task_id"`
		FrameworkID idJSON `json:"framework_id"`
		AgentID     idJSON `json:"agent_id"`
		Name, State string
		Labels      labelsJSON
		HealthCheck json.RawMessage `json:"health_check"`
		Resources   []struct {
			Name   string
			Ranges struct{ Range []struct{ Begin, End uint16 } }
		}
		Discovery *struct {
			Name  string
			Ports struct {
				Ports []struct {
					Number         int64
					Name, Protocol string
					Labels         labelsJSON
				}
			}
		}
		Container struct {
			Networks []netJSON `json:"network_infos"`
			Docker   struct {
				Mappings []mappingJSON `json:"port_mappings"`
			}
		}
		Statuses []statusJSON
	}
	statusJSON struct {
		Timestamp float64
		Healthy   *bool
		Container struct {
			Networks []netJSON `json:"network_infos"`
		} `json:"container_status"`
	}
	stateMessage struct {
		State struct {
			Tasks struct {
				Tasks    []taskJSON
				Launched []taskJSON `json:"launched_tasks"`
			} `json:"get_tasks"`
			Frameworks struct {
				Frameworks []struct {
					Info struct {
						ID   idJSON
						Name string
					} `json:"framework_info"`
				}
			} `json:"get_frameworks"`
			Agents struct {
				Agents []struct {
					Info struct {
						ID       idJSON
						Hostname string
					} `json:"agent_info"`
				}
			} `json:"get_agents"`
		} `json:"get_state"`
	}
)

// snapshot reads the states of c, each task an app of its own.
func (c stateCase) snapshot(tb testing.TB) *model.Snapshot {
	tb.Helper()
	if c.Fixture != "" {
		text := outside.Read(tb, "fixtures", "dcos-net", strings.TrimPrefix(c.Fixture, "fixtures/"))
		c.Messages = make([]stateMessage, 1)
		if err := json.Unmarshal(text, &c.Messages[0]); err != nil {
			tb.Fatal(err)
		}
	}
	frameworks, agents := map[string]string{}, map[string]netip.Addr{}
	var apps []*model.App
	for _, m := range c.Messages {
		for _, f := range m.State.Frameworks.Frameworks {
			frameworks[f.Info.ID.Value] = f.Info.Name
		}
		for _, a := range m.State.Agents.Agents {
			agents[a.Info.ID.Value], _ = netip.ParseAddr(a.Info.Hostname)
		}
		for _, t := range append(m.State.Tasks.Tasks, m.State.Tasks.Launched...) {
			task := t.task(tb)
			task.Framework, task.AgentAddr = frameworks[task.Key.FrameworkID], agents[t.AgentID.Value]
			task.Ports, _ = model.JoinPorts(task)
			apps = append(apps, &model.App{
				Key:       model.AppKey{FrameworkID: task.Key.FrameworkID, Name: task.Key.ID},
				Framework: task.Framework, Tasks: []*model.Task{task},
			})
		}
	}
	return snapshotOf(apps...)
}

func (t taskJSON) task(tb testing.TB) *model.Task {
	tb.Helper()
	out := &model.Task{
		Key:  model.TaskKey{FrameworkID: t.FrameworkID.Value, ID: t.ID.Value},
		Name: t.Name, State: stateOfMesos(t.State), Labels: t.Labels.Labels,
	}
	for _, r := range t.Resources {
		for _, p := range r.Ranges.Range {
			if r.Name == "ports" {
				out.Resources = append(out.Resources, model.PortRange{First: p.Begin, Last: p.End})
			}
		}
	}
	if d := t.Discovery; d != nil {
		out.Discovery = &model.Discovery{Name: d.Name}
		for _, p := range d.Ports.Ports {
			out.Discovery.Ports = append(out.Discovery.Ports, model.DiscoveryPort{
				Number: p.Number, Name: p.Name, Protocol: p.Protocol, Labels: p.Labels.Labels,
			})
		}
	}
	if t.HealthCheck != nil {
		out.Health = model.Unhealthy // until a status says otherwise
	}
	nets := t.Container.Networks
	slices.SortFunc(t.Statuses, func(a, b statusJSON) int { return int(a.Timestamp - b.Timestamp) })
	for _, s := range t.Statuses {
		if s.Healthy != nil && *s.Healthy {
			out.Health = model.Healthy
		} else if s.Healthy != nil {
			out.Health = model.Unhealthy
		}
		if len(s.Container.Networks) == 0 {
			continue
		}
		out.Addrs = nil
		for _, n := range s.Container.Networks {
			for _, ip := range n.IPs {
				out.Addrs = append(out.Addrs, model.Address{Addr: netip.MustParseAddr(ip.IP), Network: n.Name})
			}
		}
		nets = append(nets, s.Container.Networks...)
	}
	mappings := t.Container.Docker.Mappings
	for _, n := range nets {
		mappings = append(mappings, n.Mappings...)
	}
	for _, m := range mappings {
		proto, err := model.ParseProto(m.Protocol)
		if err != nil {
			tb.Fatal(err)
		}
		out.Mappings = append(out.Mappings, model.PortMapping{HostPort: m.HostPort, ContainerPort: m.ContainerPort, Proto: proto})
	}
	return out
}

func stateOfMesos(s string) model.TaskState {
	switch s {
	case "TASK_RUNNING":
		return model.Running
	case "TASK_KILLING":
		return model.Killing
	case "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_ERROR", "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR":
		return model.Terminal
	}
	return model.Preparing
}
