package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

// unreal is a cluster without processes and network, for a bubble with its
// clock. A task's cmd says what it does: "sleep" until stopped, "fail" after a
// second, "finish" after a second, and for checks "ok" and "sick".
type unreal struct {
	*Cluster
	mu  sync.Mutex // guards log
	log []string   // what happened when
	t0  time.Time
}

func newUnreal(t *testing.T, cfg Config) *unreal {
	t.Helper()
	u := &unreal{Cluster: newCluster(cfg, zap.NewNop()), t0: time.Now()}
	u.run = u.pretend
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- u.schedule(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("schedule returned %v", err)
		}
	})
	return u
}

func (u *unreal) note(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.log = append(u.log, fmt.Sprintf("%s ", time.Since(u.t0))+fmt.Sprintf(format, args...))
}

func (u *unreal) noted() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.log)
}

func (u *unreal) pretend(ctx context.Context, c command, started func(int)) error {
	cmd := c.argv[len(c.argv)-1]
	name := c.dir[strings.LastIndexByte(c.dir, '/')+1:]
	app, run := name[:strings.IndexByte(name, '.')], name[strings.LastIndexByte(name, '.')+1:]
	switch cmd {
	case "ok":
		return nil
	case "sick":
		return errors.New("sick")
	}
	u.note("%s run %s starts", app, run)
	started(1)
	after := time.NewTimer(time.Second)
	defer after.Stop()
	if cmd == "sleep" {
		after.Stop()
	}
	select {
	case <-after.C:
		if cmd == "finish" {
			return nil
		}
		return errors.New("command exited with status 1")
	case <-ctx.Done():
		u.note("%s run %s stopped", app, run)
		return errors.New("command terminated with signal Terminated")
	}
}

// pass lets the bubble's clock go on.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestATaskThatFailsIsStartedAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnreal(t, quick())
		deploy(t, u.Cluster, `{"id": "/a", "cmd": "fail", "backoffSeconds": 2, "backoffFactor": 3, "maxLaunchDelaySeconds": 20}`)
		synctest.Wait()
		if got := u.Apps()[0]; got.Running != 1 || got.Message != "" {
			t.Errorf("at first: %+v", got)
		}
		pass(time.Second)
		if got := u.Apps()[0]; !strings.HasPrefix(got.Message, "command exited with status 1; next start at ") {
			t.Errorf("after the first end: %+v", got)
		}
		pass(59 * time.Second)
		want := []string{"0s a run 1 starts", "3s a run 2 starts", "10s a run 3 starts", "29s a run 4 starts", "50s a run 5 starts"}
		if diff := cmp.Diff(want, u.noted()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestATaskThatFinishesIsStartedAgainToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnreal(t, quick())
		deploy(t, u.Cluster, `{"id": "/a", "cmd": "finish"}`)
		pass(2500 * time.Millisecond)
		want := []string{"0s a run 1 starts", "2s a run 2 starts"}
		if diff := cmp.Diff(want, u.noted()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		states := []string{}
		for _, s := range u.world.completed[0].Statuses {
			states = append(states, s.State+" "+s.Message)
		}
		want = []string{"TASK_STARTING ", "TASK_RUNNING ", "TASK_FINISHED Command exited with status 0"}
		if diff := cmp.Diff(want, states); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestScalingDownAnnouncesBeforeItStopsTheYoungest(t *testing.T) {
	for selection, survivor := range map[string]int{"YOUNGEST_FIRST": 0, "OLDEST_FIRST": 2} {
		t.Run(selection, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := quick()
				cfg.KillDelay = 5 * time.Second
				u := newUnreal(t, cfg)
				deploy(t, u.Cluster, `{"id": "/a", "cmd": "sleep", "instances": 3, "killSelection": "`+selection+`"}`)
				synctest.Wait()
				before := u.Tasks()
				_, s, _ := u.subscribe(0)
				if err := u.Scale("/a", 1); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if n := len(s.events); n != 2 {
					t.Errorf("%d events at once, want 2", n)
				}
				pass(6 * time.Second)
				u.unsubscribe(s)
				var states []string
				for msg := range s.events {
					var e struct {
						Updated taskUpdated `json:"task_updated"`
					}
					if err := json.Unmarshal(msg, &e); err != nil {
						t.Fatal(err)
					}
					states = append(states, e.Updated.State)
				}
				if diff := cmp.Diff([]string{stateKilling, stateKilling, stateKilled, stateKilled}, states); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
				want := []string{"0s a run 1 starts", "0s a run 1 starts", "0s a run 1 starts", "5s a run 1 stopped", "5s a run 1 stopped"}
				if diff := cmp.Diff(want, u.noted()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if after := u.Tasks(); len(after) != 1 || after[0].ID != before[survivor].ID {
					t.Errorf("left is %+v, of %+v", after, before)
				}
			})
		})
	}
}

func TestAKilledTaskIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quick()
		cfg.KillDelay = time.Second
		u := newUnreal(t, cfg)
		deploy(t, u.Cluster, `{"id": "/a", "cmd": "sleep"}`)
		synctest.Wait()
		if err := u.Kill(u.Tasks()[0].ID); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		want := []string{"0s a run 1 starts", "0s a run 1 starts", "1s a run 1 stopped"}
		if diff := cmp.Diff(want, u.noted()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestASecondInstanceThatNeedsTheSamePortWaitsAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnreal(t, quick())
		deploy(t, u.Cluster, `{"id": "/a", "cmd": "sleep", "instances": 2, "requirePorts": true, "portDefinitions": [{"port": 31337}]}`)
		synctest.Wait()
		got := u.Apps()[0]
		want := AppStatus{ID: "/a", Wanted: 2, Running: 1, Healthy: 1, Message: "waits: host port 31337 is in use by another task: " + u.Tasks()[0].ID}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err := u.Scale("/a", 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want = AppStatus{ID: "/a", Wanted: 1, Running: 1, Healthy: 1}
		if diff := cmp.Diff(want, u.Apps()[0]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestANewDefinitionReplacesTasksOneByOne(t *testing.T) {
	const check = `"healthChecks": [{"protocol": "COMMAND", "command": {"value": "%s"}, "gracePeriodSeconds": 1, "intervalSeconds": 1}]`
	tests := []struct {
		name, first, second string
		want                []string
	}{
		{
			"new ones first where there is room",
			`"portDefinitions": [{}]`, `"portDefinitions": [{}], "env": {"A": "b"}`,
			[]string{"0s a run 1 starts", "0s a run 1 starts", "10s a run 1 starts", "10s a run 1 starts", "10.01s a run 1 stopped", "10.01s a run 1 stopped"},
		},
		{
			"old ones first where they are in the way",
			`"instances": 1, "requirePorts": true, "portDefinitions": [{"port": 31337}]`,
			`"instances": 1, "requirePorts": true, "portDefinitions": [{"port": 31337}], "env": {"A": "b"}`,
			[]string{"0s a run 1 starts", "10.01s a run 1 stopped", "10.01s a run 1 starts"},
		},
		{
			"old ones stay while new ones are sick",
			`"instances": 1`, `"instances": 1, ` + fmt.Sprintf(check, "sick"),
			[]string{"0s a run 1 starts", "10s a run 1 starts", "13.01s a run 1 stopped", "14s a run 2 starts", "17.01s a run 2 stopped", "18.15s a run 3 starts"},
		},
		{
			"nothing happens when nothing changes",
			`"env": {"A": "b"}`, `"env": {"A": "b"}`,
			[]string{"0s a run 1 starts", "0s a run 1 starts"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUnreal(t, quick())
				deploy(t, u.Cluster, `{"id": "/a", "cmd": "sleep", "instances": 2, `+tt.first+`}`)
				pass(10 * time.Second)
				deploy(t, u.Cluster, `{"id": "/a", "cmd": "sleep", "instances": 2, `+tt.second+`}`)
				pass(10 * time.Second)
				if diff := cmp.Diff(tt.want, u.noted()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestWaitingForAnAppThatIsUnknownOrNeverHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnreal(t, quick())
		u.obstacle = func(a *App) string { return map[string]string{"/gpu": "needs 1 GPU"}[a.ID] }
		deploy(t, u.Cluster, `{"id": "/gpu", "cmd": "sleep"}`)
		deploy(t, u.Cluster, `{"id": "/sad", "cmd": "fail", "instances": 2, "backoffSeconds": 3600, "backoffFactor": 2, "maxLaunchDelaySeconds": 3600}`)
		deploy(t, u.Cluster, `{"id": "/good", "cmd": "sleep", "instances": 2}`)
		pass(2 * time.Second)
		for id, want := range map[string]string{
			"/gpu":  "wait for /gpu: needs 1 GPU",
			"/none": "wait for /none: not known",
			"/sad":  "wait for /sad: 0 of 2 healthy (command exited with status 1; next start at ",
			"/good": "",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			got := ""
			if err := u.WaitHealthy(ctx, id); err != nil {
				got = err.Error()
			}
			cancel()
			if !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("%s: got %q, want %q", id, got, want)
			}
		}
		for _, task := range u.Tasks() {
			if task.App == "/gpu" {
				t.Errorf("an app that cannot run has a task: %+v", task)
			}
		}
	})
}

func TestUnknownAppsAndTasksAreErrors(t *testing.T) {
	c := newCluster(quick(), zap.NewNop())
	for name, err := range map[string]error{
		"scale": c.Scale("/a", 1), "remove": c.Remove("/a"), "kill": c.Kill("a.1"),
	} {
		if !errors.Is(err, errUnknown) || !strings.HasPrefix(err.Error(), name+" ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Deploy(App{ID: "/Bad", Cmd: "x"}); err == nil || !strings.HasPrefix(err.Error(), "deploy /Bad: id:") {
		t.Errorf("deploy: %v", err)
	}
	if err := c.Elect(7); err == nil {
		t.Error("master 7 was elected")
	}
}

// follower is a subscriber that keeps the tasks' states as a daemon would.
type follower struct {
	tasks map[string]string
}

func (f *follower) take(tb testing.TB, msg []byte) {
	tb.Helper()
	type brief struct {
		ID    ident `json:"task_id"`
		State string
	}
	var e struct {
		Type       string
		Subscribed struct {
			State struct {
				Tasks struct{ Tasks []brief } `json:"get_tasks"`
			} `json:"get_state"`
		}
		Added   struct{ Task brief } `json:"task_added"`
		Updated struct {
			State  string
			Status brief
		} `json:"task_updated"`
	}
	if err := json.Unmarshal(msg, &e); err != nil {
		tb.Fatal(err)
	}
	switch e.Type {
	case "SUBSCRIBED":
		f.tasks = map[string]string{}
		for _, t := range e.Subscribed.State.Tasks.Tasks {
			f.tasks[t.ID.Value] = t.State
		}
	case "TASK_ADDED":
		f.tasks[e.Added.Task.ID.Value] = e.Added.Task.State
	case "TASK_UPDATED":
		id := e.Updated.Status.ID.Value
		if _, ok := f.tasks[id]; !ok {
			tb.Errorf("update of a task that was never added: %s", msg)
		}
		f.tasks[id] = e.Updated.State
		if slices.Contains([]string{stateFailed, stateFinished, stateKilled}, e.Updated.State) {
			delete(f.tasks, id)
		}
	}
}

// A follower of the events has the same picture as one that subscribes anew,
// whatever happens; ports are never given twice; and what is wanted runs.
func TestRandomWalk(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { walk(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func walk(t *testing.T, rnd *rand.Rand) {
	cfg := quick()
	cfg.KillDelay = time.Second
	cfg.Ports = PortRange{31000, 31020}
	u := newUnreal(t, cfg)
	synctest.Wait()
	first, s, _ := u.subscribe(0)
	var f follower
	f.take(t, first)
	for range 60 {
		id := fmt.Sprintf("/app%d", rnd.IntN(4))
		switch rnd.IntN(6) {
		case 0, 1:
			cmd := []string{"sleep", "sleep", "fail", "finish"}[rnd.IntN(4)]
			deploy(t, u.Cluster, fmt.Sprintf(`{"id": %q, "cmd": %q, "instances": %d}`, id, cmd, rnd.IntN(5)))
		case 2:
			_ = u.Scale(id, rnd.IntN(8)) // it may not be there
		case 3:
			_ = u.Remove(id) // it may not be there
		case 4:
			if tasks := u.Tasks(); len(tasks) > 0 {
				if err := u.Kill(tasks[rnd.IntN(len(tasks))].ID); err != nil {
					t.Error(err)
				}
			}
		}
		pass(time.Duration(rnd.IntN(1500)) * time.Millisecond)
		compare(t, u, s, &f)
	}
	for _, a := range u.Apps() {
		deploy(t, u.Cluster, fmt.Sprintf(`{"id": %q, "cmd": "sleep", "instances": %d}`, a.ID, a.Wanted))
	}
	pass(10 * time.Minute)
	compare(t, u, s, &f)
	var anew follower
	first, other, _ := u.subscribe(0)
	u.unsubscribe(other)
	anew.take(t, first)
	if diff := cmp.Diff(anew.tasks, f.tasks); diff != "" {
		t.Errorf("the picture made of events (-anew +incremental):\n%s", diff)
	}
	want := 0
	for _, a := range u.Apps() {
		want += a.Wanted
		if err := u.WaitHealthy(t.Context(), a.ID); err != nil {
			t.Error(err)
		}
	}
	if got := len(u.Tasks()); got != want {
		t.Errorf("%d tasks run, %d are wanted", got, want)
	}
	u.unsubscribe(s)
}

func compare(t *testing.T, u *unreal, s *stream, f *follower) {
	t.Helper()
	for len(s.events) > 0 {
		f.take(t, <-s.events)
	}
	fresh, seen := map[string]string{}, map[int]string{}
	for _, task := range u.Tasks() {
		fresh[task.ID] = task.State
		for _, p := range task.Ports {
			if seen[p] != "" {
				t.Fatalf("port %d belongs to %s and %s", p, seen[p], task.ID)
			}
			seen[p] = task.ID
		}
	}
	if diff := cmp.Diff(fresh, f.tasks); diff != "" {
		t.Fatalf("the picture made of events (-fresh +incremental):\n%s", diff)
	}
}
