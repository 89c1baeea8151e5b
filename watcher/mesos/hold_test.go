package mesos

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
		{"an agent that is given tasks all the time is waited for no longer", func(h *heir) *model.Snapshot {
			h.play(recovering, mesostest.AgentAdded(agentA), mesostest.FrameworkAdded(fw))
			for end := time.Now().Add(unquiet - time.Second); time.Now().Before(end); h.pass(quiet - time.Second) {
				h.play(mesostest.TaskAdded(three))
			}
			return h.pass(quiet - time.Second)
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
