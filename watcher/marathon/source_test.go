package marathon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"waggle/model"
)

// script is a Marathon that answers as the test says.
type script struct {
	*httptest.Server
	mu      sync.Mutex // guards the following
	apps    map[string]string
	pods    map[string]string
	info    string
	refuse  map[string]int // paths, and the code they are answered with
	html    bool           // refusals are a proxy's
	streams map[chan string]bool
	asked   []string
}

func newScript(t *testing.T) *script {
	s := &script{apps: map[string]string{}, pods: map[string]string{}, refuse: map[string]int{}, streams: map[chan string]bool{},
		info: `{"name": "marathon", "frameworkId": "F-0001", "leader": "127.0.0.1:8080", "marathon_config": {"mesos_leader_ui_url": "http://10.0.0.1:5050/"}}`}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.URL.Path)
	code := s.refuse[r.URL.Path]
	html := s.html
	s.mu.Unlock()
	answer := func(code int, text string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}
	if html && code != 0 {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(code)
		return
	}
	if code != 0 {
		answer(code, `{"message": "no"}`)
		return
	}
	switch {
	case r.URL.Path == "/v2/events":
		s.stream(w, r)
	case r.URL.Path == "/v2/info":
		answer(200, s.info)
	case r.URL.Path == "/v2/apps":
		answer(200, `{"apps": [`+s.join(s.apps)+`]}`)
	case r.URL.Path == "/v2/pods/::status":
		answer(200, `[`+s.join(s.pods)+`]`)
	case strings.HasPrefix(r.URL.Path, "/v2/apps/"):
		if text := s.get(s.apps, strings.TrimPrefix(r.URL.Path, "/v2/apps")); text != "" {
			answer(200, `{"app": `+text+`}`)
			return
		}
		answer(404, `{"message": "App does not exist"}`)
	default:
		if text := s.get(s.pods, strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v2/pods"), "::status")); text != "" {
			answer(200, text)
			return
		}
		answer(404, `{"message": "Pod does not exist"}`)
	}
}

func (s *script) get(m map[string]string, key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m[key]
}

func (s *script) join(m map[string]string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, text := range m {
		all = append(all, text)
	}
	return strings.Join(all, ",")
}

func (s *script) stream(w http.ResponseWriter, r *http.Request) {
	c := make(chan string, 100)
	s.mu.Lock()
	s.streams[c] = true // before the asker knows that it is told of changes
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream;charset=utf-8")
	_ = http.NewResponseController(w).Flush()
	defer func() {
		s.mu.Lock()
		delete(s.streams, c)
		s.mu.Unlock()
	}()
	for {
		select {
		case <-r.Context().Done():
			return
		case text := <-c:
			if text == "" {
				return
			}
			fmt.Fprint(w, text)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// set changes an app, removes it if text is empty, and sends an event about it.
func (s *script) set(path, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.apps[path] = text; text == "" {
		delete(s.apps, path)
	}
	for c := range s.streams {
		c <- "event: status_update_event\r\ndata: {\"appId\": \"" + path + "\"}\r\n\r\n"
	}
}

// cut ends all streams.
func (s *script) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.streams {
		c <- ""
	}
}

func (s *script) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *script) times(path string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.asked {
		if p == path {
			n++
		}
	}
	return n
}

// follower is a Source that runs, and what it published last.
type follower struct {
	*Source
	mu   sync.Mutex
	last *model.Snapshot
	all  int
	more chan struct{}
}

func follow(t *testing.T, change func(*Config), hosts ...string) *follower {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Hosts = hosts
	cfg.MinBackoff, cfg.MaxBackoff = 5*time.Millisecond, 20*time.Millisecond
	cfg.Resolve = nowhere
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{Source: s, more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(snap *model.Snapshot) {
			f.mu.Lock()
			f.last = snap
			f.all++
			f.mu.Unlock()
			select {
			case f.more <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return f
}

// wait waits until what is published is as wanted.
func (f *follower) wait(t *testing.T, what string, ok func(*model.Snapshot) bool) *model.Snapshot {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		f.mu.Lock()
		snap := f.last
		f.mu.Unlock()
		if snap != nil && ok(snap) {
			return snap
		}
		select {
		case <-f.more:
		case <-limit:
			t.Fatalf("%s: never; published %v, status %+v", what, snap, f.Status())
		}
	}
}

// until waits for anything else.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal(what + ": never")
		}
	}
}

func app(path string, tasks ...string) string {
	var list []string
	for _, id := range tasks {
		list = append(list, fmt.Sprintf(`{"id": %q, "host": "10.0.0.5", "slaveId": "S1", "state": "TASK_RUNNING", "ports": [31001]}`, id))
	}
	return fmt.Sprintf(`{"id": %q, "portDefinitions": [{"port": 0}], "tasks": [%s]}`, path, strings.Join(list, ","))
}

func has(ids ...string) func(*model.Snapshot) bool {
	return func(s *model.Snapshot) bool {
		var got []string
		for _, a := range s.Apps.All() {
			for _, task := range a.Tasks {
				got = append(got, task.Key.ID)
			}
		}
		slices.Sort(got)
		return slices.Equal(got, ids)
	}
}

func TestAnEventMakesItsAppReadAgain(t *testing.T) {
	m := newScript(t)
	m.set("/a", app("/a", "a.1"))
	m.set("/b", app("/b", "b.1"))
	m.pods["/p"] = `{"id": "/p", "spec": {"containers": [{"name": "c"}]}, "instances": [{"id": "p.1", "agentId": "S1", "agentHostname": "10.0.0.5", "containers": [{"name": "c", "status": "TASK_RUNNING", "containerId": "p.1.c"}]}]}`
	f := follow(t, nil, m.URL)
	before := f.wait(t, "everything", has("a.1", "b.1", "p.1.c"))
	if !f.Status().Connected || before.Leader.String() != "10.0.0.1:5050" {
		t.Errorf("status %+v, leader %v", f.Status(), before.Leader)
	}
	fw, ok := before.Frameworks.Get("F-0001")
	if !ok || fw.Name != "marathon" || before.Agents.Len() != 1 {
		t.Errorf("framework %+v, %d agents", fw, before.Agents.Len())
	}
	m.set("/a", app("/a", "a.1", "a.2"))
	after := f.wait(t, "a second task", has("a.1", "a.2", "b.1", "p.1.c"))
	b := model.AppKey{FrameworkID: "F-0001", Name: "b"}
	if was, _ := before.Apps.Get(b); was == nil {
		t.Error("no app b of F-0001")
	} else if is, _ := after.Apps.Get(b); is != was {
		t.Error("an app that did not change has another pointer")
	}
	m.set("/b", "")
	f.wait(t, "an app less", has("a.1", "a.2", "p.1.c"))
	m.change(func() { delete(m.pods, "/p") })
	m.set("/p", "")
	f.wait(t, "a pod less", has("a.1", "a.2"))
	if n := m.times("/v2/apps"); n != 1 {
		t.Errorf("everything was read %d times", n)
	}
}

func TestLosingMarathonLosesNothing(t *testing.T) {
	m, other := newScript(t), newScript(t)
	m.set("/a", app("/a", "a.1"))
	f := follow(t, nil, m.URL, other.URL)
	f.wait(t, "the first picture", has("a.1"))
	other.change(func() { other.refuse["/v2/events"] = 503 })
	m.change(func() { m.refuse["/v2/apps"] = 502 })
	m.cut()
	until(t, "disconnected", func() bool { return !f.Status().Connected && other.times("/v2/events") > 1 })
	f.wait(t, "what ran", has("a.1"))
	if err := f.Status().Err; err == nil || !strings.Contains(err.Error(), "50") {
		t.Errorf("the reason is %v", err)
	}
	other.set("/a", app("/a", "a.1", "a.2"))
	other.change(func() { clear(other.refuse) })
	f.wait(t, "what the other one says", has("a.1", "a.2"))
}

func TestAProxysRefusalRemovesNothing(t *testing.T) {
	m := newScript(t)
	m.set("/a", app("/a", "a.1"))
	f := follow(t, nil, m.URL)
	f.wait(t, "the first picture", has("a.1"))
	m.change(func() { m.html, m.refuse["/v2/apps/a"] = true, 404 })
	m.set("/a", app("/a", "a.1"))
	until(t, "asked again", func() bool { return m.times("/v2/apps") > 1 })
	f.wait(t, "what ran", has("a.1"))
}

func TestAnEmptyAnswerIsNotBelievedAtOnce(t *testing.T) {
	m := newScript(t)
	m.set("/a", app("/a", "a.1"))
	f := follow(t, nil, m.URL)
	f.wait(t, "the first picture", has("a.1"))
	m.change(func() { clear(m.apps) })
	m.cut()
	until(t, "the reason", func() bool { return errors.Is(f.Status().Err, errEmpty) })
	f.wait(t, "what ran", has("a.1"))

	quick := follow(t, func(c *Config) { c.EmptyHold = 0 }, m.URL)
	quick.wait(t, "nothing at all", has())
	m.set("/b", app("/b", "b.1"))
	quick.wait(t, "an app", has("b.1"))
	m.change(func() { clear(m.apps) })
	m.cut()
	quick.wait(t, "believed after the hold", has())
}

func TestWithoutEventsMarathonIsAskedAgainAndAgain(t *testing.T) {
	m := newScript(t)
	m.refuse["/v2/events"], m.refuse["/v2/pods/::status"] = 405, 404
	m.set("/a", app("/a", "a.1"))
	f := follow(t, func(c *Config) { c.Poll = 10 * time.Millisecond }, m.URL)
	f.wait(t, "the first picture", has("a.1"))
	m.set("/a", app("/a", "a.1", "a.2"))
	f.wait(t, "a second task", has("a.1", "a.2"))
}

func TestASilentStreamIsGivenUp(t *testing.T) {
	m := newScript(t)
	m.set("/a", app("/a", "a.1"))
	f := follow(t, func(c *Config) { c.Idle = 50 * time.Millisecond }, m.URL)
	f.wait(t, "the first picture", has("a.1"))
	until(t, "subscribed again", func() bool { return m.times("/v2/events") > 2 })
}

func TestTheLeaderThatEventsAreSentToIsFollowed(t *testing.T) {
	m := newScript(t)
	m.set("/a", app("/a", "a.1"))
	follower := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/events" {
			http.Redirect(w, r, m.URL+r.URL.RequestURI(), http.StatusFound)
			return
		}
		m.ServeHTTP(w, r) // everything else is proxied
	}))
	t.Cleanup(follower.Close)
	f := follow(t, nil, follower.URL)
	f.wait(t, "the first picture", has("a.1"))
	m.set("/a", app("/a", "a.2"))
	f.wait(t, "a change", has("a.2"))
}

func TestAHostsNameDelaysOnlyWhoNeedsIt(t *testing.T) {
	m := newScript(t)
	m.set("/a", `{"id": "/a", "portDefinitions": [{"port": 0}], "tasks": [{"id": "a.1", "host": "node1", "slaveId": "S1", "state": "TASK_RUNNING", "ports": [31001]}]}`)
	found := make(chan struct{})
	f := follow(t, func(c *Config) {
		c.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			select {
			case <-found:
				return []netip.Addr{netip.MustParseAddr("10.0.0.7")}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}, m.URL)
	f.wait(t, "the task without an address", func(s *model.Snapshot) bool { return has("a.1")(s) })
	close(found)
	f.wait(t, "the address", func(s *model.Snapshot) bool {
		a, _ := s.Apps.Get(model.AppKey{FrameworkID: "F-0001", Name: "a"})
		agent, _ := s.Agents.Get("S1")
		return a != nil && agent.Addr.String() == "10.0.0.7" && len(a.Tasks[0].Endpoints(a.Tasks[0].Ports[0])) == 1
	})
}

func TestAMarathonThatRegistersAnewIsAnotherFramework(t *testing.T) {
	m := newScript(t)
	m.set("/a", app("/a", "a.1"))
	f := follow(t, nil, m.URL)
	f.wait(t, "the first picture", has("a.1"))
	m.change(func() { m.info = strings.ReplaceAll(m.info, "F-0001", "F-0002") })
	m.cut()
	f.wait(t, "the new framework", func(s *model.Snapshot) bool {
		a, ok := s.Apps.Get(model.AppKey{FrameworkID: "F-0002", Name: "a"})
		return ok && s.Apps.Len() == 1 && a.Tasks[0].Key.FrameworkID == "F-0002"
	})
}

func TestHostsThatCanNotBe(t *testing.T) {
	for _, h := range []string{"", "ftp://a", "http://u:secret@a:8080", "http://a/?x=secret", "http://a:b:secret"} {
		cfg := DefaultConfig()
		cfg.Hosts = []string{"ok:8080", h}
		_, err := New(cfg, zap.NewNop(), nil)
		if err == nil || !strings.Contains(err.Error(), "host 2") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", h, err)
		}
	}
	s, err := New(DefaultConfig(), zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), nil); err == nil {
		t.Error("nobody to follow is no error")
	}
}
