package mesos

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/model"
	"waggle/watcher/mesos/mesostest"
)

// player applies events one by one, as a stream brings them.
type player struct {
	*document
	tb testing.TB
}

func newPlayer(tb testing.TB) *player {
	d := &document{scanner: newScanner()}
	d.handler = d.newHandler()
	return &player{d, tb}
}

func (p *player) play(events ...[]byte) {
	p.tb.Helper()
	for _, e := range events {
		if err := p.one(bytes.NewReader(e), p.handler.plan()); err != nil {
			p.tb.Fatalf("%s: %v", e, err)
		}
	}
	p.world.sweep()
}

var (
	agentA = mesostest.Agent("A", netip.MustParseAddr("10.0.0.5"))
	agentB = mesostest.Agent("B", netip.MustParseAddr("10.0.0.6"))
	fw     = mesostest.Framework("F", "marathon")
	task1  = mesostest.Task{Framework: "F", Agent: "A", ID: "1", Name: "web", State: "TASK_RUNNING", IP: netip.MustParseAddr("9.0.0.1")}
	task2  = mesostest.Task{Framework: "F", Agent: "B", ID: "2", Name: "db", State: "TASK_RUNNING", IP: netip.MustParseAddr("9.0.0.2")}
)

type objects = []map[string]any

// in returns t in another state, without an address.
func in(t mesostest.Task, state string) mesostest.Task {
	t.State, t.IP = state, netip.Addr{}
	return t
}

func TestEventsChangeTheWorld(t *testing.T) {
	empty := mesostest.Subscribed(15, nil, nil, nil)
	both := mesostest.Subscribed(15, objects{agentA, agentB}, objects{fw}, []mesostest.Task{task1, task2})
	line1 := "task 1 of F marathon at 10.0.0.5 in app web: running, unknown, [9.0.0.1]"
	line2 := "task 2 of F marathon at 10.0.0.6 in app db: running, unknown, [9.0.0.2]"
	yes, no := true, false
	other := task1
	other.Framework = "G"
	sick, well := task1, task1
	sick.Healthy, well.Healthy = &no, &yes

	for _, tt := range []struct {
		name   string
		events [][]byte
		want   []string // tasks only
	}{
		{"a picture shows its tasks", [][]byte{both}, []string{line1, line2}},
		{"a task waits for its agent", [][]byte{empty, mesostest.FrameworkAdded(fw), mesostest.TaskAdded(task1)}, nil},
		{"a task waits for its framework", [][]byte{empty, mesostest.AgentAdded(agentA), mesostest.TaskAdded(task1)}, nil},
		{"a task may come first of all", [][]byte{empty, mesostest.TaskAdded(task1), mesostest.AgentAdded(agentA), mesostest.FrameworkAdded(fw)}, []string{line1}},
		{"an ended task is gone at once", [][]byte{both, mesostest.TaskUpdated(in(task1, "TASK_FINISHED"))}, []string{line2}},
		{"a killed one stays while it is being killed", [][]byte{both, mesostest.TaskUpdated(in(task1, "TASK_KILLING"))},
			[]string{"task 1 of F marathon at 10.0.0.5 in app web: killing, unknown, [9.0.0.1]", line2}},
		{"an unreachable one is not served and keeps its address", [][]byte{both, mesostest.TaskUpdated(in(task1, "TASK_UNREACHABLE"))},
			[]string{"task 1 of F marathon at 10.0.0.5 in app web: preparing, unknown, [9.0.0.1]", line2}},
		{"so is one in a state nobody has heard of", [][]byte{both, mesostest.TaskUpdated(in(task1, "TASK_DANCING"))},
			[]string{"task 1 of F marathon at 10.0.0.5 in app web: preparing, unknown, [9.0.0.1]", line2}},
		{"it may come back", [][]byte{both, mesostest.TaskUpdated(in(task1, "TASK_LOST")), mesostest.TaskAdded(task1)}, []string{line1, line2}},
		{"an update without a verdict keeps the last one", [][]byte{both, mesostest.TaskUpdated(sick), mesostest.TaskUpdated(task1)},
			[]string{"task 1 of F marathon at 10.0.0.5 in app web: running, unhealthy, [9.0.0.1]", line2}},
		{"a new verdict counts", [][]byte{both, mesostest.TaskUpdated(sick), mesostest.TaskUpdated(well)},
			[]string{"task 1 of F marathon at 10.0.0.5 in app web: running, healthy, [9.0.0.1]", line2}},
		{"the outer state beats that of the status",
			[][]byte{both, bytes.Replace(mesostest.TaskUpdated(task1), []byte(`"state":"TASK_RUNNING","status"`), []byte(`"state":"TASK_KILLING","status"`), 1)},
			[]string{"task 1 of F marathon at 10.0.0.5 in app web: killing, unknown, [9.0.0.1]", line2}},
		{"a new description replaces all of the old", [][]byte{both, mesostest.TaskAdded(in(task1, "TASK_STAGING"))},
			[]string{"task 1 of F marathon at 10.0.0.5 in app web: preparing, unknown, []", line2}},
		{"one task id in two frameworks is two tasks", [][]byte{both, mesostest.FrameworkAdded(mesostest.Framework("G", "other")), mesostest.TaskAdded(other)},
			[]string{line1, "task 1 of G other at 10.0.0.5 in app web: running, unknown, [9.0.0.1]", line2}},
		{"a framework's new name is that of its tasks at once", [][]byte{both, mesostest.FrameworkUpdated(mesostest.Framework("F", "m2"))},
			[]string{"task 1 of F m2 at 10.0.0.5 in app web: running, unknown, [9.0.0.1]", "task 2 of F m2 at 10.0.0.6 in app db: running, unknown, [9.0.0.2]"}},
		{"tasks of a removed framework are not shown", [][]byte{both, mesostest.FrameworkRemoved("F", "marathon")}, nil},
		{"an agent's new address is that of its tasks", [][]byte{both, mesostest.AgentAdded(mesostest.Agent("A", netip.MustParseAddr("10.0.0.9")))},
			[]string{"task 1 of F marathon at 10.0.0.9 in app web: running, unknown, [9.0.0.1]", line2}},
		{"tasks of a removed agent stay for a grace", [][]byte{both, mesostest.AgentRemoved("A")}, []string{line1, line2}},
		{"a new picture replaces everything", [][]byte{both, mesostest.Subscribed(15, objects{agentB}, objects{fw}, []mesostest.Task{task2})}, []string{line2}},
		{"an event nobody has heard of changes nothing", [][]byte{both, []byte(`{"type":"AGENT_DANCED","agent_danced":{"agent":[1]}}`)}, []string{line1, line2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlayer(t)
			p.play(tt.events...)
			s := p.world.snapshot()
			var got []string
			for _, line := range viewOf(s) {
				if strings.HasPrefix(line, "task ") {
					got = append(got, line)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if problems := s.AllProblems(); len(problems) > 0 {
				t.Errorf("problems: %v", problems)
			}
		})
	}
}

func TestTimeTakesAwayWhatNoEventDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlayer(t)
		p.play(mesostest.Subscribed(15, objects{agentA, agentB}, objects{fw}, []mesostest.Task{task1, task2, in(mesostest.Task{
			Framework: "F", Agent: "B", ID: "3", Name: "job"}, "TASK_FAILED")}))
		step := func(d time.Duration, want ...string) {
			t.Helper()
			<-time.After(d)
			p.play(mesostest.Heartbeat())
			var ids []string
			for key := range tasksOf(p.world.snapshot()) {
				ids = append(ids, key.ID)
			}
			slices.Sort(ids)
			if d := cmp.Diff(want, ids); d != "" {
				t.Errorf("after %v: %s", d, d)
			}
		}
		p.play(mesostest.AgentRemoved("A"))
		step(keepRemoved-time.Second, "1", "2", "3")
		p.play(mesostest.AgentAdded(agentA)) // it is back: the removal is off
		step(keepRemoved, "1", "2", "3")
		p.play(mesostest.AgentRemoved("A"))
		step(keepRemoved, "2", "3")
		if _, ok := p.world.snapshot().Agents.Get("A"); ok {
			t.Error("the removed agent is still listed")
		}
		step(keepEnded, "2")
	})
}

func TestAnEndedTaskThatCameBackIsNotSweptForItsFormerSelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlayer(t)
		p.play(mesostest.Subscribed(15, objects{agentA}, objects{fw}, []mesostest.Task{in(task1, "TASK_LOST")}), mesostest.TaskAdded(task1))
		<-time.After(keepEnded)
		p.play(mesostest.Heartbeat())
		if n := len(tasksOf(p.world.snapshot())); n != 1 {
			t.Errorf("%d tasks", n)
		}
	})
}

func TestWhatDidNotChangeKeepsItsPointer(t *testing.T) {
	picture := mesostest.Subscribed(15, objects{agentA, agentB}, objects{fw}, []mesostest.Task{task1, task2})
	p := newPlayer(t)
	p.play(picture)
	first := p.world.snapshot()
	p.play(mesostest.TaskUpdated(in(task1, "TASK_KILLING")))
	second := p.world.snapshot()
	web, db := model.AppKey{FrameworkID: "F", Name: "web"}, model.AppKey{FrameworkID: "F", Name: "db"}
	get := func(s *model.Snapshot, k model.AppKey) *model.App { app, _ := s.Apps.Get(k); return app }
	if get(first, web) == get(second, web) || get(first, db) != get(second, db) {
		t.Error("one task's change did not change just its app")
	}
	if state := get(first, web).Tasks[0].State; state != model.Running {
		t.Errorf("a published task became %v", state)
	}

	p.play(mesostest.TaskUpdated(in(task1, "TASK_KILLING"))) // the same again
	if third := p.world.snapshot(); get(second, web) != get(third, web) {
		t.Error("an update that says nothing new made a new app")
	}

	// A resubscribe brings everything anew, and mostly the same.
	w := newPlayer(t)
	w.world = newWorld(second)
	w.handler.picture = func() {} // the world is there already
	w.play(picture)
	again := w.world.snapshot()
	if get(again, db) != get(second, db) || get(again, web) == get(second, web) {
		t.Error("a new stream made new apps of the same tasks, or kept old ones of others")
	}
	for id, a := range again.Agents.All() {
		if old, _ := second.Agents.Get(id); old != a {
			t.Errorf("a new stream made agent %s anew", id)
		}
	}
	if f, _ := again.Frameworks.Get("F"); f != first1(second.Frameworks) {
		t.Error("a new stream made the framework anew")
	}
}

func first1[K, V comparable](g model.Groups[K, V]) V {
	for _, v := range g.All() {
		return v
	}
	var none V
	return none
}

func TestANameResolvedBeforeStandsInANewStream(t *testing.T) {
	named := map[string]any{"agent_info": map[string]any{"id": map[string]any{"value": "A"}, "hostname": "node.example"}}
	picture := mesostest.Subscribed(15, objects{named}, objects{fw}, []mesostest.Task{task1})
	p := newPlayer(t)
	p.play(picture)
	s := p.world.snapshot()
	want := []model.Problem{{Task: "A", Field: "hostname", Value: "node.example", Error: "no address is known for it"}}
	if d := cmp.Diff(want, s.AllProblems()); d != "" {
		t.Error(d)
	}
	p.world.resolved("A", netip.MustParseAddr("10.0.0.5"))
	s = p.world.snapshot()
	if a, _ := s.Agents.Get("A"); a.Addr.String() != "10.0.0.5" || len(s.AllProblems()) > 0 {
		t.Errorf("got %v, problems %v", a, s.AllProblems())
	}
	w := newPlayer(t)
	w.world = newWorld(s)
	w.handler.picture = func() {}
	w.play(picture)
	if task := tasksOf(w.world.snapshot())[model.TaskKey{FrameworkID: "F", ID: "1"}]; task.AgentAddr.String() != "10.0.0.5" {
		t.Errorf("the agent's address is %v until it is looked up again", task.AgentAddr)
	}
	if w.world.unresolved["A"] != "node.example" {
		t.Error("it is not looked up again")
	}
}

func TestProblemsGoWhenTheirObjectIsMended(t *testing.T) {
	p := newPlayer(t)
	p.play(mesostest.Subscribed(15, objects{agentA}, objects{fw}, nil),
		[]byte(`{"agent_added":{"agent":{"agent_info":{"id":{"value":"B"},"hostname":"10.0.0.6","port":"x"}}}}`),
		[]byte(`{"task_added":{"task":{"task_id":{"value":"1"},"framework_id":{"value":"F"},"agent_id":{"value":"A"},"name":"web","labels":1}}}`),
		[]byte(`{"task_added":{"task":{"task_id":{"value":"2"},"framework_id":{"value":"F"},"name":"db"}}}`),
		mesostest.TaskUpdated(task1))
	if n := len(p.world.snapshot().AllProblems()); n != 3 {
		t.Errorf("%d problems, want that of the agent, of the task that is nowhere, and of the other even after an update", n)
	}
	p.play(mesostest.AgentAdded(agentB), mesostest.TaskAdded(task1), mesostest.TaskAdded(task2))
	if left := p.world.snapshot().AllProblems(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	p := newPlayer(t)
	p.play(mesostest.Subscribed(15, nil, nil, nil))
	for i := range 10 * maxProblems {
		p.play(fmt.Appendf(nil, `{"agent_added":{"agent":{"agent_info":{"id":{"value":"A%d"},"hostname":7}}}}`, i))
	}
	if n := len(p.world.snapshot().Problems); n != maxProblems {
		t.Errorf("%d problems are kept", n)
	}
}

// TestRandomWalk plays random events, time passing between them, and looks in
// at random moments. Each time the Snapshot says what the oracle says, equals
// one made without looking in before, and shares all it can with the last.
func TestRandomWalk(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 11))
			walked, o := newPlayer(t), newOracle()
			var history []step
			last := &model.Snapshot{}
			for n := range 400 {
				s := step{event: randomEvent(rnd, n)}
				if rnd.IntN(10) == 0 {
					s.wait = time.Duration(rnd.IntN(60)) * time.Second
				}
				history = append(history, s)
				<-time.After(s.wait)
				walked.play(s.event)
				o.event(t, s.event)
				o.sweep()
				if rnd.IntN(4) > 0 {
					continue
				}
				now := walked.world.snapshot()
				if d := cmp.Diff(o.view(), viewOf(now)); d != "" {
					t.Fatalf("seed %d, event %d, %s (-oracle +world):\n%s", seed, n, s.event, d)
				}
				sameAsAtOnce(t, walked.world, now)
				sharing(t, last, now)
				last = now
			}
			fresh := newPlayer(t)
			fresh.play(history[0].event)
			for _, s := range history[1:] {
				<-time.After(s.wait)
				fresh.play(s.event)
			}
			if d := diffSnapshots(fresh.world.snapshot(), walked.world.snapshot()); d != "" {
				t.Fatalf("seed %d (-played at once +walked):\n%s", seed, d)
			}
		})
	}
}

type step struct {
	wait  time.Duration
	event []byte
}

// sameAsAtOnce builds a Snapshot of the very same tables from nothing.
func sameAsAtOnce(t *testing.T, w *world, got *model.Snapshot) {
	t.Helper()
	again := *w
	again.built, again.before, again.changed, again.trouble = nil, &model.Snapshot{}, true, 0
	again.dirty = map[model.AppKey]struct{}{}
	for key := range w.apps {
		again.dirty[key] = struct{}{}
	}
	if d := diffSnapshots(again.snapshot(), got); d != "" {
		t.Fatalf("(-from nothing +walked):\n%s", d)
	}
	if again.trouble != w.trouble {
		t.Fatalf("%d problems counted, from nothing %d", w.trouble, again.trouble)
	}
}

// sharing fails if an app or a task that says the same as before is a new one.
func sharing(t *testing.T, before, now *model.Snapshot) {
	t.Helper()
	old := tasksOf(before)
	for key, task := range tasksOf(now) {
		if was := old[key]; was != nil && was != task && cmp.Equal(was, task, plainly) {
			t.Fatalf("task %v is new but says the same", key)
		}
	}
	for c := range model.Diff(before.Apps, now.Apps) {
		if c.InOld && c.InNew && cmp.Equal(c.Old, c.New, plainly) {
			t.Fatalf("app %v is new but says the same", c.Key)
		}
	}
}

func randomEvent(rnd *rand.Rand, n int) []byte {
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	agent := func() map[string]any {
		return mesostest.Agent(pick("A", "B", "C"), netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(3))}))
	}
	framework := func() map[string]any { return mesostest.Framework(pick("F", "G"), pick("marathon", "other")) }
	task := func() mesostest.Task {
		id := rnd.IntN(12)
		out := mesostest.Task{
			Framework: pick("F", "G"), Agent: pick("A", "B", "C"), ID: fmt.Sprint(id), Name: fmt.Sprint("app", id/4),
			State: pick("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_RUNNING", "TASK_RUNNING", "TASK_KILLING", "TASK_UNREACHABLE", "TASK_FINISHED", "TASK_LOST"),
			Ports: []mesostest.Port{{Number: rnd.IntN(3) * 40_000, Protocol: pick("tcp", "udp", "tcp,udp")}},
		}
		if rnd.IntN(2) == 0 {
			out.IP = netip.AddrFrom4([4]byte{9, 0, 0, byte(rnd.IntN(4))})
		}
		if rnd.IntN(3) == 0 {
			healthy := rnd.IntN(2) == 0
			out.Healthy = &healthy
		}
		return out
	}
	if n == 0 || rnd.IntN(100) == 0 {
		tasks := make([]mesostest.Task, 0, 8)
		for range 8 {
			tasks = append(tasks, task())
		}
		return mesostest.Subscribed(15, objects{agent(), agent()}, objects{framework()}, tasks)
	}
	switch rnd.IntN(20) {
	case 0, 1:
		return mesostest.AgentAdded(agent())
	case 2:
		return mesostest.AgentRemoved(pick("A", "B", "C"))
	case 3:
		return mesostest.FrameworkAdded(framework())
	case 4:
		return mesostest.FrameworkUpdated(framework())
	case 5:
		return mesostest.FrameworkRemoved(pick("F", "G"), "")
	case 6, 7, 8, 9, 10:
		return mesostest.TaskAdded(task())
	case 11:
		return mesostest.Heartbeat()
	default:
		return mesostest.TaskUpdated(task())
	}
}
