package devcluster

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func itoa(n int) string { return strconv.Itoa(n) }

// rest calls Marathon and decodes the answer.
func rest(tb testing.TB, c *Cluster, method, path, text string, into any) int {
	tb.Helper()
	resp := call(tb, method, c.MarathonAddr(), path, text, contentJSON, jsonType)
	answer := body(tb, resp)
	if err := json.Unmarshal([]byte(answer), into); err != nil {
		tb.Fatalf("%s %s: %v: %s", method, path, err, answer)
	}
	return resp.StatusCode
}

func TestAnAppThroughMarathon(t *testing.T) {
	c := start(t, quick())
	var app appDocument
	if code := rest(t, c, "POST", "/v2/apps", `{"id": "/g/a", "cmd": "exec sleep 100", "ports": [0], "labels": {"a": "b"}}`, &app); code != 201 || app.Version == "" {
		t.Errorf("POST: %d, %+v", code, app)
	}
	healthy(t, c, "/g/a")

	var all struct{ Apps []appDocument }
	if code := rest(t, c, "GET", "/v2/apps?embed=apps.tasks", "", &all); code != 200 || len(all.Apps) != 1 {
		t.Fatalf("GET all: %d, %+v", code, all)
	}
	var one struct{ App appDocument }
	if code := rest(t, c, "GET", "/v2/apps//g/a", "", &one); code != 200 {
		t.Errorf("GET: %d", code)
	}
	if diff := cmp.Diff(all.Apps[0], one.App, cmp.AllowUnexported(appDocument{})); diff != "" {
		t.Errorf("one app and all (-all +one):\n%s", diff)
	}
	if a := one.App; a.TasksRunning != 1 || len(a.Tasks) != 1 || len(a.Tasks[0].Ports) != 1 || a.Tasks[0].State != stateRunning ||
		cmp.Diff([]PortDefinition{{Protocol: "tcp"}}, a.PortDefinitions) != "" || a.Labels["a"] != "b" {
		t.Errorf("GET: %+v", a)
	}

	var accepted struct{ Version, DeploymentID string }
	if code := rest(t, c, "PUT", "/v2/apps/g/a", `{"instances": 3}`, &accepted); code != 200 || accepted.Version == "" || accepted.DeploymentID == "" {
		t.Errorf("PUT: %d %+v", code, accepted)
	}
	healthy(t, c, "/g/a")
	var tasks struct{ Tasks []taskDocument }
	if code := rest(t, c, "GET", "/v2/tasks", "", &tasks); code != 200 || len(tasks.Tasks) != 3 {
		t.Errorf("GET tasks: %d, %+v", code, tasks)
	}
	if tasks.Tasks[0].ID != one.App.Tasks[0].ID {
		t.Error("scaling replaced a task")
	}
	if code := rest(t, c, "DELETE", "/v2/apps/g/a", "", &accepted); code != 200 {
		t.Errorf("DELETE: %d", code)
	}
	until(t, c, "no task left", func() bool { return len(c.Tasks()) == 0 })
}

func TestMarathonSaysWhatIsWrong(t *testing.T) {
	c := start(t, quick())
	deploy(t, c, `{"id": "/a", "cmd": "exec sleep 100"}`)
	tests := []struct {
		name, method, path, body string
		code                     int
		message                  string
	}{
		{"an app that is not there", "GET", "/v2/apps/none", "", 404, "no app /none"},
		{"deleting it", "DELETE", "/v2/apps/none", "", 404, "no app /none"},
		{"an app that is there", "POST", "/v2/apps", `{"id": "a", "cmd": "x"}`, 409, "app /a exists already"},
		{"no JSON", "POST", "/v2/apps", `{`, 400, "the body is not JSON"},
		{"a bad app", "POST", "/v2/apps", `{"id": "/b"}`, 422, "app /b: cmd: nothing to run: neither cmd, args nor an image"},
		{"a bad change", "PUT", "/v2/apps/a", `{"instances": -1}`, 422, "app /a: instances: -1 is negative"},
		{"a change that is no object", "PUT", "/v2/apps/a", `[]`, 422, "json: cannot unmarshal array"},
		{"another id", "PUT", "/v2/apps/a", `{"id": "/b"}`, 422, "app /a cannot become /b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got struct{ Message string }
			if code := rest(t, c, tt.method, tt.path, tt.body, &got); code != tt.code || !strings.HasPrefix(got.Message, tt.message) {
				t.Errorf("got %d %q, want %d %q", code, got.Message, tt.code, tt.message)
			}
		})
	}
	if ids := c.Apps(); len(ids) != 1 || ids[0].Wanted != 1 {
		t.Errorf("something changed: %+v", ids)
	}
}

func TestPutMakesAnAppThatIsNotThere(t *testing.T) {
	c := start(t, quick())
	var got appDocument
	if code := rest(t, c, "PUT", "/v2/apps/new", `{"cmd": "exec sleep 100"}`, &got); code != 201 || got.ID != "/new" {
		t.Errorf("%d, %+v", code, got)
	}
	healthy(t, c, "/new")
}

func TestMarathonTellsOfItself(t *testing.T) {
	c := start(t, quick())
	if got := body(t, call(t, "GET", c.MarathonAddr(), "/ping", "")); got != "pong" {
		t.Errorf("ping: %q", got)
	}
	var info struct {
		Name, FrameworkID string
		Config            struct{ Master string } `json:"marathon_config"`
	}
	rest(t, c, "GET", "/v2/info", "", &info)
	if info.Name != "marathon" || info.FrameworkID != c.world.frameworkID().Value || info.Config.Master != c.Masters()[0].String() {
		t.Errorf("%+v", info)
	}
}
