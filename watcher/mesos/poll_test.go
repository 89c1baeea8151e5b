package mesos

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"waggle/internal/outside"
	"waggle/model"
)

// stateful is a master that refuses the stream with code and answers /state.
func stateful(m interface{ SetAnswer(http.Handler) }, code int, state func() []byte) {
	m.SetAnswer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/master/state" {
			http.Error(w, "not here", code)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			_, _ = z.Write(state())
			return
		}
		_, _ = w.Write(state())
	}))
}

// oldState is a /state document with the given slaves, recovered slaves and
// tasks, each JSON without its brackets.
func oldState(slaves, recovered, tasks string) []byte {
	return fmt.Appendf(nil, `{"id":"M","pid":"master@10.0.0.1:5050","leader":"master@10.0.0.1:5050","leader_info":{"id":"M"},"elected_time":1.5,
		"slaves":[%s],"recovered_slaves":[%s],"frameworks":[{"id":"F","name":"marathon","tasks":[%s],"completed_tasks":[{"id":"9"}]}]}`, slaves, recovered, tasks)
}

const (
	oldA  = `{"id":"A","hostname":"10.0.0.5","pid":"slave(1)@10.0.0.5:5051"}`
	oldB  = `{"id":"B","hostname":"10.0.0.6","pid":"slave(1)@10.0.0.6:5051"}`
	oldT1 = `{"id":"1","name":"web","slave_id":"A","framework_id":"F","state":"TASK_RUNNING"}`
	oldT2 = `{"id":"2","name":"db","slave_id":"B","framework_id":"F","state":"TASK_RUNNING"}`
)

func polling(masters ...string) Config {
	cfg := soon(masters...)
	cfg.PollInterval = time.Millisecond
	return cfg
}

func TestAMasterThatRefusesTheStreamIsPolled(t *testing.T) {
	for _, code := range []int{403, 404, 405, 501} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			var state atomic.Pointer[[]byte]
			set := func(b []byte) { state.Store(&b) }
			set(oldState(oldA+","+oldB, "", oldT1+","+oldT2))
			m := serve(t, picture)
			stateful(m, code, func() []byte { return *state.Load() })
			f := follow(t, polling(m.Addr().String()))
			s := f.until(shows("1", "2"))
			if st := f.Status(); !st.Connected || s.Leader != m.Addr() {
				t.Errorf("status %+v, leader %v", st, s.Leader)
			}
			again := f.until(func(now *model.Snapshot) string {
				if now == s {
					return "another answer"
				}
				return ""
			})
			for range model.Diff(s.Apps, again.Apps) {
				t.Error("an answer that says the same changed an app")
			}

			// A failover, as /state tells it.
			set(oldState("", oldA+","+oldB, ""))
			f.until(func(s *model.Snapshot) string {
				if s.Held.Len() != 2 {
					return "both are held"
				}
				return shows("1", "2")(s)
			})
			set(oldState(oldA, oldB, ""))
			f.until(shows("2"))

			// Nothing at all is not believed, nor what is not whole.
			for _, bad := range [][]byte{
				oldState("", "", ""), oldState(oldA, "", "")[:200], []byte("{}"), []byte(`{"slaves":{}}`),
				bytes.Replace(oldState(oldA, "", ""), []byte(`"leader_info":{"id":"M"}`), []byte(`"leader_info":{"id":"N"}`), 1),
				bytes.Replace(oldState(oldA, "", ""), []byte(`"elected_time":1.5,`), nil, 1),
			} {
				before := f.counter("waggle_mesos_reconnects_total")
				set(bad)
				eventually(t, "it is refused", func() bool { return f.counter("waggle_mesos_reconnects_total") > before+1 })
				if _, s, _ := f.published(); shows("2")(s) != "" {
					t.Errorf("after %.100s: %s", bad, shows("2")(s))
				}
			}

			// The stream is asked for again in time.
			set(oldState(oldA+","+oldB, "", oldT1))
			f.until(shows("1"))
			m.SetAnswer(nil)
			f.until(shows("1", "2"))
			if err := m.WaitStreams(t.Context(), 1); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPollingIsAsConfigured(t *testing.T) {
	m := serve(t, picture)
	m.SetDocument("/master/state", oldState(oldA, "", oldT1))
	cfg := polling(m.Addr().String())
	cfg.Poll = PollAlways
	follow(t, cfg).until(shows("1"))

	m.Refuse(http.StatusForbidden, "no")
	cfg.Poll = PollNever
	f := follow(t, cfg)
	if err := f.errOnce(); !strings.Contains(err.Error(), "403 Forbidden") || strings.Contains(err.Error(), "poll") {
		t.Errorf("got %v", err)
	}
	cfg.Poll = "sometimes"
	if _, err := New(cfg, f.log, nil); err == nil || !strings.Contains(err.Error(), "sometimes") {
		t.Errorf("got %v", err)
	}
}

// TestRecordedStatesAreBelievedOrNot: what genuine masters answer before and
// after a failover, and without a quorum.
func TestRecordedStatesAreBelievedOrNot(t *testing.T) {
	read := func(path string) (*world, error) {
		w := newWorld(&model.Snapshot{})
		_, err := readState(bytes.NewReader(outside.Read(t, "fixtures", path)), w)
		return w, err
	}
	for path, want := range map[string]struct{ tasks, recovered int }{
		"mesos-1.12/17-before-failover/get-state.body":                           {4, 0},
		"mesos-1.12/18-after-failover/get-state.body":                            {4, 0},
		"mesos-1.12/failover/sigkill-first-state.body":                           {0, 2},
		"mesos-1.12/failover/sigstop-first-state.body":                           {4, 0},
		"upstream/mesos-v0/state-1.2.0-healthy-tasks-in-mesos-and-marathon.json": {3, 0},
	} {
		w, err := read(path)
		if err != nil || w.tasks.len() != want.tasks || len(w.recovered) != want.recovered {
			t.Errorf("%s: %d tasks, %d recovered agents, %v", path, w.tasks.len(), len(w.recovered), err)
		}
	}
	// Without a quorum it says that it leads, and shows nothing.
	if w, err := read("mesos-1.12/leaderless/quorum-missing/get-state.body"); err != nil || !w.empty() {
		t.Errorf("a master without a quorum told of %d tasks, %v", w.tasks.len(), err)
	}
}

// FuzzState: whatever a master answers to /state, it is taken or refused, and
// what is taken can be published.
func FuzzState(f *testing.F) {
	f.Add(oldState(oldA, oldB, oldT1))
	f.Add([]byte(`{"leader":"x@y","pid":"x@y","elected_time":1,"frameworks":[{"tasks":[{"id":"1"},[]]},7],"recovered_slaves":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		before := newWorld(&model.Snapshot{})
		if _, err := readState(bytes.NewReader(oldState(oldA+","+oldB, "", oldT1+","+oldT2)), before); err != nil {
			t.Fatal(err)
		}
		w := newWorld(before.snapshot())
		if _, err := readState(bytes.NewReader(text), w); err != nil {
			return
		}
		w.adopt(before, time.Minute, false)
		sameAsAtOnce(t, w, w.snapshot())
	})
}
