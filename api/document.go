package api

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"waggle/dns"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// Document is what a node serves, in the shape that `waggle render` promises:
// every list is sorted, so equal input gives equal bytes.
type Document struct {
	Tasks    []Task          `json:"tasks"`
	VIPs     []VIP           `json:"vips"`
	Records  []Record        `json:"records"`
	Problems []model.Problem `json:"problems"`
}

// Task is one task the scheduler reported.
type Task struct {
	ID        string       `json:"id"`
	Framework string       `json:"framework"`
	Name      string       `json:"name"`
	State     string       `json:"state"`             // preparing, running, killing or terminal
	Healthy   *bool        `json:"healthy,omitempty"` // absent when nobody checks
	AgentIP   string       `json:"agent_ip"`          // empty when unknown
	IPs       []netip.Addr `json:"ips"`
	Ports     []Port       `json:"ports"`
}

// Port is one port of a Task.
type Port struct {
	Name     string   `json:"name"`
	Protocol string   `json:"protocol"`
	Port     uint16   `json:"port"` // 0 when only the host port is known
	HostPort uint16   `json:"host_port,omitempty"`
	VIPs     []string `json:"vips"` // labels as written
}

// VIP is one virtual service.
type VIP struct {
	Name      string     `json:"name"` // with the final dot; empty for a VIP given by address
	Address   netip.Addr `json:"address"`
	Port      uint16     `json:"port"`
	Protocol  string     `json:"protocol"`
	Label     string     `json:"label"`
	Framework string     `json:"framework"`
	Backends  []Backend  `json:"backends"`
	Options   []string   `json:"options,omitempty"` // option=value, those that are not as without
}

// Backend is one destination of a VIP. Weight is its share of new connections
// while others are up: 0 unless State is up.
type Backend struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	Weight  uint16     `json:"weight"`
	State   string     `json:"state"` // up, draining or unhealthy
	Task    string     `json:"task"`
	Agent   string     `json:"agent"` // the agent's address; empty when unknown
	// Ejected says why this node sends it no new connections for now; nil if it does.
	Ejected *Ejection `json:"ejected,omitempty"`
}

// Ejection says since when and until when a backend is left out, and why:
// Failed of Connects made by this node's clients failed, or, where Usual is there,
// they took Latency, while those to the service's others take Usual.
type Ejection struct {
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Failed   uint64    `json:"failed"`
	Connects uint64    `json:"connects"`

	Latency time.Duration `json:"latency_ns,omitempty"`
	Usual   time.Duration `json:"usual_ns,omitempty"`
}

// Record is one DNS record; Data is in presentation form.
type Record struct {
	Name string `json:"name"`
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`
	Data string `json:"data"`
}

// Tasks returns the tasks of s, sorted by framework, name and id.
func Tasks(s *model.Snapshot) []Task {
	out := []Task{}
	for _, app := range s.Apps.All() {
		for _, t := range app.Tasks {
			out = append(out, newTask(t))
		}
	}
	slices.SortFunc(out, func(a, b Task) int {
		return cmp.Or(strings.Compare(a.Framework, b.Framework), strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return out
}

func newTask(t *model.Task) Task {
	d := Task{
		ID: t.Key.ID, Framework: t.Framework, Name: t.DiscoveryName(), State: t.State.String(),
		AgentIP: text(t.AgentAddr), IPs: []netip.Addr{}, Ports: []Port{},
	}
	if t.Health != model.HealthUnknown {
		healthy := t.Health == model.Healthy
		d.Healthy = &healthy
	}
	for _, a := range t.Addrs {
		d.IPs = append(d.IPs, a.Addr)
	}
	ports, _ := vip.Ports(t)
	for _, p := range ports {
		d.Ports = append(d.Ports, Port{
			Name: p.Name, Protocol: p.Proto.String(), Port: p.Number, HostPort: p.HostPort,
			VIPs: append([]string{}, p.VIPs...),
		})
	}
	return d
}

// VIPs returns the services of t, sorted by name and frontend. zone is the name
// below which named VIPs are served; p says who is ejected and may be nil.
func VIPs(t *vip.Table, p *lb.Plan, zone string) []VIP {
	out := []VIP{}
	if t == nil {
		return out
	}
	for _, s := range t.Services.All() {
		out = append(out, newVIP(s, p, zone))
	}
	slices.SortFunc(out, CompareVIPs)
	return out
}

func newVIP(s *vip.Service, p *lb.Plan, zone string) VIP {
	d := VIP{
		Address: s.Frontend.Addr.Addr(), Port: s.Frontend.Addr.Port(), Protocol: s.Frontend.Proto.String(),
		Label: s.Label, Framework: s.Framework, Backends: []Backend{}, Options: s.Options.Strings(),
	}
	if s.Name != "" {
		d.Name = s.Name + "." + strings.TrimSuffix(zone, ".") + "."
	}
	ejected := p.Ejected(s.Frontend)
	for _, b := range s.Backends {
		d.Backends = append(d.Backends, newBackend(b, ejected))
	}
	return d
}

func newBackend(b vip.Backend, ejected map[netip.AddrPort]lb.Ejection) Backend {
	d := Backend{
		Address: b.Addr.Addr(), Port: b.Addr.Port(), State: b.State.String(), Task: b.Task.ID, Agent: text(b.Agent),
	}
	if b.State == vip.Up {
		d.Weight = b.Weight
	}
	if e, ok := ejected[b.Addr]; ok {
		d.Ejected = (*Ejection)(&e)
	}
	return d
}

// Records returns the records of z, sorted.
func Records(z *dns.Zone) []Record {
	out := []Record{}
	if z == nil {
		return out
	}
	for _, r := range z.Records() {
		out = append(out, Record(r))
	}
	return out
}

// SortedProblems returns ps sorted and without repeats.
func SortedProblems(ps []model.Problem) []model.Problem {
	out := append([]model.Problem{}, ps...)
	slices.SortFunc(out, model.Problem.Compare)
	return slices.Compact(out)
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
