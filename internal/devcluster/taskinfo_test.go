package devcluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiscoveryIsWhatMarathonWrites(t *testing.T) {
	scope := func(pairs ...string) *labels {
		l := &labels{}
		for i := 0; i < len(pairs); i += 2 {
			l.Labels = append(l.Labels, label{pairs[i], pairs[i+1]})
		}
		return l
	}
	tests := []struct {
		name, app string
		ports     []int
		want      []discoveryPort
		container *containerInfo
	}{
		{
			name:  "host mode: the host port and the user's labels only",
			app:   `"portDefinitions": [{"name": "http", "labels": {"VIP_0": "/a:80"}}, {"protocol": "udp,tcp"}]`,
			ports: []int{31001, 31002},
			want: []discoveryPort{
				{Number: 31001, Name: "http", Protocol: "tcp", Labels: scope("VIP_0", "/a:80")},
				{Number: 31002, Protocol: "udp"},
				{Number: 31002, Protocol: "tcp"},
			},
		},
		{
			name: "a Docker bridge: the host port, scope host",
			app: `"container": {"type": "DOCKER", "docker": {"image": "i", "network": "BRIDGE", "privileged": true,
				"portMappings": [{"containerPort": 80, "name": "http", "labels": {"VIP_0": "/a:80"}}, {"containerPort": 0}]}}`,
			ports: []int{31001, 31002},
			want: []discoveryPort{
				{Number: 31001, Name: "http", Protocol: "tcp", Labels: scope("VIP_0", "/a:80", "network-scope", "host")},
				{Number: 31002, Protocol: "tcp", Labels: scope("network-scope", "host")},
			},
			container: &containerInfo{Type: "DOCKER", Docker: &dockerInfo{Image: "i", Network: "BRIDGE", Privileged: true, PortMappings: []portMapping{
				{31001, 80, "tcp"}, {31002, 31002, "tcp"}}}},
		},
		{
			name:  "a bridge of the Mesos containerizer: mappings in the network",
			app:   `"networks": [{"mode": "container/bridge"}], "container": {"type": "MESOS", "portMappings": [{"containerPort": 80}]}`,
			ports: []int{31001},
			want:  []discoveryPort{{Number: 31001, Protocol: "tcp", Labels: scope("network-scope", "host")}},
			container: &containerInfo{Type: "MESOS", NetworkInfos: []networkInfo{
				{Name: "mesos-bridge", PortMappings: []portMapping{{31001, 80, "tcp"}}}}},
		},
		{
			name: "a container network: the container's port once for each network and protocol",
			app: `"networks": [{"mode": "container", "name": "n1"}, {"mode": "container", "name": "n2"}],
				"container": {"type": "MESOS", "portMappings": [{"containerPort": 80}, {"containerPort": 81, "networkNames": ["n2"], "protocol": "tcp,udp"}]}`,
			ports: []int{80, 81},
			want: []discoveryPort{
				{Number: 80, Protocol: "tcp", Labels: scope("network-scope", "container", "network-name", "n1")},
				{Number: 80, Protocol: "tcp", Labels: scope("network-scope", "container", "network-name", "n2")},
				{Number: 81, Protocol: "tcp", Labels: scope("network-scope", "container", "network-name", "n2")},
				{Number: 81, Protocol: "udp", Labels: scope("network-scope", "container", "network-name", "n2")},
			},
			container: &containerInfo{Type: "MESOS", NetworkInfos: []networkInfo{{Name: "n1"}, {Name: "n2"}}},
		},
		{
			name: "a container network with a host port: scope host",
			app: `"networks": [{"mode": "container", "name": "dcos"}],
				"container": {"type": "DOCKER", "docker": {"image": "i"}, "portMappings": [{"containerPort": 80, "hostPort": 0}]}`,
			ports: []int{31001},
			want:  []discoveryPort{{Number: 31001, Protocol: "tcp", Labels: scope("network-scope", "host")}},
			container: &containerInfo{Type: "DOCKER", NetworkInfos: []networkInfo{{Name: "dcos"}},
				Docker: &dockerInfo{Image: "i", Network: "USER", PortMappings: []portMapping{{31001, 80, "tcp"}}}},
		},
		{name: "no ports", app: `"portDefinitions": []`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := parse(t, `{"id": "/product/db/mysql", "cmd": "x", "labels": {"b": "2", "a": "1"}, `+tt.app+`}`)
			got := taskInfo(&a, tt.ports)
			want := got
			want.Name = "mysql.db.product"
			want.Labels = *scope("a", "1", "b", "2")
			want.Discovery = discovery{"FRAMEWORK", "mysql.db.product", discoveryPorts{tt.want}}
			want.Container = tt.container
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnlyChecksOfMesosAreInTheTask(t *testing.T) {
	base := healthCheck{DelaySeconds: 15, IntervalSeconds: 2, TimeoutSeconds: 20, ConsecutiveFailures: 3, GracePeriodSeconds: 5}
	with := func(edit func(*healthCheck)) *healthCheck {
		h := base
		edit(&h)
		return &h
	}
	tests := []struct {
		name, check string
		want        *healthCheck
	}{
		{"HTTP is Marathon's", `"protocol": "HTTP"`, nil},
		{"TCP is Marathon's", `"protocol": "TCP"`, nil},
		{"MESOS_TCP", `"protocol": "MESOS_TCP"`, with(func(h *healthCheck) { h.Type, h.TCP = "TCP", &tcpCheck{"IPv4", 31000} })},
		{"MESOS_HTTPS", `"protocol": "MESOS_HTTPS", "path": "/h", "port": 443`, with(func(h *healthCheck) {
			h.Type, h.HTTP = "HTTP", &httpCheck{"IPv4", "https", 443, "/h"}
		})},
		{"COMMAND", `"protocol": "COMMAND", "command": {"value": "true"}`, with(func(h *healthCheck) {
			h.Type, h.Command = "COMMAND", &commandInfo{true, "true"}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := parse(t, `{"id": "/a", "cmd": "x", "healthChecks": [{"gracePeriodSeconds": 5, "intervalSeconds": 2, `+tt.check+`}]}`)
			if diff := cmp.Diff(tt.want, taskInfo(&a, []int{31000}).HealthCheck); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
