package marathon

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
	"waggle/model"
)

// TestDiscoveryIsWhatMarathonWrites runs the marathon-discovery cases of
// conformance/dcos-net.json.
func TestDiscoveryIsWhatMarathonWrites(t *testing.T) {
	var cases []struct {
		Name, Group string
		Input       struct {
			App, Pod json.RawMessage
			Assigned []*int64
		}
		Expect struct {
			Name  string `json:"discovery.name"`
			Ports []struct {
				Number         int64
				Name, Protocol string
				Labels         map[string]string
			}
		}
	}
	outside.JSON(t, &cases, "conformance", "dcos-net.json")
	ran := 0
	for _, c := range cases {
		if c.Group != "marathon-discovery" {
			continue
		}
		ran++
		t.Run(c.Name, func(t *testing.T) {
			s := specOf(t, c.Input.App, c.Input.Pod)
			var given []int64
			for _, a := range c.Input.Assigned {
				if a != nil {
					given = append(given, *a)
				}
			}
			got, _ := s.discover(given)
			if c.Expect.Name != "" && s.discovery != c.Expect.Name {
				t.Errorf("found as %s, want %s", s.discovery, c.Expect.Name)
			}
			if len(got) != len(c.Expect.Ports) {
				t.Fatalf("ports %+v, want %+v", got, c.Expect.Ports)
			}
			for i, want := range c.Expect.Ports {
				if want.Labels == nil {
					want.Labels = map[string]string{}
				}
				is := map[string]string{}
				for _, l := range got[i].Labels {
					is[l.Key] = l.Value
				}
				if d := cmp.Diff(want.Labels, is); d != "" {
					t.Errorf("labels of port %d (-want +got):\n%s", i, d)
				}
				if got[i].Number != want.Number || want.Name != "" && got[i].Name != want.Name || want.Protocol != "" && got[i].Protocol != want.Protocol {
					t.Errorf("port %d is %+v, want %+v", i, got[i], want)
				}
			}
		})
	}
	if ran < 8 {
		t.Errorf("%d cases", ran)
	}
}

// specOf reads the case's app or pod, whose networks may be names alone.
func specOf(t *testing.T, app, pod json.RawMessage) *spec {
	t.Helper()
	full := func(raw json.RawMessage) json.RawMessage {
		var doc map[string]any
		if err := json.Unmarshal(raw, &doc); err != nil {
			t.Fatal(err)
		}
		list, _ := doc["networks"].([]any)
		for i, n := range list {
			if name, ok := n.(string); ok {
				list[i] = map[string]any{"mode": "container", "name": name}
			}
		}
		out, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if app != nil {
		var a appDocument
		if err := json.Unmarshal(full(app), &a); err != nil {
			t.Fatal(err)
		}
		return a.spec()
	}
	var p struct {
		Networks  json.RawMessage
		Endpoints []endpoint
	}
	if err := json.Unmarshal(full(pod), &p); err != nil {
		t.Fatal(err)
	}
	endpoints, err := json.Marshal(p.Endpoints)
	if err != nil {
		t.Fatal(err)
	}
	r, err := readPod([]byte(`{"id": "/p", "spec": {"networks": ` + string(p.Networks) + `, "containers": [{"name": "c", "endpoints": ` + string(endpoints) + `}]},
		"instances": [{"id": "p.1", "containers": [{"name": "c", "containerId": "p.1.c", "status": "TASK_RUNNING"}]}]}`))
	if err != nil || len(r.problems) > 0 {
		t.Fatal(err, r.problems)
	}
	return r.instances[0].spec
}

func only(t *testing.T, app string) (*model.App, []model.Problem) {
	t.Helper()
	snap, err := Decode(t.Context(), strings.NewReader(`{"apps": [`+app+`]}`), nowhere)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range snap.Apps.All() {
		return a, snap.AllProblems()
	}
	return nil, snap.AllProblems()
}

// TestEveryFormOfAnApp reads the networks of each era; what is looked at is
// where each port is reached.
func TestEveryFormOfAnApp(t *testing.T) {
	const running = `"tasks": [{"id": "web.1", "host": "10.0.0.5", "slaveId": "S1", "state": "TASK_RUNNING", `
	tests := []struct{ name, app, want string }{
		{"host, 1.5", `{"id": "/g/web", "networks": [{"mode": "host"}], "portDefinitions": [{"port": 10001, "name": "http", "labels": {"VIP_0": "/web:80"}}, {"port": 0, "protocol": "udp"}],
			` + running + `"ports": [31001, 31002], "ipAddresses": [{"ipAddress": "10.0.0.5", "protocol": "IPv4"}]}]}`,
			"web.g http tcp 10.0.0.5:31001 10001, default udp 10.0.0.5:31002 0"},
		{"host, without an address of its own", `{"id": "/web", "portDefinitions": [{"port": 0}], ` + running + `"ports": [31001]}]}`,
			"web default tcp 10.0.0.5:31001 0"},
		{"host, before 1.0", `{"id": "/web", "ports": [10001, 10002], "tasks": [{"id": "web.1", "host": "10.0.0.5", "startedAt": "2014-10-10T00:00:00Z", "ports": [31001, 31002]}]}`,
			"web default tcp 10.0.0.5:31001 10001, default tcp 10.0.0.5:31002 10002"},
		{"bridge, 1.5: a missing hostPort is any", `{"id": "/web", "networks": [{"mode": "container/bridge"}], "container": {"portMappings": [{"containerPort": 80, "servicePort": 10101, "name": "http"}, {"containerPort": 0, "hostPort": 0, "protocol": "udp,tcp"}]},
			` + running + `"ports": [1565, 1566], "ipAddresses": [{"ipAddress": "172.17.0.2"}]}]}`,
			"web http tcp 10.0.0.5:1565 10101, default udp 10.0.0.5:1566 0, default tcp 10.0.0.5:1566 0"},
		{"bridge, 1.4", `{"id": "/web", "ports": [10101], "container": {"docker": {"network": "BRIDGE", "portMappings": [{"containerPort": 80, "hostPort": 0, "servicePort": 10101}]}},
			` + running + `"ports": [1565], "ipAddresses": [{"ipAddress": "172.17.0.2"}]}]}`,
			"web default tcp 10.0.0.5:1565 10101"},
		{"a network of containers", `{"id": "/web", "networks": [{"mode": "container", "name": "dcos"}], "container": {"portMappings": [{"containerPort": 8080, "labels": {"VIP_0": "/web:80"}}, {"containerPort": 9090, "hostPort": 0, "name": "admin"}]},
			` + running + `"ports": [31005], "ipAddresses": [{"ipAddress": "9.0.2.130"}]}]}`,
			"web default tcp 9.0.2.130:8080 0, admin tcp 10.0.0.5:31005 0"},
		{"a network of containers, 1.4", `{"id": "/web", "container": {"docker": {"network": "USER", "portMappings": [{"containerPort": 8080, "servicePort": 10100}]}}, "ipAddress": {"networkName": "dcos"},
			` + running + `"ports": [], "ipAddresses": [{"ipAddress": "9.0.2.130"}]}]}`,
			"web default tcp 9.0.2.130:8080 10100"},
		{"an address of its own, 1.4", `{"id": "/web", "ipAddress": {"networkName": "dcos", "discovery": {"ports": [{"number": 80, "name": "http", "protocol": "tcp"}]}},
			` + running + `"ipAddresses": [{"ipAddress": "9.0.2.130"}]}]}`,
			"web http tcp 9.0.2.130:80 0"},
		{"a task that has no ports yet", `{"id": "/web", "portDefinitions": [{"port": 0}], "tasks": [{"id": "web.1", "host": "10.0.0.5", "state": "TASK_STAGING", "ports": []}]}`, "web "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			app, problems := only(t, tt.app)
			if app == nil || len(problems) > 0 {
				t.Fatalf("app %v, problems %v", app, problems)
			}
			var ports []string
			for _, p := range app.Tasks[0].Ports {
				for _, e := range app.Tasks[0].Endpoints(p) {
					ports = append(ports, strings.Join([]string{p.Name, p.Proto.String(), e.String(), json.Number(intText(p.ServicePort)).String()}, " "))
				}
			}
			if got := app.Key.Name + " " + strings.Join(ports, ", "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func intText(n uint16) string {
	text, _ := json.Marshal(n)
	return string(text)
}

func TestHealthIsWhatEveryCheckSays(t *testing.T) {
	tests := []struct {
		name, checks, results string
		want                  model.Health
	}{
		{"nobody checks", `[]`, `null`, model.HealthUnknown},
		{"not yet", `[{}]`, `null`, model.Unhealthy},
		{"not yet, as 1.5 shows it", `[{}]`, `[{"alive": false, "consecutiveFailures": 0}]`, model.Unhealthy},
		{"alive", `[{}]`, `[{"alive": true}]`, model.Healthy},
		{"one of two has not spoken", `[{}, {}]`, `[{"alive": true}]`, model.Unhealthy},
		{"one of two failed", `[{}, {}]`, `[{"alive": true}, {"alive": false, "consecutiveFailures": 2}]`, model.Unhealthy},
		{"both alive", `[{}, {}]`, `[{"alive": true}, {"alive": true}]`, model.Healthy},
		{"a result that is null", `[{}]`, `[null, {"alive": true}]`, model.Healthy},
	}
	for _, tt := range tests {
		app, _ := only(t, `{"id": "/a", "healthChecks": `+tt.checks+`, "tasks": [{"id": "a.1", "state": "TASK_RUNNING", "healthCheckResults": `+tt.results+`}]}`)
		if got := app.Tasks[0].Health; got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	app, _ := only(t, `{"id": "/a", "readinessCheckResults": [{"name": "r", "taskId": "a.1", "ready": false}], "tasks": [{"id": "a.1", "state": "TASK_RUNNING"}, {"id": "a.2", "state": "TASK_RUNNING"}]}`)
	if app.Tasks[0].Health != model.Unhealthy || app.Tasks[1].Health != model.HealthUnknown {
		t.Errorf("a task that is not ready: %+v", app.Tasks)
	}
}
