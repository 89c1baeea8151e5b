package vip

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/model"
)

// The kinds of networks of a task, as statuses tell of them: on its own node a
// backend with a mapped port is reached past the mapping where that is known and
// asked for, on others never. Which families a task has does not change, or nodes
// would not agree on the addresses of VIPs.
func TestShortCuts(t *testing.T) {
	agent := netip.MustParseAddr("10.0.0.1")
	mapped := func(byMesos bool, addrs ...string) *model.Task {
		task := &model.Task{
			Key: model.TaskKey{FrameworkID: "F", ID: "web.1"}, Framework: "marathon", AgentAddr: agent, State: model.Running,
			Mappings: []model.PortMapping{{HostPort: 31000, ContainerPort: 80, Proto: model.TCP, ByMesos: byMesos}},
			Discovery: &model.Discovery{Ports: []model.DiscoveryPort{{
				Number: 31000, Protocol: "tcp", Labels: []model.Label{{Key: "VIP_0", Value: "/web:80"}, {Key: "network-scope", Value: "host"}},
			}}},
		}
		for _, a := range addrs {
			task.Addrs = append(task.Addrs, model.Address{Addr: netip.MustParseAddr(a)})
		}
		task.Ports, _ = model.JoinPorts(task)
		return task
	}
	with := func(task *model.Task, change func(*model.Task)) *model.Task {
		change(task)
		task.Ports, _ = model.JoinPorts(task)
		return task
	}
	const here, there = "10.0.0.1:31000", "172.31.254.2:80"
	for name, tc := range map[string]struct {
		task             *model.Task
		none, mesos, all string
	}{
		"Mesos' bridge":                       {mapped(true, "172.31.254.2"), here, there, there},
		"Docker's bridge":                     {mapped(false, "172.31.254.2"), here, here, there},
		"no address yet":                      {mapped(true), here, here, here},
		"the agent's address":                 {mapped(true, "10.0.0.1"), "10.0.0.1:31000", "10.0.0.1:31000", "10.0.0.1:31000"},
		"an address of another family":        {mapped(true, "fd00::2"), here, here, here},
		"addresses of both":                   {mapped(true, "fd00::2", "172.31.254.2"), here, there, there},
		"a mapping of another protocol":       {with(mapped(true, "172.31.254.2"), func(t *model.Task) { t.Mappings[0].Proto = model.UDP }), here, here, here},
		"a mapping that is not known":         {with(mapped(true, "172.31.254.2"), func(t *model.Task) { t.Mappings = nil }), here, here, here},
		"an agent whose address is not known": {with(mapped(true, "172.31.254.2"), func(t *model.Task) { t.AgentAddr = netip.Addr{} }), "none", "none", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]string{}
			for _, node := range []netip.Addr{agent, netip.MustParseAddr("10.0.0.2")} {
				for _, cut := range []ShortCut{NoShortCut, ShortCutMesos, ShortCutAll} {
					cfg := DefaultConfig()
					cfg.Node, cfg.ShortCut = []netip.Addr{node}, cut
					at := "none"
					asks, _ := Asks(cfg, "marathon", tc.task)
					if len(asks) == 1 {
						at = asks[0].Backend.Addr.String()
					}
					got[node.String()+" "+cut.String()] = at
				}
			}
			want := map[string]string{
				"10.0.0.1 none": tc.none, "10.0.0.1 mesos": tc.mesos, "10.0.0.1 all": tc.all,
				"10.0.0.2 none": tc.none, "10.0.0.2 mesos": tc.none, "10.0.0.2 all": tc.none,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("backends by node and option (-want +got):\n%s", diff)
			}
		})
	}
}

func TestShortCutsAreWords(t *testing.T) {
	for word, want := range map[string]ShortCut{"none": NoShortCut, "Mesos": ShortCutMesos, "all": ShortCutAll} {
		var got ShortCut
		if err := got.UnmarshalText([]byte(word)); err != nil || got != want {
			t.Errorf("%s: %s, %v", word, got, err)
		}
	}
	got := ShortCutAll
	if err := got.UnmarshalText([]byte("docker")); err == nil || got != ShortCutAll {
		t.Errorf("docker: %s, %v", got, err)
	}
}
