package mesos

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"waggle/internal/outside"
	"waggle/model"
	"waggle/watcher/mesos/mesostest"
)

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
