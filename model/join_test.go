package model

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	agentAddr     = netip.MustParseAddr("10.0.0.5")
	containerAddr = netip.MustParseAddr("9.0.1.7")
)

// labels makes Labels of key, value, key, value.
func labels(kv ...string) []Label {
	var out []Label
	for i := 0; i+1 < len(kv); i += 2 {
		out = append(out, Label{kv[i], kv[i+1]})
	}
	return out
}

func TestJoinPorts(t *testing.T) {
	inContainer := []Address{{Addr: containerAddr}}
	onHost := []Address{{Addr: agentAddr}}
	scope := func(s string) []Label { return labels("network-scope", s) }
	one := func(p DiscoveryPort) *Discovery { return &Discovery{Ports: []DiscoveryPort{p}} }
	web := DiscoveryPort{Number: 8080, Name: "web", Protocol: "tcp"}
	with := func(p DiscoveryPort, l []Label) DiscoveryPort { p.Labels = l; return p }
	mapping := PortMapping{HostPort: 20560, ContainerPort: 8080, Proto: TCP}
	bad := func(value, err string) []Problem {
		return []Problem{{Task: "t.1", Field: "discovery.ports[0]", Value: value, Error: err}}
	}

	for _, tt := range []struct {
		name     string
		task     Task
		want     []Port
		problems []Problem
	}{
		{name: "no discovery makes no ports, whatever the resources and mappings",
			task: Task{Addrs: inContainer, Mappings: []PortMapping{mapping}, Resources: []PortRange{{31000, 31005}}}},
		{name: "an empty discovery makes no ports", task: Task{Discovery: &Discovery{Name: "x"}, Mappings: []PortMapping{mapping}}},
		{name: "without a scope the number is the task's own",
			task: Task{Addrs: inContainer, Discovery: one(web)},
			want: []Port{{Name: "web", Proto: TCP, Number: 8080}}},
		{name: "a name is default when none is given",
			task: Task{Addrs: inContainer, Discovery: one(DiscoveryPort{Number: 53, Protocol: "UDP"})},
			want: []Port{{Name: "default", Proto: UDP, Number: 53}}},
		{name: "scope host makes a host port",
			task: Task{Addrs: inContainer, Discovery: one(with(web, scope("host")))},
			want: []Port{{Name: "web", Proto: TCP, HostPort: 8080, Labels: scope("host")}}},
		{name: "scope host takes the container's port from the mapping",
			task: Task{Addrs: inContainer, Mappings: []PortMapping{mapping},
				Discovery: one(DiscoveryPort{Number: 20560, Name: "web", Protocol: "tcp", Labels: scope("host")})},
			want: []Port{{Name: "web", Proto: TCP, Number: 8080, HostPort: 20560, Labels: scope("host")}}},
		{name: "scope container takes the host's port from the mapping",
			task: Task{Addrs: inContainer, Mappings: []PortMapping{mapping}, Discovery: one(with(web, scope("container")))},
			want: []Port{{Name: "web", Proto: TCP, Number: 8080, HostPort: 20560, Labels: scope("container")}}},
		{name: "without a scope a mapped host port is one",
			task: Task{Addrs: inContainer, Mappings: []PortMapping{mapping},
				Discovery: one(DiscoveryPort{Number: 20560, Name: "web", Protocol: "tcp"})},
			want: []Port{{Name: "web", Proto: TCP, Number: 8080, HostPort: 20560}}},
		{name: "a mapping of the other protocol is another port's",
			task: Task{Addrs: inContainer, Mappings: []PortMapping{{HostPort: 20560, ContainerPort: 8080, Proto: UDP}}, Discovery: one(web)},
			want: []Port{{Name: "web", Proto: TCP, Number: 8080}}},
		{name: "the first of two scope labels counts",
			task: Task{Addrs: inContainer, Discovery: one(with(web, labels("network-scope", "host", "network-scope", "container")))},
			want: []Port{{Name: "web", Proto: TCP, HostPort: 8080, Labels: labels("network-scope", "host", "network-scope", "container")}}},
		{name: "the scope label's key is case-sensitive",
			task: Task{Addrs: inContainer, Discovery: one(with(web, labels("Network-Scope", "host")))},
			want: []Port{{Name: "web", Proto: TCP, Number: 8080, Labels: labels("Network-Scope", "host")}}},
		{name: "the network's name is kept",
			task: Task{Addrs: inContainer, Discovery: one(with(web, labels("network-scope", "container", "network-name", "dcos")))},
			want: []Port{{Name: "web", Proto: TCP, Number: 8080, Network: "dcos", Labels: labels("network-scope", "container", "network-name", "dcos")}}},
		{name: "in host networking the host port is the port",
			task: Task{State: Running, Addrs: onHost, Discovery: one(with(web, scope("host")))},
			want: []Port{{Name: "web", Proto: TCP, Number: 8080, Labels: scope("host")}}},
		{name: "also while the task is being killed",
			task: Task{State: Killing, Addrs: onHost, Discovery: one(with(web, scope("host")))},
			want: []Port{{Name: "web", Proto: TCP, Number: 8080, Labels: scope("host")}}},
		{name: "but not before it runs, when the address may be the agent's for another reason",
			task: Task{State: Preparing, Addrs: onHost, Discovery: one(with(web, scope("host")))},
			want: []Port{{Name: "web", Proto: TCP, HostPort: 8080, Labels: scope("host")}}},
		{name: "nor once it ended",
			task: Task{State: Terminal, Addrs: onHost, Discovery: one(with(web, scope("host")))},
			want: []Port{{Name: "web", Proto: TCP, HostPort: 8080, Labels: scope("host")}}},
		{name: "two addresses are not host networking, even with the agent's among them",
			task: Task{State: Running, Addrs: []Address{{Addr: agentAddr}, {Addr: containerAddr}}, Discovery: one(with(web, scope("host")))},
			want: []Port{{Name: "web", Proto: TCP, HostPort: 8080, Labels: scope("host")}}},

		{name: "an unknown scope costs its port",
			task:     Task{Discovery: one(with(web, scope("public")))},
			problems: bad("web 8080/tcp", `label network-scope is "public", neither host nor container`)},
		{name: "an unknown protocol costs its port",
			task:     Task{Discovery: one(DiscoveryPort{Number: 1, Protocol: "sctp"})},
			problems: bad("1/sctp", `protocol "sctp" is neither tcp nor udp`)},
		{name: "two protocols in one word cost their port, as in DC/OS: Marathon splits them since 1.5",
			task:     Task{Discovery: one(DiscoveryPort{Number: 1, Protocol: "tcp,udp"})},
			problems: bad("1/tcp,udp", `protocol "tcp,udp" is neither tcp nor udp`)},
		{name: "a service port goes with its port",
			task: Task{Discovery: one(DiscoveryPort{Number: 1, Protocol: "tcp", ServicePort: 10101})},
			want: []Port{{Name: "default", Proto: TCP, Number: 1, ServicePort: 10101}}},
		{name: "a missing protocol costs its port",
			task:     Task{Discovery: one(DiscoveryPort{Number: 1})},
			problems: bad("1/", `protocol "" is neither tcp nor udp`)},
		{name: "port 65535 is the last",
			task: Task{Discovery: one(DiscoveryPort{Number: 65535, Protocol: "tcp"})},
			want: []Port{{Name: "default", Proto: TCP, Number: 65535}}},
		{name: "a port above 65535 is refused, not wrapped",
			task:     Task{Discovery: one(DiscoveryPort{Number: 70000, Protocol: "tcp"})},
			problems: bad("70000/tcp", "port number 70000 is not within 1 to 65535")},
		{name: "a negative port is refused",
			task:     Task{Discovery: one(DiscoveryPort{Number: -1, Protocol: "tcp"})},
			problems: bad("-1/tcp", "port number -1 is not within 1 to 65535")},
		{name: "a bad port leaves its neighbours",
			task: Task{Discovery: &Discovery{Ports: []DiscoveryPort{{Number: 70000, Protocol: "tcp"}, web}}},
			want: []Port{{Name: "web", Proto: TCP, Number: 8080}}, problems: bad("70000/tcp", "port number 70000 is not within 1 to 65535")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.task.Key.ID, tt.task.AgentAddr = "t.1", agentAddr
			ports, problems := JoinPorts(&tt.task)
			if d := cmp.Diff(tt.want, ports, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("ports (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.problems, problems, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

// TestJoinPortsDropsPortZeroSilently: Mesos itself reports 0 for a task on a
// container network without a port, so it is no mistake to point at.
func TestJoinPortsDropsPortZeroSilently(t *testing.T) {
	for _, scope := range []string{"host", "container"} {
		task := &Task{Discovery: &Discovery{Ports: []DiscoveryPort{{Protocol: "tcp", Labels: labels("network-scope", scope)}}}}
		if ports, problems := JoinPorts(task); len(ports) != 0 || len(problems) != 0 {
			t.Errorf("scope %s: got %v and problems %v", scope, ports, problems)
		}
	}
}

func TestJoinPortsLeavesTheTaskAsItIs(t *testing.T) {
	build := func() *Task {
		return &Task{
			State: Running, AgentAddr: agentAddr, Addrs: []Address{{Addr: agentAddr}},
			Mappings: []PortMapping{{HostPort: 1, ContainerPort: 2, Proto: TCP}},
			Discovery: &Discovery{Ports: []DiscoveryPort{
				{Number: 1, Protocol: "tcp", Labels: labels("network-scope", "host")}, {Number: 9, Protocol: "x"},
			}},
		}
	}
	task := build()
	JoinPorts(task)
	if d := cmp.Diff(build(), task, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
}

func TestEndpoints(t *testing.T) {
	task := &Task{AgentAddr: agentAddr, Addrs: []Address{{containerAddr, "dcos"}, {netip.MustParseAddr("192.168.5.3"), "dcos-1"}}}
	for _, tt := range []struct {
		name string
		task *Task
		port Port
		want []string
	}{
		{"a host port is at the agent", task, Port{Number: 8080, HostPort: 20560}, []string{"10.0.0.5:20560"}},
		{"a container's port is at all its addresses", task, Port{Number: 8080}, []string{"9.0.1.7:8080", "192.168.5.3:8080"}},
		{"a named network leaves one of them", task, Port{Number: 8080, Network: "dcos-1"}, []string{"192.168.5.3:8080"}},
		{"an address of no named network is in all", &Task{Addrs: []Address{{Addr: containerAddr}}}, Port{Number: 8080, Network: "x"}, []string{"9.0.1.7:8080"}},
		{"an unknown agent has no endpoint", &Task{}, Port{HostPort: 1}, nil},
		{"a task without addresses has no endpoint", &Task{AgentAddr: agentAddr}, Port{Number: 1}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, e := range tt.task.Endpoints(tt.port) {
				got = append(got, e.String())
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestInner(t *testing.T) {
	six := Address{Addr: netip.MustParseAddr("fd00::7")}
	bridge := &Task{AgentAddr: agentAddr, Addrs: []Address{{agentAddr, ""}, six, {containerAddr, "mesos-bridge"}}}
	for _, tt := range []struct {
		name string
		task *Task
		port Port
		want string
	}{
		{"behind a port of the agent is the container", bridge, Port{Number: 80, HostPort: 31000}, "9.0.1.7:80"},
		{"a port of the task's own leads nowhere else", bridge, Port{Number: 80}, "invalid AddrPort"},
		{"a port that leads to nobody knows what", bridge, Port{HostPort: 31000}, "invalid AddrPort"},
		{"another network's address is not it", bridge, Port{Number: 80, HostPort: 31000, Network: "x"}, "invalid AddrPort"},
		{"no address but the agent's", &Task{AgentAddr: agentAddr, Addrs: []Address{{Addr: agentAddr}}}, Port{Number: 80, HostPort: 31000}, "invalid AddrPort"},
		{"an address that is none", &Task{AgentAddr: agentAddr, Addrs: []Address{{Addr: netip.IPv4Unspecified()}}}, Port{Number: 80, HostPort: 31000}, "invalid AddrPort"},
		{"an address of the other family", &Task{AgentAddr: agentAddr, Addrs: []Address{six}}, Port{Number: 80, HostPort: 31000}, "invalid AddrPort"},
	} {
		if got := tt.task.Inner(tt.port).String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
