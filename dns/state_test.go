package dns

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"waggle/internal/outside"
	"waggle/model"
)

// v0State is as much of a master's /state as mesos-dns reads. The daemon's own
// decoder is in watcher/mesos, which this package may not know; this one
// follows mesos-dns' rules to the letter, its quirks included.
type v0State struct {
	Leader     string
	Slaves     []struct{ ID, Hostname, PID string }
	Frameworks []struct {
		ID, Name, PID, Hostname string
		Tasks                   []v0Task
	}
}

type v0Task struct {
	ID        string
	Name      string
	SlaveID   string `json:"slave_id"`
	State     string
	Resources struct{ Ports string }
	Discovery struct {
		Name  string
		Ports struct {
			Ports []struct {
				Number         int64
				Name, Protocol string
			}
		}
	}
	Statuses []v0Status
}

type v0Status struct {
	State           string
	Timestamp       float64
	Labels          []model.Label
	ContainerStatus struct {
		NetworkInfos []struct {
			IPAddress   string `json:"ip_address"`
			IPAddresses []struct {
				IPAddress string `json:"ip_address"`
			} `json:"ip_addresses"`
		} `json:"network_infos"`
	} `json:"container_status"`
}

func decodeV0(t testing.TB, raw json.RawMessage) *model.Snapshot {
	t.Helper()
	var state v0State
	if err := json.Unmarshal(raw, &state); err != nil {
		t.Fatal(err)
	}
	snap := &model.Snapshot{}
	snap.Leader = pidAddr(state.Leader)
	agents := snap.Agents.Edit()
	for _, s := range state.Slaves {
		at := pidAddr(s.PID)
		agents.Set(s.ID, &model.Agent{ID: s.ID, Hostname: s.Hostname, Addr: at.Addr(), Port: at.Port()})
	}
	snap.Agents = agents.Groups()
	frameworks, apps := snap.Frameworks.Edit(), snap.Apps.Edit()
	for _, f := range state.Frameworks {
		fw := &model.Framework{ID: f.ID, Name: f.Name}
		if at := pidAddr(f.PID); at.IsValid() {
			fw.Addr, fw.Port = at.Addr(), at.Port()
		} else {
			fw.Addr = hostAddr(f.Hostname)
		}
		frameworks.Set(f.ID, fw)
		for _, task := range f.Tasks {
			agent, ok := agents.Get(task.SlaveID)
			if !ok {
				continue
			}
			addTask(apps, decodeTask(f.ID, f.Name, task, agent))
		}
	}
	snap.Frameworks, snap.Apps = frameworks.Groups(), apps.Groups()
	return snap
}

// addTask puts t into its app.
func addTask(apps *model.Editor[model.AppKey, *model.App], t *model.Task) {
	key := model.AppKey{FrameworkID: t.Key.FrameworkID, Name: t.DiscoveryName()}
	app := &model.App{Key: key, Framework: t.Framework}
	if old, ok := apps.Get(key); ok {
		app.Tasks = slices.Clone(old.Tasks)
	}
	app.Tasks = append(app.Tasks, t)
	slices.SortStableFunc(app.Tasks, func(a, b *model.Task) int { return strings.Compare(a.Key.ID, b.Key.ID) })
	apps.Set(key, app)
}

func decodeTask(frameworkID, framework string, v v0Task, agent *model.Agent) *model.Task {
	t := &model.Task{
		Key: model.TaskKey{FrameworkID: frameworkID, ID: v.ID}, Name: v.Name, Framework: framework,
		AgentID: v.SlaveID, AgentAddr: agent.Addr, Resources: portRanges(v.Resources.Ports),
	}
	if v.State == "TASK_RUNNING" {
		t.State = model.Running
	}
	if v.Discovery.Name != "" {
		t.Discovery = &model.Discovery{Name: v.Discovery.Name}
		for _, p := range v.Discovery.Ports.Ports {
			t.Discovery.Ports = append(t.Discovery.Ports, model.DiscoveryPort{Number: p.Number, Name: p.Name, Protocol: p.Protocol})
		}
	}
	status := newestRunning(v.Statuses)
	for _, info := range status.ContainerStatus.NetworkInfos {
		if len(info.IPAddresses) == 0 {
			t.Addrs = appendAddr(t.Addrs, info.IPAddress)
		}
		for _, ip := range info.IPAddresses {
			t.Addrs = appendAddr(t.Addrs, ip.IPAddress)
		}
	}
	labels := &model.LabelAddrs{}
	for _, l := range status.Labels {
		a, err := netip.ParseAddr(l.Value)
		switch {
		case err != nil:
		case l.Key == "Docker.NetworkSettings.IPAddress":
			labels.Docker = append(labels.Docker, a)
		case l.Key == "MesosContainerizer.NetworkSettings.IPAddress":
			labels.Mesos = append(labels.Mesos, a)
		}
	}
	t.LabelAddrs = labels
	return t
}

func appendAddr(addrs []model.Address, s string) []model.Address {
	if a, err := netip.ParseAddr(s); err == nil {
		return append(addrs, model.Address{Addr: a})
	}
	return addrs
}

func newestRunning(statuses []v0Status) v0Status {
	best := v0Status{Timestamp: -1}
	for _, s := range statuses {
		if s.State == "TASK_RUNNING" && s.Timestamp > best.Timestamp {
			best = s
		}
	}
	return best
}

func portRanges(text string) []model.PortRange {
	_, text, _ = strings.Cut(text, "[")
	text, _, _ = strings.Cut(text, "]")
	var out []model.PortRange
	for part := range strings.SplitSeq(text, ",") {
		first, last, _ := strings.Cut(strings.TrimSpace(part), "-")
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 == nil && err2 == nil {
			out = append(out, model.PortRange{First: uint16(from), Last: uint16(to)})
		}
	}
	return out
}

// pidAddr reads "name@host:port".
func pidAddr(pid string) netip.AddrPort {
	_, at, _ := strings.Cut(strings.TrimSpace(pid), "@")
	if ap, err := netip.ParseAddrPort(at); err == nil {
		return ap
	}
	host, port, _ := strings.Cut(at, ":")
	n, _ := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(hostAddr(host), uint16(n))
}

// hostAddr resolves the one name that the states have.
func hostAddr(host string) netip.Addr {
	if host == "localhost" {
		return netip.MustParseAddr("127.0.0.1")
	}
	a, _ := netip.ParseAddr(host)
	return a
}

// readMesosDNSConfig returns what the configuration of a variant comes to here,
// and the masters in it.
func readMesosDNSConfig(t testing.TB, variant string) (Config, []netip.AddrPort) {
	t.Helper()
	var c struct {
		Domain, Listener       string
		TTL                    int
		IPSources              []IPSource
		Masters                []netip.AddrPort
		SOAMname, SOARname     string
		SRVRecordDefaultWeight *uint16
		EnforceRFC952          bool
		SOARefresh, SOARetry   int
		SOAExpire, SOAMinttl   int
	}
	outside.JSON(t, &c, "conformance", "mesos-dns", variant, "config.json")
	cfg := DefaultConfig()
	cfg.DCOSDomain = ""
	cfg.Domain, cfg.Exact = c.Domain, true
	cfg.TTL = seconds64(c.TTL)
	cfg.SOAMinimum = cfg.TTL
	cfg.IPSources = c.IPSources
	if c.IPSources == nil {
		cfg.IPSources = []IPSource{IPSourceNetInfo, IPSourceMesos, IPSourceHost}
	}
	cfg.EnforceRFC952 = c.EnforceRFC952
	cfg.SOAMname = cmp.Or(c.SOAMname, cfg.SOAMname)
	cfg.SOARname = cmp.Or(c.SOARname, cfg.SOARname)
	if c.SRVRecordDefaultWeight != nil {
		cfg.SRVWeight = *c.SRVRecordDefaultWeight
	}
	cfg.NSAddrs = []netip.Addr{netip.MustParseAddr(c.Listener)}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	return cfg, c.Masters
}
