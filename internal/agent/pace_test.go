package agent

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"waggle/model"
)

// storm publishes n Snapshots, one each interval, and returns how often the
// pipeline turned meanwhile and how long the slowest change waited.
func (h *harness) storm(n int, interval time.Duration) (turns int, slowest time.Duration) {
	before := h.agent.turns()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	sent := map[*model.Snapshot]time.Time{}
	var waiting []*model.Snapshot
	for i := range n {
		<-tick.C
		snap := world(map[string]int{"web": 1 + i%3})
		sent[snap] = time.Now()
		waiting = append(waiting, snap)
		if at := slices.Index(waiting, h.publish(snap).Snapshot); at >= 0 {
			for _, s := range waiting[:at+1] {
				slowest = max(slowest, time.Since(sent[s]))
			}
			waiting = waiting[at+1:]
		}
	}
	return h.agent.turns() - before, slowest
}

// turns counts the turns so far by what they left in the metrics.
func (a *Agent) turns() int { return int(testutil.ToFloat64(a.metrics.turns)) }

func TestAStormCostsABoundedNumberOfTurns(t *testing.T) {
	cfg := DefaultConfig()
	for _, perSecond := range []int{10, 200, 1000, 5000} {
		t.Run(fmt.Sprint(perSecond, " changes a second"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t)
				turns, slowest := h.storm(2*perSecond, time.Second/time.Duration(perSecond))
				most := min(2*perSecond, cfg.TurnBurst+int(2*time.Second/cfg.TurnEvery)+1)
				if turns > most {
					t.Errorf("%d turns in 2 s, want at most %d", turns, most)
				}
				limit := cfg.TurnEvery
				if time.Second/time.Duration(perSecond) >= cfg.TurnEvery {
					limit = 0 // nobody waits where nothing has to be saved
				}
				if slowest > limit+time.Second/time.Duration(perSecond) {
					t.Errorf("a change waited for %s, want at most %s", slowest, limit)
				}
			})
		})
	}
}

func TestAChangeThatComesAloneWaitsForNothingAndTheLastOfAStormIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		for range 20 {
			snap := world(map[string]int{"web": 1})
			if s := h.publish(snap); s == nil || s.Snapshot != snap {
				t.Fatal("a change that came alone was not served at once")
			}
			<-time.After(time.Second)
		}
		var last *model.Snapshot
		for i := range 100 {
			last = world(map[string]int{"web": 1 + i})
			h.publish(last)
		}
		if h.agent.State().Snapshot == last {
			t.Error("a storm within one instant was not held up at all")
		}
		<-time.After(DefaultConfig().TurnEvery)
		synctest.Wait()
		if h.agent.State().Snapshot != last {
			t.Error("the last Snapshot of the storm is not served")
		}
		before := h.agent.turns()
		<-time.After(DefaultConfig().RepairEvery - time.Second)
		synctest.Wait()
		if n := h.agent.turns() - before; n != 0 {
			t.Errorf("%d turns after the storm for nothing", n)
		}
	})
}
