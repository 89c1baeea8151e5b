package mesos

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
	"waggle/model"
	"waggle/watcher/mesos/mesostest"
)

// patience is how long agents are waited for in these tests.
const patience = 10 * time.Minute

// heir plays events as a Source does: a new picture takes over from the last
// Snapshot what it may lack.
type heir struct {
	*player
	last *model.Snapshot
}

func newHeir(tb testing.TB) *heir {
	h := &heir{newPlayer(tb), &model.Snapshot{}}
	h.handler.picture = func() { h.world = newWorld(h.last) }
	return h
}

// play plays events; the world before a picture is that of another master.
func (h *heir) play(events ...[]byte) *model.Snapshot {
	h.tb.Helper()
	for _, e := range events {
		old := h.world
		h.player.play(e)
		if h.world != old {
			h.world.adopt(old, patience, false)
		}
		h.snapshot()
	}
	return h.last
}

// pass lets time pass, and what waits for it happen.
func (h *heir) pass(d time.Duration) *model.Snapshot {
	for end := time.Now().Add(d); ; {
		step := time.Until(end)
		if due := h.world.due; !due.IsZero() {
			step = min(step, time.Until(due))
		}
		<-time.After(step)
		h.world.sweep()
		h.snapshot()
		if !time.Now().Before(end) {
			return h.last
		}
	}
}

func (h *heir) snapshot() { h.last = h.world.snapshot() }

// tells is what a Snapshot shows: task ids, and the agents that are held.
func tells(s *model.Snapshot) string {
	var ids, held []string
	for key := range tasksOf(s) {
		ids = append(ids, key.ID)
	}
	for id := range s.Held.All() {
		held = append(held, id)
	}
	slices.Sort(ids)
	slices.Sort(held)
	return strings.Join(ids, " ") + " held: " + strings.Join(held, " ")
}

func TestTasksOfAgentsThatHaveNotRegisteredAreHeld(t *testing.T) {
	// Task 1 is on agent A, 2 on B, 3 is being killed on A, 4 is not up yet there.
	three, four := task1, in(task1, "TASK_STAGING")
	three.ID, three.State, four.ID = "3", "TASK_KILLING", "4"
	before := mesostest.Subscribed(15, objects{agentA, agentB}, objects{fw}, []mesostest.Task{task1, task2, three, four})
	recovering := mesostest.FailedOver(15, nil, []string{"A", "B"}, nil, nil)
	elsewhere := task1
	elsewhere.Agent = "B"
	ended := func(m mesostest.Task) []byte { return mesostest.TaskUpdated(in(m, "TASK_FINISHED")) }

	for _, tt := range []struct {
		name  string
		steps func(*heir) *model.Snapshot
		want  string
	}{
		{"at once after the failover", func(h *heir) *model.Snapshot { return h.play(recovering) }, "1 2 3 held: A B"},
		{"until shortly before the end of patience", func(h *heir) *model.Snapshot {
			h.play(recovering)
			return h.pass(patience - time.Second)
		}, "1 2 3 held: A B"},
		{"and not longer", func(h *heir) *model.Snapshot {
			h.play(recovering)
			return h.pass(patience)
		}, " held: "},
		{"a task comes before its agent, the framework last", func(h *heir) *model.Snapshot {
			h.play(recovering, mesostest.TaskAdded(task1), mesostest.AgentAdded(agentA), mesostest.FrameworkUpdated(fw))
			return h.pass(quiet)
		}, "1 2 held: B"},
		{"the agent comes before its tasks", func(h *heir) *model.Snapshot {
			h.play(recovering, mesostest.AgentAdded(agentA), mesostest.FrameworkAdded(fw))
			h.pass(quiet - time.Second)
			h.play(mesostest.TaskAdded(task1)) // the rest may come as late
			return h.pass(quiet - time.Second)
		}, "1 2 3 held: A B"},
		{"what an agent does not bring again is let go when it is quiet", func(h *heir) *model.Snapshot {
			h.play(recovering, mesostest.AgentAdded(agentA), mesostest.TaskAdded(three))
			return h.pass(quiet)
		}, "2 3 held: B"},
		{"what ends after it was brought again is gone at once", func(h *heir) *model.Snapshot {
			return h.play(recovering, mesostest.TaskAdded(task1), mesostest.AgentAdded(agentA), ended(task1))
		}, "2 3 held: A B"},
		{"an end that is told of without a description counts too", func(h *heir) *model.Snapshot {
			return h.play(recovering, ended(task1))
		}, "2 3 held: A B"},
		{"a task that has moved is that of its new agent", func(h *heir) *model.Snapshot {
			h.play(recovering, mesostest.AgentAdded(agentB), mesostest.TaskAdded(elsewhere), mesostest.TaskAdded(task2))
			h.pass(quiet)
			return h.pass(patience)
		}, "1 2 held: "},
		{"a second failover holds on", func(h *heir) *model.Snapshot {
			h.play(recovering)
			h.pass(patience / 2)
			h.play(recovering)
			return h.pass(patience - time.Second)
		}, "1 2 3 held: A B"},
		{"an agent that is removed is not waited for", func(h *heir) *model.Snapshot {
			h.play(recovering, mesostest.AgentRemoved("A"))
			return h.pass(keepRemoved)
		}, "2 held: B"},
		{"an agent that has vanished without a word is not waited for", func(h *heir) *model.Snapshot {
			h.play(mesostest.TaskUpdated(in(task1, "TASK_UNREACHABLE")), mesostest.TaskUpdated(in(three, "TASK_LOST")))
			return h.play(mesostest.FailedOver(15, nil, []string{"B"}, nil, nil))
		}, "2 held: B"},
		{"and brings its tasks when it returns", func(h *heir) *model.Snapshot {
			h.play(mesostest.TaskUpdated(in(task1, "TASK_UNREACHABLE")), mesostest.TaskUpdated(in(three, "TASK_LOST")))
			h.play(mesostest.FailedOver(15, nil, []string{"B"}, nil, nil))
			return h.play(mesostest.AgentAdded(agentA), mesostest.TaskAdded(task1))
		}, "1 2 held: B"},
		{"an agent that is there without a task is believed", func(h *heir) *model.Snapshot {
			return h.play(mesostest.FailedOver(15, objects{agentA}, []string{"B"}, objects{fw}, []mesostest.Task{three}))
		}, "2 3 held: B"},
		{"an agent in both lists is there", func(h *heir) *model.Snapshot {
			return h.play(mesostest.FailedOver(15, objects{agentA, agentB}, []string{"A"}, objects{fw}, []mesostest.Task{task2}))
		}, "2 held: "},
		{"agents that nobody knows have a grace", func(h *heir) *model.Snapshot {
			h.play(mesostest.Subscribed(15, objects{agentB}, objects{fw}, []mesostest.Task{task2}))
			return h.pass(keepVanished - time.Second)
		}, "1 2 3 held: A"},
		{"and not more", func(h *heir) *model.Snapshot {
			h.play(mesostest.Subscribed(15, objects{agentB}, objects{fw}, []mesostest.Task{task2}))
			return h.pass(keepVanished)
		}, "2 held: "},
		{"which another picture does not renew", func(h *heir) *model.Snapshot {
			lost := mesostest.Subscribed(15, objects{agentB}, objects{fw}, []mesostest.Task{task2})
			h.play(lost)
			h.pass(keepVanished / 2)
			h.play(lost)
			return h.pass(keepVanished / 2)
		}, "2 held: "},
		{"a framework that says nothing is known by its tasks", func(h *heir) *model.Snapshot {
			h.play(recovering, mesostest.TaskAdded(task1), mesostest.AgentAdded(agentA), mesostest.TaskAdded(task2), mesostest.AgentAdded(agentB))
			return h.pass(3 * patience)
		}, "1 2 held: "},
		{"a framework that is removed takes its tasks' names", func(h *heir) *model.Snapshot {
			return h.play(recovering, mesostest.FrameworkRemoved("F", "marathon"))
		}, " held: A B"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHeir(t)
				h.play(before)
				if got := tells(tt.steps(h)); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if p := h.last.AllProblems(); len(p) > 0 {
					t.Errorf("problems: %v", p)
				}
			})
		})
	}
}

// TestAHeldTaskKeepsItsPointer: a failover costs the later stages nothing.
func TestAHeldTaskKeepsItsPointer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		before := h.play(mesostest.Subscribed(15, objects{agentA, agentB}, objects{fw}, []mesostest.Task{task1, task2}))
		after := h.play(mesostest.FailedOver(15, nil, []string{"A", "B"}, nil, nil))
		for range model.Diff(before.Apps, after.Apps) {
			t.Error("an app changed")
		}
		hold, ok := after.Held.Get("A")
		if !ok || !hold.Since.Equal(time.Now()) || !hold.Until.Equal(time.Now().Add(patience)) {
			t.Errorf("hold is %+v", hold)
		}
		h.pass(time.Minute)
		again := h.play(mesostest.AgentAdded(agentA), mesostest.FrameworkAdded(fw), mesostest.TaskAdded(task1),
			mesostest.AgentAdded(agentB), mesostest.TaskAdded(task2))
		for range model.Diff(before.Apps, again.Apps) {
			t.Error("an app that came back as it was changed")
		}
		if n := h.world.heldTasks(); n != 0 {
			t.Errorf("%d tasks are held still", n)
		}
	})
}

// TestAFrameworkWithoutTasksIsNamedOnForAGrace: its record is one of DNS.
func TestAFrameworkWithoutTasksIsNamedOnForAGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		h.play(mesostest.Subscribed(15, objects{agentA}, objects{fw}, nil))
		for _, tt := range []struct {
			picture []byte
			grace   time.Duration
		}{
			{mesostest.Subscribed(15, objects{agentA}, nil, nil), keepVanished},
			{mesostest.FailedOver(15, nil, []string{"A"}, nil, nil), patience},
		} {
			h.play(mesostest.FrameworkAdded(fw), tt.picture)
			if s := h.pass(tt.grace - time.Second); s.Frameworks.Len() != 1 {
				t.Error("the framework is gone already")
			}
			if s := h.pass(time.Second); s.Frameworks.Len() != 0 {
				t.Error("the framework is named for ever")
			}
		}
	})
}

// TestRandomFailovers plays random events and failovers. Each time the Snapshot
// says what a naive telling of the same says, equals one built of the tables from
// nothing, and shares all it can with the last.
func TestRandomFailovers(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 12))
			h, o := newHeir(t), newHeldOracle()
			last := h.last
			for n := range 500 {
				event := randomEvent(rnd, n)
				if n > 0 && rnd.IntN(25) == 0 {
					event = randomFailover(rnd)
				}
				now := h.play(event)
				o.event(t, event)
				where := fmt.Sprintf("seed %d, event %d, %s", seed, n, event)
				if d := cmp.Diff(o.view(), viewOf(now)); d != "" {
					t.Fatalf("%s (-oracle +world):\n%s", where, d)
				}
				sameAsAtOnce(t, h.world, now)
				sharing(t, last, now)
				if last = now; rnd.IntN(6) > 0 {
					continue
				}
				d := time.Duration(rnd.IntN(40)) * time.Second
				if rnd.IntN(10) == 0 {
					d = patience
				}
				now = h.pass(d)
				o.sweep()
				if diff := cmp.Diff(o.view(), viewOf(now)); diff != "" {
					t.Fatalf("%s, %v later (-oracle +world):\n%s", where, d, diff)
				}
				last = now
			}
		})
	}
}

func randomFailover(rnd *rand.Rand) []byte {
	var recovered []string
	var agents objects
	for i, id := range []string{"A", "B", "C"} {
		switch rnd.IntN(4) {
		case 0:
			agents = append(agents, mesostest.Agent(id, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})))
		case 1, 2:
			recovered = append(recovered, id)
		}
	}
	return mesostest.FailedOver(15, agents, recovered, nil, nil)
}

// heldOracle is the oracle with holds: it keeps a copy of the world before and
// looks at the whole of it each time.
type heldOracle struct {
	*oracle
	holds map[string]*oracleHold // by agent
	held  map[string]bool        // tasks
	kept  map[string]time.Time   // frameworks
}

type oracleHold struct{ until, returned time.Time }

func newHeldOracle() *heldOracle {
	return &heldOracle{newOracle(), map[string]*oracleHold{}, map[string]bool{}, map[string]time.Time{}}
}

func (o *heldOracle) event(tb testing.TB, text []byte) {
	tb.Helper()
	var e any
	unmarshal(tb, text, &e)
	before := *o
	beforeOracle := *o.oracle
	before.oracle = &beforeOracle
	o.oracle.event(tb, text)
	now := time.Now()
	if state := at(e, "subscribed", "get_state"); state != nil {
		o.takeOver(&before, list(state, "get_agents", "recovered_agents"), now)
		return
	}
	key := str(e, "task_added", "task", "framework_id", "value") + "/" + str(e, "task_added", "task", "task_id", "value")
	if key == "/" {
		key = str(e, "task_updated", "framework_id", "value") + "/" + str(e, "task_updated", "status", "task_id", "value")
	}
	delete(o.held, key)
	if h := o.holds[str(e, "task_added", "task", "agent_id", "value")]; h != nil && !h.returned.IsZero() {
		h.returned = now
	}
	if h := o.holds[str(e, "agent_added", "agent", "agent_info", "id", "value")]; h != nil {
		h.returned = now
	}
	for _, kind := range []string{"framework_added", "framework_updated"} {
		delete(o.kept, str(e, kind, "framework", "framework_info", "id", "value"))
	}
	delete(o.kept, str(e, "framework_removed", "framework_info", "id", "value"))
}

func (o *heldOracle) takeOver(before *heldOracle, recovered []any, now time.Time) {
	o.holds, o.held, o.kept = map[string]*oracleHold{}, map[string]bool{}, map[string]time.Time{}
	told := maps.Clone(o.agents)
	hold := func(id string, until time.Time) {
		o.holds[id] = &oracleHold{until: until}
		if addr := before.agents[id]; addr != "" {
			o.agents[id] = addr
		}
	}
	for _, a := range recovered {
		if id := str(a, "id", "value"); told[id] == "" {
			hold(id, now.Add(patience))
		}
	}
	waits := len(o.holds) > 0
	for key, t := range before.tasks {
		if t.state != "running" && t.state != "killing" || o.tasks[key] != nil || told[t.agent] != "" ||
			before.agents[t.agent] == "" || before.frameworks[t.framework] == "" {
			continue
		}
		if o.holds[t.agent] == nil {
			until := now.Add(keepVanished)
			if old := before.holds[t.agent]; old != nil && old.until.Before(until) {
				until = old.until
			}
			if !now.Before(until) {
				continue
			}
			hold(t.agent, until)
		}
		o.tasks[key], o.held[key] = t, true
	}
	for id, name := range before.frameworks {
		if o.frameworks[id] == "" {
			o.frameworks[id], o.kept[id] = name, now.Add(keepVanished)
			if waits {
				o.kept[id] = now.Add(patience)
			}
		}
	}
}

func (o *heldOracle) sweep() {
	o.oracle.sweep()
	now := time.Now()
	for id, h := range o.holds {
		end := h.until
		if !h.returned.IsZero() {
			end = h.returned.Add(quiet)
		}
		if now.Before(end) {
			continue
		}
		delete(o.holds, id)
		for key, t := range o.tasks {
			if t.agent == id && o.held[key] {
				delete(o.tasks, key)
			}
		}
		if h.returned.IsZero() {
			delete(o.agents, id)
		}
	}
	for id, end := range o.kept {
		needed := slices.ContainsFunc(slices.Collect(maps.Values(o.tasks)), func(t *oracleTask) bool { return t.framework == id })
		if !now.Before(end) && !needed {
			delete(o.kept, id)
			delete(o.frameworks, id)
		}
	}
}

func TestAnEmptyPictureIsBelievedOnlyAfterALongTime(t *testing.T) {
	m := serve(t, picture)
	cfg := soon(m.Addr().String())
	cfg.EmptyHold = time.Hour
	f := follow(t, cfg)
	f.until(shows("1", "2"))
	n, _, _ := f.published()
	m.SetPicture(mesostest.Subscribed(15, nil, nil, nil))
	m.Cut()
	eventually(t, "it says why", func() bool { return strings.Contains(f.lastErr(), "picture without any agent from "+m.Addr().String()) })
	if now, s, _ := f.published(); now != n || len(tasksOf(s)) != 2 {
		t.Errorf("%d Snapshots came out of nothing, the last with %d tasks", now-n, len(tasksOf(s)))
	}
	f.turn.Lock()
	f.emptySince = f.emptySince.Add(-2 * time.Hour)
	f.turn.Unlock()
	f.until(func(s *model.Snapshot) string { // and even then there is the grace
		if s.Held.Len() != 2 {
			return "both agents are held"
		}
		return shows("1", "2")(s)
	})
}

// TestPatienceIsTheMasters follows a failover over HTTP, with the answers that
// recorded masters gave about it.
func TestPatienceIsTheMasters(t *testing.T) {
	one := serve(t, picture)
	cfg := soon(one.Addr().String())
	cfg.ReregisterTimeout = time.Hour
	f := follow(t, cfg)
	f.until(shows("1", "2"))
	one.SetPicture(mesostest.FailedOver(15, nil, []string{"A", "B"}, nil, nil))
	one.SetDocument("GET_FLAGS", outside.Read(t, "fixtures", "upstream/mesos-v1/calls/dcos-ui-v1-get_flags.json"))
	one.SetDocument("GET_MASTER", fmt.Appendf(nil, `{"type":"GET_MASTER","get_master":{"elected_time":%d.25}}`, time.Now().Add(-time.Minute).Unix()))
	one.Cut()
	s := f.until(func(s *model.Snapshot) string {
		h, ok := s.Held.Get("A")
		if !ok || time.Until(h.Until) > 11*time.Minute {
			return "held for as long as the master says"
		}
		return shows("1", "2")(s)
	})
	h, _ := s.Held.Get("A")
	if left := time.Until(h.Until); left < 8*time.Minute || left > 9*time.Minute+31*time.Second {
		t.Errorf("held for another %v, want 10 minutes since the election and a margin", left)
	}
	if n := f.counter("waggle_mesos_held_tasks"); n != 2 {
		t.Errorf("%v held tasks counted", n)
	}

	// A master that does not say is given what is configured.
	two := serve(t, mesostest.FailedOver(15, nil, []string{"A", "B"}, nil, nil))
	one.Redirect(two.Addr().String())
	one.Cut()
	f.until(func(s *model.Snapshot) string {
		if h, ok := s.Held.Get("B"); !ok || time.Until(h.Until) < 59*time.Minute || s.Leader != two.Addr() {
			return "held for the time that is configured"
		}
		return shows("1", "2")(s)
	})
	two.Send(mesostest.AgentAdded(agentB))
	two.Send(mesostest.TaskUpdated(in(task1, "TASK_KILLED")))
	f.until(shows("2"))
	one.Refuse(http.StatusServiceUnavailable, "")
}

func TestDurationsOfMesosAreRead(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"10mins": 10 * time.Minute, "75secs": 75 * time.Second, "1.5hrs": 90 * time.Minute, "2weeks": 14 * 24 * time.Hour,
		"250ms": 250 * time.Millisecond, "3us": 3 * time.Microsecond, "9ns": 9, "1days": 24 * time.Hour,
	} {
		if got, err := parseDuration(text); got != want || err != nil {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "10", "mins", "-1secs", "1e30weeks", "10 minutes", "NaNsecs"} {
		if d, err := parseDuration(text); err == nil {
			t.Errorf("%q: got %v", text, d)
		}
	}
}
