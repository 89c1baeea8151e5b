package mesos

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/watcher/mesos/mesostest"
)

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
