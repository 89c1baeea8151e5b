package mesos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"waggle/model"
	"waggle/watcher/mesos/mesostest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is a Config that does not wait long.
func soon(masters ...string) Config {
	cfg := DefaultConfig()
	cfg.Masters = masters
	cfg.Resolve = fakeResolve
	cfg.MinBackoff, cfg.MaxBackoff = time.Millisecond, 10*time.Millisecond
	return cfg
}

// follower is a running Source and what it published.
type follower struct {
	*Source
	tb  testing.TB
	reg *prometheus.Registry

	mu   sync.Mutex // guards the following
	all  []*model.Snapshot
	news chan struct{} // closed and replaced with every Snapshot
}

// follow runs a Source until the test ends.
func follow(tb testing.TB, cfg Config) *follower {
	tb.Helper()
	return followLogged(tb, cfg, zap.NewNop())
}

func followLogged(tb testing.TB, cfg Config, log *zap.Logger) *follower {
	tb.Helper()
	f := &follower{tb: tb, reg: prometheus.NewRegistry(), news: make(chan struct{})}
	var err error
	if f.Source, err = New(cfg, log, f.reg); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.Run(ctx, f.publish) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			tb.Errorf("Run ended with %v", err)
		}
	})
	return f
}

func (f *follower) publish(s *model.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, s)
	close(f.news)
	f.news = make(chan struct{})
}

// published returns how many Snapshots there were, and the last.
func (f *follower) published() (int, *model.Snapshot, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.all) == 0 {
		return 0, &model.Snapshot{}, f.news
	}
	return len(f.all), f.all[len(f.all)-1], f.news
}

// until waits for a Snapshot that want returns nothing about.
func (f *follower) until(want func(*model.Snapshot) string) *model.Snapshot {
	f.tb.Helper()
	deadline := time.After(60 * time.Second)
	for {
		n, s, news := f.published()
		missing := want(s)
		if n > 0 && missing == "" {
			return s
		}
		select {
		case <-news:
		case <-deadline:
			f.tb.Fatalf("after %d Snapshots: %s\nstatus %+v", n, missing, f.Status())
		}
	}
}

// shows is a want: exactly these tasks.
func shows(ids ...string) func(*model.Snapshot) string {
	return func(s *model.Snapshot) string {
		var got []string
		for key := range tasksOf(s) {
			got = append(got, key.ID)
		}
		slices.Sort(got)
		return cmp.Diff(ids, got)
	}
}

// eventually polls for what no Snapshot tells.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(60 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("never: %s", what)
		}
	}
}

func serve(tb testing.TB, picture []byte) *mesostest.Master {
	m := mesostest.Serve(picture)
	tb.Cleanup(m.Close)
	return m
}

var picture = mesostest.Subscribed(15, objects{agentA, agentB}, objects{fw}, []mesostest.Task{task1, task2})

func TestASourcePublishesThePictureAndWhatFollows(t *testing.T) {
	m := serve(t, picture)
	f := follow(t, soon(m.Addr().String()))
	s := f.until(shows("1", "2"))
	if s.Leader != m.Addr() || !slices.Equal(s.Masters, []netip.AddrPort{m.Addr()}) {
		t.Errorf("leader %v, masters %v, want %v", s.Leader, s.Masters, m.Addr())
	}
	m.Send(mesostest.TaskUpdated(in(task1, "TASK_FINISHED")))
	f.until(shows("2"))
	st := f.Status()
	if !st.Connected || st.Leader != m.Addr().String() || st.LastEvent.IsZero() || st.Err != nil {
		t.Errorf("status %+v", st)
	}
}

func TestNothingIsForgottenWhenTheMasterGoes(t *testing.T) {
	m := serve(t, picture)
	f := follow(t, soon(m.Addr().String()))
	f.until(shows("1", "2"))
	n, _, _ := f.published()
	m.Refuse(http.StatusServiceUnavailable, "Master has not finished recovery")
	m.Cut()
	eventually(t, "the master's answer is in the status", func() bool {
		st := f.Status()
		return !st.Connected && st.Err != nil && strings.HasSuffix(st.Err.Error(), "503 Service Unavailable: Master has not finished recovery")
	})
	if now, s, _ := f.published(); now != n || s.Apps.Len() != 2 {
		t.Errorf("%d Snapshots were published without a master, the last has %d apps", now-n, s.Apps.Len())
	}
	m.SetPicture(mesostest.Subscribed(15, objects{agentA, agentB}, objects{fw}, []mesostest.Task{task2}))
	m.SetAnswer(nil)
	f.until(shows("2"))
	if !f.Status().Connected {
		t.Error("not connected again")
	}
}

func TestAPictureCutShortIsNotBelieved(t *testing.T) {
	record := mesostest.Record(picture)
	m := serve(t, nil)
	f := follow(t, soon(m.Addr().String()))
	if err := m.WaitStreams(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	m.SendRaw(record[:len(record)-1])
	m.Cut()
	eventually(t, "the cut is in the status", func() bool {
		err := f.Status().Err
		return err != nil && strings.Contains(err.Error(), "read first picture")
	})
	if n, _, _ := f.published(); n > 0 {
		t.Errorf("%d Snapshots of half a picture", n)
	}
	m.SetPicture(picture)
	m.Cut()
	f.until(shows("1", "2"))
}

func TestAPictureWithoutItsListsIsNotBelieved(t *testing.T) {
	for name, text := range map[string]string{
		"no list of tasks": `{"type":"SUBSCRIBED","subscribed":{"get_state":{"get_tasks":{"tasks":{}}}}}`,
		"no state":         `{"type":"SUBSCRIBED","subscribed":{"get_state":7}}`,
		"nothing":          `{"type":"SUBSCRIBED"}`,
		"no JSON":          `{"type":"SUBSCRIBED"`,
	} {
		t.Run(name, func(t *testing.T) {
			m := serve(t, []byte(text))
			f := follow(t, soon(m.Addr().String()))
			eventually(t, "it is refused", func() bool {
				err := f.Status().Err
				return err != nil && strings.Contains(err.Error(), "read first picture")
			})
			if n, _, _ := f.published(); n > 0 {
				t.Errorf("%d Snapshots published", n)
			}
		})
	}
}

func TestAHeartbeatMayComeFirst(t *testing.T) {
	m := serve(t, mesostest.Heartbeat())
	f := follow(t, soon(m.Addr().String()))
	if err := m.WaitStreams(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	m.Send(mesostest.TaskAdded(task1)) // of which nothing can be made yet
	m.Send(picture)
	f.until(shows("1", "2"))
}

func TestBadEventsCostOnlyThemselves(t *testing.T) {
	m := serve(t, picture)
	f := follow(t, soon(m.Addr().String()))
	f.until(shows("1", "2"))
	m.Send([]byte(`no JSON`))
	m.Send([]byte(`{"type":7}`))
	m.Send([]byte(`{"type":"TASK_ADDED","task_added":[]}`))
	m.Send([]byte(`{"type":"TASK_ADDED","task_added":{"task":{"task_id":{"value":"x"}}}}`))
	m.Send(mesostest.TaskUpdated(in(task1, "TASK_KILLED")))
	s := f.until(shows("2"))
	want := []model.Problem{
		{Field: "record 2", Error: "'n' where an object should begin"},
		{Field: "task_added", Value: "array", Error: "array where object should be"},
		{Field: "type", Value: "7", Error: "number where string should be"},
		{Task: "x", Field: "framework_id", Error: "missing or unreadable"},
	}
	if d := cmp.Diff(want, s.Problems); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if n := f.counter("waggle_mesos_problems"); n != 4 {
		t.Errorf("%v problems counted", n)
	}
}

func TestASilentStreamIsGivenUp(t *testing.T) {
	m := serve(t, mesostest.Subscribed(0.02, objects{agentA}, objects{fw}, []mesostest.Task{task1}))
	f := follow(t, soon(m.Addr().String()))
	f.until(shows("1"))
	eventually(t, "a second stream", func() bool { return f.counter("waggle_mesos_reconnects_total") > 0 })
	if err := f.errOnce(); !errors.Is(err, errSilent) {
		t.Errorf("the reason given is %v", err)
	}
}

// errOnce waits for the reason of a lost stream, which the next one clears.
func (f *follower) errOnce() error {
	var err error
	eventually(f.tb, "a reason", func() bool { err = f.Status().Err; return err != nil })
	return err
}

func TestAMasterThatHangsIsLeftForTheNext(t *testing.T) {
	hangs, leads := serve(t, nil), serve(t, picture)
	hangs.Hang()
	cfg := soon(hangs.Addr().String(), leads.Addr().String())
	cfg.FirstByte = 20 * time.Millisecond
	f := follow(t, cfg)
	if s := f.until(shows("1", "2")); s.Leader != leads.Addr() {
		t.Errorf("leader is %v", s.Leader)
	}
	if want := []netip.AddrPort{hangs.Addr(), leads.Addr()}; !slices.Equal(f.all[0].Masters, want) {
		t.Errorf("masters are %v, want %v", f.all[0].Masters, want)
	}
}

func TestAMasterThatHangsAfterItsHeadersIsLeftToo(t *testing.T) {
	hangs, leads := serve(t, nil), serve(t, picture) // no first record
	cfg := soon(hangs.Addr().String(), leads.Addr().String())
	cfg.FirstByte = 20 * time.Millisecond
	follow(t, cfg).until(shows("1", "2"))
}

func TestTheNextMasterIsAskedAtOnce(t *testing.T) {
	refuses, leads := serve(t, nil), serve(t, picture)
	refuses.Refuse(http.StatusUnauthorized, "")
	cfg := soon("127.0.0.1:1", refuses.Addr().String(), leads.Addr().String())
	cfg.MinBackoff, cfg.MaxBackoff = time.Hour, time.Hour
	follow(t, cfg).until(shows("1", "2"))
}

func TestRedirectsAreFollowed(t *testing.T) {
	leads := serve(t, picture)
	port := fmt.Sprint(leads.Addr().Port())
	for name, location := range map[string]string{
		"with a path":    "//" + leads.Addr().String() + "/api/v1",
		"without a path": "//" + leads.Addr().String(),
		"with a scheme":  "http://" + leads.Addr().String() + "/api/v1",
		"to a name":      "//localhost:" + port + "/api/v1",
	} {
		t.Run(name, func(t *testing.T) {
			m := serve(t, nil)
			m.SetAnswer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.Method != "POST" || r.URL.Path != "/api/v1" || string(body) != `{"type":"SUBSCRIBE"}` ||
					r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Accept") != "application/json" {
					t.Errorf("asked %s %s %v %q", r.Method, r.URL, r.Header, body)
				}
				w.Header().Set("Location", location)
				w.WriteHeader(http.StatusTemporaryRedirect)
			}))
			if s := follow(t, soon(m.Addr().String())).until(shows("1", "2")); s.Leader != leads.Addr() {
				t.Errorf("leader is %v, want %v", s.Leader, leads.Addr())
			}
		})
	}
}

func TestAnAnswerThatIsNoStreamIsSaidClearly(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"redirects in a circle", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "//"+r.Host)
			w.WriteHeader(307)
		}, "sent on more than 3 times"},
		{"a redirect to nowhere", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http:///x")
			w.WriteHeader(307)
		}, `cannot follow redirect to "http://"`},
		{"a redirect to another world", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "ftp://host/x")
			w.WriteHeader(307)
		}, `cannot follow redirect to "ftp://host"`},
		{"a password wanted", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "401 Unauthorized"},
		{"no right", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, "403 Forbidden"},
		{"no such path", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, "404 Not Found: 404 page not found"},
		{"some page", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, `answer is "text/html", not application/json`},
		{"no RecordIO", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("{}"))
		}, `not RecordIO: record 1 at byte 0 has length "{"`},
		{"nothing", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "application/json") }, "unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := serve(t, nil)
			m.SetAnswer(tt.answer)
			f := follow(t, soon(m.Addr().String()))
			if err := f.errOnce(); !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), m.Addr().String()) {
				t.Errorf("got %v\nwant %s, and the master's address", err, tt.want)
			}
		})
	}
}

func TestAnUpdateForAnUnknownTaskLeadsToANewStream(t *testing.T) {
	m := serve(t, mesostest.Subscribed(15, objects{agentA, agentB}, objects{fw}, []mesostest.Task{task1}))
	cfg := soon(m.Addr().String())
	cfg.ResyncAfter = 0
	f := follow(t, cfg)
	f.until(shows("1"))
	m.SetPicture(picture)
	m.Send(mesostest.TaskUpdated(task2))
	f.until(shows("1", "2"))
	if n := f.counter("waggle_mesos_unknown_task_updates_total"); n != 1 {
		t.Errorf("%v counted", n)
	}
}

func TestResyncsAreRateLimited(t *testing.T) {
	m := serve(t, picture)
	f := follow(t, soon(m.Addr().String()))
	f.until(shows("1", "2"))
	unknown := task1
	unknown.ID = "unknown"
	for range 10 {
		m.Send(mesostest.TaskUpdated(unknown))
	}
	eventually(t, "all are counted", func() bool { return f.counter("waggle_mesos_unknown_task_updates_total") == 10 })
	if n := f.counter("waggle_mesos_reconnects_total"); n != 0 {
		t.Errorf("%v new streams within a minute", n)
	}
}

func TestAStormIsPublishedInFewTurns(t *testing.T) {
	m := serve(t, picture)
	cfg := soon(m.Addr().String())
	cfg.MaxDelay = time.Hour
	f := follow(t, cfg)
	f.until(shows("1", "2"))
	before, _, _ := f.published()
	var storm []byte
	for i := range 1000 {
		storm = append(storm, mesostest.Record(mesostest.TaskUpdated(in(task1, []string{"TASK_RUNNING", "TASK_KILLING"}[i%2])))...)
	}
	storm = append(storm, mesostest.Record(mesostest.TaskUpdated(in(task1, "TASK_KILLED")))...)
	m.SendRaw(storm)
	f.until(shows("2"))
	// One for each piece that the network made of it: a buffer at the least.
	if after, _, _ := f.published(); after-before > 200 {
		t.Errorf("1001 updates made %d Snapshots", after-before)
	}
}

func TestNamesAreLookedUpBesideTheStream(t *testing.T) {
	agent := func(id, host string) map[string]any {
		return map[string]any{"agent_info": map[string]any{"id": map[string]any{"value": id}, "hostname": host}}
	}
	m := serve(t, mesostest.Subscribed(15, objects{agent("A", "slow.example"), agentB}, objects{fw}, []mesostest.Task{task1, task2}))
	cfg := soon(m.Addr().String())
	answer := make(chan []netip.Addr)
	cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
		if host != "slow.example" {
			t.Errorf("asked for %s", host)
		}
		select {
		case a := <-answer:
			return a, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f := follow(t, cfg)
	f.until(shows("1", "2"))
	m.Send(mesostest.TaskUpdated(in(task2, "TASK_FAILED")))
	f.until(shows("1")) // the stream went on meanwhile
	answer <- []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.5")}
	f.until(func(s *model.Snapshot) string {
		task := tasksOf(s)[model.TaskKey{FrameworkID: "F", ID: "1"}]
		return cmp.Diff("10.0.0.5", task.AgentAddr.String())
	})
}

func TestANameThatIsNotFoundIsNotAskedForAgainAndAgain(t *testing.T) {
	s := &Source{world: newWorld(&model.Snapshot{})}
	s.world.unresolved["A"] = "nowhere"
	asked := map[string]time.Time{}
	if got := s.wanted(asked); len(got) != 1 {
		t.Errorf("first %v", got)
	}
	s.world.unresolved["B"] = "new"
	if d := cmp.Diff(map[string]string{"B": "new"}, s.wanted(asked)); d != "" {
		t.Error(d)
	}
	asked["nowhere"] = asked["nowhere"].Add(-lookupRetry)
	if d := cmp.Diff(map[string]string{"A": "nowhere"}, s.wanted(asked)); d != "" {
		t.Error(d)
	}
}

func TestNewNamesTheMasterThatCannotBeOne(t *testing.T) {
	for _, bad := range []string{"host", "ftp://host:1", "http://host:1/path", "http://ho st:1", ""} {
		if _, err := New(soon(bad), zap.NewNop(), nil); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, fine := range []string{"10.0.0.1:5050", "host:5050", "https://host:5050", "http://[::1]:5050/"} {
		if _, err := New(soon(fine), zap.NewNop(), nil); err != nil {
			t.Errorf("%q: %v", fine, err)
		}
	}
	s, err := New(soon(), zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), nil); err == nil {
		t.Error("a Source without masters runs")
	}
}

// counter returns the value of a metric without labels, or the sum over them.
func (f *follower) counter(name string) float64 {
	families, err := f.reg.Gather()
	if err != nil {
		f.tb.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

func TestMetricsFollowTheStream(t *testing.T) {
	m := serve(t, picture)
	f := follow(t, soon(m.Addr().String()))
	f.until(shows("1", "2"))
	m.Send(mesostest.Heartbeat())
	want := map[string]float64{
		"waggle_mesos_connected": 1, "waggle_mesos_tasks": 2, "waggle_mesos_agents": 2, "waggle_mesos_frameworks": 1,
		"waggle_mesos_events_total": 2, "waggle_mesos_snapshots_total": 1, "waggle_mesos_problems": 0,
		"waggle_mesos_received_bytes_total": float64(len(picture) + len(mesostest.Heartbeat())),
	}
	eventually(t, "the heartbeat is counted", func() bool { return f.counter("waggle_mesos_events_total") == 2 })
	for name, value := range want {
		if got := f.counter(name); got != value {
			t.Errorf("%s is %v, want %v", name, got, value)
		}
	}
	if age := f.counter("waggle_mesos_age_seconds"); age < 0 || age > 10 {
		t.Errorf("age is %v s", age)
	}
}

func TestAChangeIsNotDelayedByACutRecordBehindIt(t *testing.T) {
	m := serve(t, picture)
	cfg := soon(m.Addr().String())
	cfg.MaxDelay = time.Hour
	f := follow(t, cfg)
	f.until(shows("1", "2"))
	update := mesostest.Record(mesostest.TaskUpdated(in(task1, "TASK_KILLED")))
	m.SendRaw(append(bytes.Clone(update), update[:20]...))
	f.until(shows("2"))
}
