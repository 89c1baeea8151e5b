package devcluster

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
)

func intp(n int) *int { return &n }

// plainDefaults is what Marathon fills in.
func plainDefaults(edit func(*App)) App {
	a := App{
		Instances: 1, CPUs: 1, Mem: 128, BackoffSeconds: 1, BackoffFactor: 1.15, MaxLaunchDelaySeconds: 300, KillSelection: "YOUNGEST_FIRST",
		Env: map[string]string{}, Labels: map[string]string{}, Networks: []Network{{Mode: modeHost}}, HealthChecks: []HealthCheck{},
		PortDefinitions: []PortDefinition{{Name: "default", Protocol: "tcp"}},
	}
	edit(&a)
	return a
}

func TestDefinitions(t *testing.T) {
	tests := []struct {
		name, in string
		want     App
	}{
		{"the least there can be", `{"id": "a", "cmd": "true", "unknown": {"x": 1}}`,
			plainDefaults(func(a *App) { a.ID, a.Cmd = "/a", "true" })},
		{"no ports at all", `{"id": "/a", "cmd": "true", "portDefinitions": []}`,
			plainDefaults(func(a *App) { a.ID, a.Cmd, a.PortDefinitions = "/a", "true", []PortDefinition{} })},
		{"ports of 1.4", `{"id": "/a", "args": ["x", "y"], "ports": [0, 8080], "requirePorts": true}`,
			plainDefaults(func(a *App) {
				a.ID, a.Args, a.RequirePorts = "/a", []string{"x", "y"}, true
				a.PortDefinitions = []PortDefinition{{Protocol: "tcp"}, {Port: 8080, Protocol: "tcp"}}
			})},
		{"a bridge of 1.4", `{"id": "/a", "cmd": "x", "requirePorts": true, "container": {"type": "DOCKER", "docker": {"image": "i", "network": "BRIDGE",
				"portMappings": [{"containerPort": 80, "protocol": "udp,tcp", "labels": {"VIP_0": "/a:80"}}]}}}`,
			plainDefaults(func(a *App) {
				a.ID, a.Cmd, a.PortDefinitions = "/a", "x", []PortDefinition{}
				a.Networks = []Network{{Mode: modeBridge}}
				a.Container = &Container{Type: "DOCKER", Docker: &Docker{Image: "i"}, PortMappings: []PortMapping{
					{ContainerPort: 80, HostPort: intp(0), Protocol: "udp,tcp", Labels: map[string]string{"VIP_0": "/a:80"}}}}
			})},
		{"a user network of 1.4", `{"id": "/a", "cmd": "x", "ipAddress": {"networkName": "dcos"}, "container": {"type": "DOCKER",
				"docker": {"image": "i", "network": "USER", "portMappings": [{"containerPort": 80}]}}}`,
			plainDefaults(func(a *App) {
				a.ID, a.Cmd, a.PortDefinitions = "/a", "x", []PortDefinition{}
				a.Networks = []Network{{Mode: modeContainer, Name: "dcos"}}
				a.Container = &Container{Type: "DOCKER", Docker: &Docker{Image: "i"}, PortMappings: []PortMapping{{ContainerPort: 80, Protocol: "tcp"}}}
			})},
		{"an address of its own in 1.4", `{"id": "/a", "cmd": "x", "ipAddress": {"networkName": "dcos", "discovery": {"ports": [{"number": 80, "name": "http", "protocol": "tcp"}]}}}`,
			plainDefaults(func(a *App) {
				a.ID, a.Cmd, a.PortDefinitions = "/a", "x", []PortDefinition{}
				a.Networks = []Network{{Mode: modeContainer, Name: "dcos"}}
				a.Container = &Container{Type: "MESOS", PortMappings: []PortMapping{{ContainerPort: 80, Name: "http", Protocol: "tcp"}}}
			})},
		{"a health check with Marathon's defaults", `{"id": "/a", "cmd": "x", "healthChecks": [{"path": "/h"}]}`,
			plainDefaults(func(a *App) {
				a.ID, a.Cmd = "/a", "x"
				a.HealthChecks = []HealthCheck{{Protocol: "HTTP", Path: "/h", GracePeriodSeconds: 300, IntervalSeconds: 60, TimeoutSeconds: 20, DelaySeconds: 15, MaxConsecutiveFailures: 3}}
			})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := parse(t, tt.in)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			out, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			again := parse(t, string(out))
			if !got.sameTasks(again) {
				t.Errorf("what GET shows is another app when it is PUT: %s", out)
			}
		})
	}
}

func TestBadDefinitionsNameTheAppAndTheField(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"no id", `{"cmd": "x"}`, "app /: id: must"},
		{"an id with capitals", `{"id": "/A", "cmd": "x"}`, "app /A: id: must"},
		{"an id that climbs", `{"id": "/a/../b", "cmd": "x"}`, "id: must"},
		{"nothing to run", `{"id": "/a"}`, "app /a: cmd: nothing"},
		{"cmd and args", `{"id": "/a", "cmd": "x", "args": ["y"]}`, "app /a: args:"},
		{"negative instances", `{"id": "/a", "cmd": "x", "instances": -1}`, "instances: -1"},
		{"instances that are text", `{"id": "/a", "cmd": "x", "instances": "3"}`, "instances"},
		{"a secret", `{"id": "/a", "cmd": "x", "env": {"P": {"secret": "s"}}}`, "env.P"},
		{"mappings twice", `{"id": "/a", "cmd": "x", "container": {"portMappings": [{}], "docker": {"portMappings": [{"name": "x"}]}}}`, "container.portMappings: given twice"},
		{"an unknown docker network", `{"id": "/a", "cmd": "x", "container": {"docker": {"network": "MARS"}}}`, `container.docker.network: "MARS"`},
		{"an unknown mode", `{"id": "/a", "cmd": "x", "networks": [{"mode": "mars"}]}`, `networks[0].mode: "mars"`},
		{"mixed modes", `{"id": "/a", "cmd": "x", "networks": [{"mode": "host"}, {"mode": "container"}]}`, "networks[1].mode"},
		{"a port too high", `{"id": "/a", "cmd": "x", "requirePorts": true, "portDefinitions": [{"port": 65536}]}`, "port 0:"},
		{"a protocol of its own", `{"id": "/a", "cmd": "x", "portDefinitions": [{"protocol": "sctp"}]}`, `port 0: protocol "sctp"`},
		{"a check of an unknown kind", `{"id": "/a", "cmd": "x", "healthChecks": [{"protocol": "GRPC"}]}`, "healthChecks[0].protocol"},
		{"a check of a missing port", `{"id": "/a", "cmd": "x", "healthChecks": [{"portIndex": 1}]}`, "healthChecks[0].portIndex: 1"},
		{"a check without a command", `{"id": "/a", "cmd": "x", "healthChecks": [{"protocol": "COMMAND"}]}`, "healthChecks[0].command"},
		{"a check without an interval", `{"id": "/a", "cmd": "x", "healthChecks": [{"intervalSeconds": 0}]}`, "healthChecks[0]: intervalSeconds"},
		{"two checks by Mesos", `{"id": "/a", "cmd": "x", "healthChecks": [{"protocol": "MESOS_TCP"}, {"protocol": "MESOS_HTTP"}]}`, "at most one"},
		{"a shrinking back-off", `{"id": "/a", "cmd": "x", "backoffFactor": 0.5}`, "backoffFactor: 0.5"},
		{"negative back-off", `{"id": "/a", "cmd": "x", "backoffSeconds": -1}`, "backoffSeconds: -1"},
		{"no object", `7`, "cannot unmarshal"},
		{"no JSON", `{`, "unexpected end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			apps, err := ParseApps([]byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if len(apps) != 0 {
				t.Errorf("got %d apps", len(apps))
			}
		})
	}
}

func TestOneBadFileOrAppCostsOnlyItself(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"1.json":   `{"id": "/one", "cmd": "x"}`,
		"2.json":   `{"id": `,
		"3.json":   `[{"id": "/three", "cmd": "x"}, {"id": "/bad"}]`,
		"4.json":   `{"apps": [{"id": "/four", "cmd": "x"}]}`,
		"note.txt": `not read`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	apps, err := ReadApps([]string{dir, filepath.Join(dir, "missing.json"), t.TempDir()})
	var ids []string
	for _, a := range apps {
		ids = append(ids, a.ID)
	}
	if diff := cmp.Diff([]string{"/one", "/three", "/four"}, ids); diff != "" {
		t.Errorf("apps (-want +got):\n%s", diff)
	}
	for _, want := range []string{"2.json", "3.json: app /bad", "missing.json", "no *.json"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %q", err, want)
		}
	}
}

func TestTheExamplesAreAccepted(t *testing.T) {
	apps, err := ReadApps([]string{"../../examples"})
	if err != nil || len(apps) != 4 {
		t.Errorf("%d apps, %v", len(apps), err)
	}
}

func TestDefinitionsOfOtherProjectsAreAccepted(t *testing.T) {
	dir := outside.Path(t, "fixtures", "upstream", "marathon", "apps")
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		apps, err := ParseApps(data)
		if err != nil || len(apps) == 0 {
			t.Errorf("%s: %d apps, %v", filepath.Base(f), len(apps), err)
		}
	}
}

func FuzzApp(f *testing.F) {
	for _, name := range []string{"memcached", "hello", "docker-gpu-test", "nordicdatasummit"} {
		data, err := os.ReadFile("../../examples/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"id": "/a/b", "args": ["x"], "ports": [0, 1], "ipAddress": {"discovery": {"ports": [{"number": 1}]}}}`))
	f.Add([]byte(`[{"id": "/a", "cmd": "x", "networks": [{"mode": "container", "name": "n"}], "container": {"portMappings": [{}]}}]`))
	f.Add([]byte(`{"apps": [null, 1, {"id": "/c", "cmd": "x", "container": null, "healthChecks": [{"protocol": "MESOS_HTTPS", "port": 1}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		apps, err := ParseApps(data)
		if err == nil && len(apps) == 0 && json.Valid(data) && strings.HasPrefix(string(data), "{\"id") {
			t.Errorf("neither an app nor an error")
		}
		for _, a := range apps {
			out, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			var again App
			if err := json.Unmarshal(out, &again); err != nil {
				t.Fatalf("what we show is not accepted: %v\n%s", err, out)
			}
			if !a.sameTasks(again) {
				t.Errorf("what we show is another app:\n%s", out)
			}
			ports := make([]int, len(a.ports()))
			if _, err := json.Marshal(taskInfo(&a, ports)); err != nil {
				t.Error(err)
			}
			firstProgram(&a)
		}
	})
}
