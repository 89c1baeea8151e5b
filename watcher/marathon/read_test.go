package marathon

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
	"waggle/model"
)

func nowhere(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }

// TestRecordedDocuments reads what real Marathons answered: nothing of it is a
// problem but what is known to be.
func TestRecordedDocuments(t *testing.T) {
	tests := []struct {
		file            string
		apps, endpoints int
	}{
		{"apps/lb-tests-marathon15_apps.json", 1, 1},
		{"apps/lb-tests-zdd_app_blue.json", 1, 3},
		{"apps/lb-tests-zdd_app_blue_marathon1.5.json", 1, 3},
		{"groups/marathon-1-pod-group-groups.json", 2, 1},
		{"groups/healthy-tasks-in-mesos-and-marathon-groups.json", 2, 3},
		{"go-marathon/023-GET-v2_pods_status.json", 1, 0},
		{"docs-raml/app_list.json", 0, 0},
		{"go-marathon/021-GET-v2_pods_fake_pod_status.json", 1, 0},
	}
	for _, tt := range tests {
		text := outside.Read(t, "fixtures", "upstream", "marathon", filepath.FromSlash(tt.file))
		snap, err := Decode(t.Context(), bytes.NewReader(text), nowhere)
		if err != nil {
			t.Errorf("%s: %v", tt.file, err)
			continue
		}
		if p := snap.AllProblems(); len(p) > 0 {
			t.Errorf("%s: problems %+v", tt.file, p)
		}
		n, tasks := 0, 0
		for _, app := range snap.Apps.All() {
			for _, task := range app.Tasks {
				tasks++
				for _, p := range task.Ports {
					n += len(task.Endpoints(p))
				}
			}
		}
		t.Logf("%s: %d apps, %d tasks, %d endpoints", tt.file, snap.Apps.Len(), tasks, n)
		if tt.apps >= 0 && snap.Apps.Len() != tt.apps || tt.endpoints >= 0 && n != tt.endpoints {
			t.Errorf("%s: %d apps with %d endpoints, want %d with %d", tt.file, snap.Apps.Len(), n, tt.apps, tt.endpoints)
		}
	}
}

// TestTheSameAppInTwoEras reads one app in the form of 1.4 and of 1.5. The tasks
// are others, but described alike.
func TestTheSameAppInTwoEras(t *testing.T) {
	var described [2][]model.Task
	for i, file := range []string{"lb-tests-zdd_app_blue.json", "lb-tests-zdd_app_blue_marathon1.5.json"} {
		snap, err := Decode(t.Context(), bytes.NewReader(outside.Read(t, "fixtures", "upstream", "marathon", "apps", file)), nowhere)
		if err != nil {
			t.Fatal(err)
		}
		app, ok := snap.Apps.Get(model.AppKey{FrameworkID: "marathon", Name: "nginx-green"})
		if !ok {
			t.Fatalf("%s has no nginx-green", file)
		}
		for _, task := range app.Tasks {
			if len(task.Ports) != 1 || len(task.Endpoints(task.Ports[0])) != 1 {
				t.Errorf("%s: %+v is not reached by one port", file, task)
			}
			described[i] = append(described[i], model.Task{
				Name: task.Name, State: task.State, Health: task.Health, Labels: task.Labels,
				Mappings: []model.PortMapping{{ContainerPort: task.Mappings[0].ContainerPort, Proto: task.Mappings[0].Proto}},
				Ports: []model.Port{{
					Name: task.Ports[0].Name, Proto: task.Ports[0].Proto, Number: task.Ports[0].Number,
					Labels: task.Ports[0].Labels, ServicePort: task.Ports[0].ServicePort,
				}},
			})
		}
	}
	if d := cmp.Diff(described[0], described[1], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("1.4 and 1.5 differ:\n%s", d)
	}
}

// TestWhatIsWrongCostsItself reads answers with something bad in each place.
func TestWhatIsWrongCostsItself(t *testing.T) {
	const good = `{"id": "/good", "tasks": [{"id": "good.1", "state": "TASK_RUNNING"}]}`
	for _, bad := range []string{
		`7`, `null`, `{}`, `{"id": 7}`, `{"id": ""}`, `{"id": "/bad", "tasks": [7]}`, `{"id": "/bad", "tasks": [{"id": 3}]}`,
		`{"id": "/bad", "networks": "all", "tasks": [{"id": "bad.1", "state": "TASK_RUNNING"}]}`,
		`{"id": "/bad", "portDefinitions": [{"port": "http"}], "tasks": [{"id": "bad.1", "state": "TASK_RUNNING", "ports": [1]}]}`,
		`{"id": "/bad", "portDefinitions": [{"port": 1, "protocol": "sctp"}], "tasks": [{"id": "bad.1", "state": "TASK_RUNNING", "ports": [1]}]}`,
		`{"id": "/bad", "portDefinitions": [{"port": 1}], "tasks": [{"id": "bad.1", "state": "TASK_RUNNING", "ports": [70000]}]}`,
	} {
		snap, err := Decode(t.Context(), strings.NewReader(`{"apps": [`+bad+`, `+good+`]}`), nowhere)
		if err != nil {
			t.Errorf("%s: %v", bad, err)
			continue
		}
		if _, ok := snap.Apps.Get(model.AppKey{FrameworkID: "marathon", Name: "good"}); !ok || len(snap.AllProblems()) == 0 {
			t.Errorf("%s: the good one is there: %v; problems %v", bad, ok, snap.AllProblems())
		}
	}
	for _, bad := range []string{``, `7`, `{}`, `[]`, `{"apps": 7}`, `{"apps": [`, `{"apps": [` + good, `{"groups": [7]}`, `nonsense`} {
		if _, err := Decode(t.Context(), strings.NewReader(bad), nowhere); err == nil {
			t.Errorf("%s is read as a document", bad)
		}
	}
}

// FuzzDecode holds that no document breaks Decode, and that what it returns is
// sound.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"apps": [{"id": "/g/web", "networks": [{"mode": "container/bridge"}], "container": {"portMappings": [{"containerPort": 80}]}, "healthChecks": [{}],
		"tasks": [{"id": "w.1", "host": "10.0.0.5", "slaveId": "S", "state": "TASK_RUNNING", "ports": [1], "healthCheckResults": [{"alive": true}]}]}]}`))
	f.Add([]byte(`[{"id": "/p", "spec": {"networks": [{"mode": "host"}], "containers": [{"name": "c", "endpoints": [{"name": "e", "hostPort": 0, "protocol": ["tcp"]}]}]},
		"instances": [{"id": "p.1", "agentHostname": "a", "agentId": "S", "networks": [{"addresses": ["10.0.0.5"]}], "containers": [{"name": "c", "status": "TASK_RUNNING", "containerId": "p.1.c", "endpoints": [{"name": "e", "allocatedHostPort": 9}]}]}]}]`))
	f.Add([]byte(`{"id": "/", "groups": [{"groups": null, "apps": [{"id": "/a", "tasks": []}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		snap, err := Decode(t.Context(), bytes.NewReader(text), nowhere)
		if err != nil {
			return
		}
		for key, app := range snap.Apps.All() {
			if app.Key != key || len(app.Tasks) == 0 {
				t.Fatalf("app %v is under %v with %d tasks", app.Key, key, len(app.Tasks))
			}
			for i, task := range app.Tasks {
				if i > 0 && app.Tasks[i-1].Key.ID >= task.Key.ID || task.State == model.Terminal || task.DiscoveryName() != key.Name && task.Discovery.Name != "" {
					t.Fatalf("task %+v of %v", task, key)
				}
			}
		}
	})
}
