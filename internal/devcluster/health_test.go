package devcluster

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/model"
)

func TestAHealthFlipIsAnEvent(t *testing.T) {
	c := start(t, quick())
	w := follow(t, c.Masters()[0])
	deploy(t, c, `{"id": "/a", "cmd": "touch good; exec sleep 100", "healthChecks": [{"protocol": "COMMAND", "command": {"value": "test -f good"},
		"gracePeriodSeconds": 0, "intervalSeconds": 0.05, "maxConsecutiveFailures": 0}]}`)
	verdict := func(want bool) {
		t.Helper()
		for {
			var e struct {
				Updated taskUpdated `json:"task_updated"`
			}
			if err := json.Unmarshal(w.next(t, "TASK_UPDATED"), &e); err != nil {
				t.Fatal(err)
			}
			s := e.Updated.Status
			if s.Healthy == nil {
				if s.Reason != "" {
					t.Errorf("a reason without a verdict: %+v", s)
				}
				continue
			}
			if s.Reason != "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED" || s.State != stateRunning || e.Updated.State != stateRunning {
				t.Errorf("got %+v", e.Updated)
			}
			if *s.Healthy == want {
				return
			}
		}
	}
	healthy(t, c, "/a")
	verdict(true)
	file := filepath.Join(c.Tasks()[0].Sandbox, "good")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	verdict(false)
	until(t, c, "a sick task", func() bool { return c.Tasks()[0].Health == model.Unhealthy })
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	verdict(true)
}

// Trap: Marathon's own checks must not be seen in Mesos.
func TestVerdictsOfMarathonNeverReachMesos(t *testing.T) {
	c := start(t, quick())
	w := follow(t, c.Masters()[0])
	port := listening(t)
	definition := `{"id": "/a", "cmd": "exec sleep 100", "healthChecks": [{"protocol": "TCP", "port": PORT, "intervalSeconds": 0.05}]}`
	deploy(t, c, strings.Replace(definition, "PORT", itoa(port), 1))
	healthy(t, c, "/a")
	for _, kind := range []string{"TASK_ADDED", "TASK_UPDATED", "TASK_UPDATED"} {
		if msg := string(w.next(t, kind)); strings.Contains(msg, "health") {
			t.Errorf("Mesos tells of Marathon's checks: %s", msg)
		}
	}
	if text := body(t, call(t, "GET", c.MarathonAddr(), "/v2/tasks", "")); !strings.Contains(text, `"alive":true`) {
		t.Errorf("/v2/tasks does not tell of them: %s", text)
	}
}

func TestAfterEnoughFailuresATaskIsKilledAndReplaced(t *testing.T) {
	tests := []struct{ name, check, reason string }{
		{"by Mesos", `"protocol": "COMMAND", "command": {"value": "sick"}`, "killed: failed its health check too often (last: sick)"},
		{"by Marathon", `"protocol": "HTTP", "port": 1, "path": "/"`, "killed: failed its health check too often (last: Get \"http://127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUnreal(t, quick())
				deploy(t, u.Cluster, `{"id": "/a", "cmd": "sleep", "backoffSeconds": 5, "healthChecks": [{`+tt.check+`,
					"gracePeriodSeconds": 10, "intervalSeconds": 4, "maxConsecutiveFailures": 3}]}`)
				pass(17 * time.Second)
				if got := u.Apps()[0]; got.Running != 1 || got.Healthy != 0 {
					t.Errorf("within the grace period: %+v", got)
				}
				pass(3 * time.Second)
				if got := u.Apps()[0].Message; !strings.HasPrefix(got, tt.reason) {
					t.Errorf("the app says %q, want %q", got, tt.reason)
				}
				pass(5 * time.Second)
				// Checked at 10 s (the end of the grace period), 14 s and 18 s.
				want := []string{"0s a run 1 starts", "18.01s a run 1 stopped", "23s a run 2 starts"}
				if diff := cmp.Diff(want, u.noted()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				last := u.world.completed[0].Statuses
				if s := last[len(last)-1]; s.State != stateKilled || s.Healthy == nil || *s.Healthy {
					t.Errorf("the last status is %+v", s)
				}
			})
		})
	}
}

func TestProbes(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/not-there", http.StatusFound) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	plainHTTP, tls := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plainHTTP.Close()
	defer tls.Close()
	port := func(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }
	tests := []struct {
		name  string
		check HealthCheck
		want  string
	}{
		{"TCP", HealthCheck{Protocol: "TCP", Port: port(plainHTTP)}, ""},
		{"TCP on the port of an index", HealthCheck{Protocol: "MESOS_TCP", PortIndex: intp(1)}, ""},
		{"TCP where nobody listens", HealthCheck{Protocol: "TCP"}, "connection refused"},
		{"HTTP", HealthCheck{Protocol: "HTTP", Port: port(plainHTTP), Path: "ok"}, ""},
		{"HTTP with a redirect", HealthCheck{Protocol: "MESOS_HTTP", Port: port(plainHTTP), Path: "/moved"}, ""},
		{"HTTP with 404", HealthCheck{Protocol: "HTTP", Port: port(plainHTTP), Path: "/no"}, "status 404"},
		{"HTTP too slow", HealthCheck{Protocol: "HTTP", Port: port(plainHTTP), Path: "/slow", TimeoutSeconds: 0.05}, "deadline"},
		{"HTTP with a path that is none", HealthCheck{Protocol: "HTTP", Port: port(plainHTTP), Path: "\x00"}, "invalid control character"},
		{"HTTPS", HealthCheck{Protocol: "MESOS_HTTPS", Port: port(tls), Path: "/ok"}, ""},
	}
	c := &Cluster{cfg: quick()}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.check.TimeoutSeconds == 0 {
				tt.check.TimeoutSeconds = 10
			}
			got := ""
			if err := c.probe(t.Context(), &task{ports: []int{1, port(plainHTTP)}}, &tt.check); err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
