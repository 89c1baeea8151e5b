package devcluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"waggle/internal/outside"
)

// watch is a subscriber over HTTP.
type watch struct {
	events chan []byte // closed at the end of the stream
}

func follow(tb testing.TB, addr netip.AddrPort) *watch {
	tb.Helper()
	resp := call(tb, "POST", addr, "/api/v1", `{"type":"SUBSCRIBE"}`, "Content-Type", "application/json", "Accept", "application/json")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || !slices.Equal(resp.TransferEncoding, []string{"chunked"}) {
		tb.Fatalf("SUBSCRIBE: %s, %v, %v", resp.Status, resp.Header, resp.TransferEncoding)
	}
	w := &watch{make(chan []byte, 10000)}
	go func() {
		defer close(w.events)
		r := bufio.NewReader(resp.Body)
		for {
			head, err := r.ReadString('\n')
			if err != nil {
				return
			}
			n, err := strconv.Atoi(strings.TrimSuffix(head, "\n"))
			msg := make([]byte, max(n, 0))
			if _, err2 := io.ReadFull(r, msg); errors.Join(err, err2) != nil {
				return
			}
			w.events <- msg
		}
	}()
	tb.Cleanup(func() {
		resp.Body.Close()
		w.rest()
	})
	return w
}

// next returns the next event of a kind and passes over others.
func (w *watch) next(tb testing.TB, kind string) []byte {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case msg, ok := <-w.events:
			if !ok {
				tb.Fatalf("the stream ended before %s", kind)
			}
			if strings.HasPrefix(string(msg), `{"type":"`+kind+`"`) {
				return msg
			}
		case <-deadline:
			tb.Fatalf("no %s within 20 s", kind)
		}
	}
}

// rest returns all events up to the end of the stream.
func (w *watch) rest() [][]byte {
	var out [][]byte
	for msg := range w.events {
		out = append(out, msg)
	}
	return out
}

// call sends a request and follows no redirect. header is keys and values.
func call(tb testing.TB, method string, addr netip.AddrPort, path, body string, header ...string) *http.Response {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, "http://"+addr.String()+path, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { resp.Body.Close() })
	return resp
}

func body(tb testing.TB, resp *http.Response) string {
	tb.Helper()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

const (
	contentJSON = "Content-Type"
	jsonType    = "application/json"
)

func TestTheOperatorAPIRefusesAsMesosDoes(t *testing.T) {
	c := start(t, quick())
	tests := []struct {
		name, method, body string
		header             []string
		want               int
	}{
		{"a plain call", "POST", `{"type":"GET_HEALTH"}`, []string{contentJSON, jsonType}, 200},
		{"a call that accepts anything", "POST", `{"type":"GET_HEALTH"}`, []string{contentJSON, jsonType, "Accept", "text/plain, */*;q=0.1"}, 200},
		{"not POST", "GET", "", nil, 405},
		{"no Content-Type", "POST", `{"type":"GET_HEALTH"}`, nil, 400},
		{"a Content-Type with a charset", "POST", `{"type":"GET_HEALTH"}`, []string{contentJSON, jsonType + ";charset=utf-8"}, 415},
		{"another Content-Type", "POST", `{"type":"GET_HEALTH"}`, []string{contentJSON, "text/plain"}, 415},
		{"an Accept without JSON", "POST", `{"type":"GET_HEALTH"}`, []string{contentJSON, jsonType, "Accept", "application/recordio"}, 406},
		{"no JSON", "POST", `{`, []string{contentJSON, jsonType}, 400},
		{"no type", "POST", `{}`, []string{contentJSON, jsonType}, 400},
		{"a call nobody knows", "POST", `{"type":"GET_WEATHER"}`, []string{contentJSON, jsonType}, 501},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp := call(t, tt.method, c.Masters()[0], "/api/v1", tt.body, tt.header...)
			if resp.StatusCode != tt.want {
				t.Errorf("got %s, want %d: %s", resp.Status, tt.want, body(t, resp))
			}
		})
	}
}

func TestAMasterThatDoesNotLeadSendsToTheOneThatDoes(t *testing.T) {
	cfg := quick()
	cfg.Masters = 2
	c := start(t, cfg)
	leader, other := c.Masters()[0], c.Masters()[1]
	post := []string{contentJSON, jsonType}
	tests := []struct {
		name, method, path string
		at                 netip.AddrPort
		header             []string
		code               int
		location           string
	}{
		{"/redirect names no path", "GET", "/redirect", other, nil, 307, "//" + leader.String()},
		{"/master/redirect too", "HEAD", "/master/redirect", other, nil, 307, "//" + leader.String()},
		{"the leader points to itself", "GET", "/redirect", leader, nil, 307, "//" + leader.String()},
		{"/state", "GET", "/state", other, nil, 307, "//" + leader.String() + "/master/state"},
		{"a query is kept", "GET", "/state?a=b&jsonp=x", other, nil, 307, "//" + leader.String() + "/master/state?a=b&jsonp=x"},
		{"/api/v1", "POST", "/api/v1", other, post, 307, "//" + leader.String() + "/master/api/v1"},
		{"its health is its own", "GET", "/health", other, nil, 200, ""},
		{"its version too", "GET", "/version", other, nil, 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp := call(t, tt.method, tt.at, tt.path, `{"type":"SUBSCRIBE"}`, tt.header...)
			if got := resp.Header.Get("Location"); resp.StatusCode != tt.code || got != tt.location {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, got, tt.code, tt.location)
			}
			if tt.code == 307 && (resp.ContentLength != 0 || resp.Header.Get("Content-Type") != "") {
				t.Errorf("a redirect with a body: %v", resp.Header)
			}
		})
	}
	t.Run("nobody leads", func(t *testing.T) {
		if err := c.Elect(-1); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/redirect", "/state"} {
			resp := call(t, "GET", leader, path, "")
			if text := body(t, resp); resp.StatusCode != 503 || text != "No leader elected" {
				t.Errorf("%s: %s %q", path, resp.Status, text)
			}
		}
	})
}

func TestAFailoverEndsStreamsAndTellsTheNewLeaderEverythingAgain(t *testing.T) {
	cfg := quick()
	cfg.Masters = 2
	cfg.ReregisterDelay = 200 * time.Millisecond
	c := start(t, cfg)
	deploy(t, c, `{"id": "/a", "cmd": "sleep 100", "instances": 2}`)
	healthy(t, c, "/a")
	old := follow(t, c.Masters()[0])
	old.next(t, "HEARTBEAT")
	if err := c.Elect(1); err != nil {
		t.Fatal(err)
	}
	old.rest() // returns when the stream has ended

	w := follow(t, c.Masters()[1])
	var first struct {
		Subscribed struct {
			State getState `json:"get_state"`
		}
	}
	if err := json.Unmarshal(w.next(t, "SUBSCRIBED"), &first); err != nil {
		t.Fatal(err)
	}
	st := first.Subscribed.State
	if len(st.GetTasks.Tasks)+len(st.GetAgents.Agents)+len(st.GetFrameworks.Frameworks) != 0 || len(st.GetAgents.RecoveredAgents) != 1 {
		t.Errorf("before the agent is back: %+v", st)
	}
	var kinds []string
	for range 6 {
		msg := <-w.events
		kind, _, _ := strings.Cut(strings.TrimPrefix(string(msg), `{"type":"`), `"`)
		kinds = append(kinds, kind)
	}
	want := []string{"HEARTBEAT", "AGENT_ADDED", "FRAMEWORK_ADDED", "TASK_ADDED", "TASK_ADDED", "FRAMEWORK_UPDATED"}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := len(c.Tasks()); n != 2 {
		t.Errorf("%d tasks run after the failover, want 2", n)
	}
}

func TestASlowSubscriberIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(quick(), zap.NewNop())
		_, slow, _ := c.subscribe(0)
		_, fast, _ := c.subscribe(0)
		c.mu.Lock()
		for range backlog + 1 {
			c.emitLocked("TASK_UPDATED", struct{}{})
			<-fast.events
		}
		c.mu.Unlock()
		n := 0
		for range slow.events {
			n++
		}
		if n != backlog || len(c.world.streams) != 1 {
			t.Errorf("the slow one got %d, %d are left", n, len(c.world.streams))
		}
		c.unsubscribe(fast)
		c.unsubscribe(slow)
	})
}

func TestHeartbeatsComeAtTheirInterval(t *testing.T) {
	cfg := quick()
	cfg.Heartbeat = 20 * time.Millisecond
	w := follow(t, start(t, cfg).Masters()[0])
	if first := w.next(t, "SUBSCRIBED"); !bytes.HasSuffix(first, []byte(`"heartbeat_interval_seconds":0.02}}`)) {
		t.Errorf("SUBSCRIBED ends with %s", first[max(0, len(first)-60):])
	}
	if second := <-w.events; string(second) != `{"type":"HEARTBEAT"}` {
		t.Errorf("the second record is %s", second)
	}
	for range 3 {
		w.next(t, "HEARTBEAT")
	}
}

// paths collects the paths of a document and the JSON types found there.
func paths(into map[string]string, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		into[at] = "object"
		for k, e := range v {
			paths(into, at+"."+k, e)
		}
	case []any:
		into[at] = "array"
		for _, e := range v {
			paths(into, at+"[]", e)
		}
	default:
		into[at] = fmt.Sprintf("%T", v)
	}
}

func pathsOf(tb testing.TB, events [][]byte) map[string]string {
	tb.Helper()
	out := map[string]string{}
	for _, e := range events {
		var doc map[string]any
		if err := json.Unmarshal(e, &doc); err != nil {
			tb.Fatal(err)
		}
		paths(out, doc["type"].(string), doc)
	}
	return out
}

// recorded reads one event a line.
func recorded(tb testing.TB, elem ...string) [][]byte {
	tb.Helper()
	data, err := os.ReadFile(outside.Path(tb, append([]string{"fixtures", "mesos-1.12"}, elem...)...))
	if err != nil {
		tb.Fatal(err)
	}
	var out [][]byte
	for line := range bytes.Lines(data) {
		var r struct{ Event json.RawMessage }
		if err := json.Unmarshal(line, &r); err != nil {
			tb.Fatal(err)
		}
		out = append(out, r.Event)
	}
	return out
}

// Whatever we emit, a real Mesos emits in the same place with the same type.
// The recorded cluster had no containers and no checks but commands, so that
// what they add is listed here; it is as in the Mesos protobuf files.
func TestEventsHaveTheShapeOfThoseOfARealMesos(t *testing.T) {
	genuine := pathsOf(t, append(recorded(t, "story", "subscribe-json.records.jsonl"),
		recorded(t, "failover", "sigkill-new-leader-json.records.jsonl")...))
	cfg := quick()
	cfg.Masters = 2
	cfg.ReregisterDelay = 50 * time.Millisecond
	var events [][]byte
	t.Run("cluster", func(t *testing.T) {
		c, err := New(cfg, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		deploy(t, c, `{"id": "/g/host", "cmd": "sleep 100", "labels": {"a": "b"}, "portDefinitions": [{"name": "p", "labels": {"VIP_0": "/a:1"}}],
			"healthChecks": [{"protocol": "COMMAND", "command": {"value": "true"}}]}`)
		deploy(t, c, `{"id": "/bridge", "cmd": "sleep 100", "container": {"type": "DOCKER", "docker": {"image": "i", "network": "BRIDGE", "portMappings": [{"containerPort": 1}]}}}`)
		deploy(t, c, `{"id": "/container", "cmd": "sleep 100", "networks": [{"mode": "container", "name": "n"}], "container": {"type": "MESOS", "portMappings": [{"containerPort": 31777, "hostPort": 0}]}}`)
		deploy(t, c, `{"id": "/fails", "cmd": "exit 1", "healthChecks": [{"protocol": "MESOS_HTTP"}]}`)
		deploy(t, c, `{"id": "/tcp", "cmd": "sleep 100", "healthChecks": [{"protocol": "MESOS_TCP"}]}`)
		w := follow(t, c.Masters()[0])
		for _, id := range []string{"/g/host", "/bridge", "/container"} {
			healthy(t, c, id)
		}
		if err := c.Elect(1); err != nil {
			t.Fatal(err)
		}
		events = w.rest()
		w = follow(t, c.Masters()[1])
		events = append(events, w.next(t, "SUBSCRIBED"), w.next(t, "AGENT_ADDED"), w.next(t, "FRAMEWORK_ADDED"), w.next(t, "TASK_ADDED"), w.next(t, "FRAMEWORK_UPDATED"))
		events = append(events, follow(t, c.Masters()[1]).next(t, "SUBSCRIBED"))
		cancel()
		events = append(events, w.rest()...)
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	ours := pathsOf(t, events)
	allowed := []string{".container", ".health_check.http", ".health_check.tcp", ".network_infos[].name", ".task.labels.labels", ".tasks[].labels.labels"}
	kinds := map[string]bool{}
	for _, p := range slices.Sorted(maps.Keys(ours)) {
		kind, rest, _ := strings.Cut(p, ".")
		kinds[kind] = true
		want, ok := genuine[p]
		if !ok && kind == "SUBSCRIBED" {
			// The recorded subscriber began with an empty cluster.
			want, ok = genuine[event(rest)]
		}
		if !ok && slices.ContainsFunc(allowed, func(a string) bool { return strings.Contains(p, a) }) && !strings.Contains(p, "container_status.container") {
			continue
		}
		if !ok || want != ours[p] {
			t.Errorf("%s is %s, genuine %q", p, ours[p], want)
		}
	}
	want := map[string]bool{"SUBSCRIBED": true, "HEARTBEAT": true, "TASK_ADDED": true, "TASK_UPDATED": true, "AGENT_ADDED": true, "AGENT_REMOVED": true,
		"FRAMEWORK_ADDED": true, "FRAMEWORK_UPDATED": true, "FRAMEWORK_REMOVED": true}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("kinds of events (-want +got):\n%s", diff)
	}
}

// event maps the place of an object in a snapshot to its place in the event
// that adds such an object.
func event(path string) string {
	return strings.NewReplacer(
		"subscribed.get_state.get_tasks.tasks[].statuses[]", "TASK_UPDATED.task_updated.status",
		"subscribed.get_state.get_tasks.completed_tasks[].statuses[]", "TASK_UPDATED.task_updated.status",
		"subscribed.get_state.get_tasks.tasks[]", "TASK_ADDED.task_added.task",
		"subscribed.get_state.get_tasks.completed_tasks[]", "TASK_ADDED.task_added.task",
		"subscribed.get_state.get_agents.agents[]", "AGENT_ADDED.agent_added.agent",
		"subscribed.get_state.get_frameworks.frameworks[]", "FRAMEWORK_ADDED.framework_added.framework",
	).Replace(path)
}

func TestStateHasTheShapeOfARealMesos(t *testing.T) {
	data, err := os.ReadFile(outside.Path(t, "fixtures", "mesos-1.12", "17-before-failover", "get-state.body"))
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, quick())
	deploy(t, c, `{"id": "/a", "cmd": "sleep 100", "healthChecks": [{"protocol": "COMMAND", "command": {"value": "true"}}]}`)
	healthy(t, c, "/a")
	deploy(t, c, `{"id": "/end", "cmd": "exit 1"}`)
	until(t, c, "a completed task", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.world.completed) > 0
	})
	compareDocuments(t, data, []byte(body(t, call(t, "GET", c.Masters()[0], "/state", ""))))
}

func TestAnswersHaveTheShapeOfARealMesos(t *testing.T) {
	c := start(t, quick())
	deploy(t, c, `{"id": "/a", "cmd": "sleep 100", "healthChecks": [{"protocol": "COMMAND", "command": {"value": "true"}}]}`)
	healthy(t, c, "/a")
	for _, name := range []string{"GET_STATE", "GET_TASKS", "GET_AGENTS", "GET_FRAMEWORKS", "GET_MASTER"} {
		data, err := os.ReadFile(outside.Path(t, "fixtures", "mesos-1.12", "17-before-failover", "post-"+name+".body"))
		if err != nil {
			t.Fatal(err)
		}
		resp := call(t, "POST", c.Masters()[0], "/master/api/v1", `{"type":"`+name+`"}`, contentJSON, jsonType)
		compareDocuments(t, data, []byte(body(t, resp)))
	}
}

// compareDocuments reports every path of got that is not in genuine.
func compareDocuments(t *testing.T, genuine, got []byte) {
	t.Helper()
	want, have := map[string]string{}, map[string]string{}
	for _, d := range []struct {
		data []byte
		into map[string]string
	}{{genuine, want}, {got, have}} {
		var doc any
		if err := json.Unmarshal(d.data, &doc); err != nil {
			t.Fatalf("%v: %s", err, d.data)
		}
		paths(d.into, "", doc)
	}
	for _, p := range slices.Sorted(maps.Keys(have)) {
		if have[p] != want[p] {
			t.Errorf("%s is %s, genuine %q", p, have[p], want[p])
		}
	}
}
