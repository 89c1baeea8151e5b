package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"waggle/internal/outside"
	"waggle/lb/lbtest"
	"waggle/model"
	"waggle/watcher/mesos"
	"waggle/watcher/mesos/mesostest"
)

// served is what clients would see: addresses by name, backends by VIP name and
// port.
type served map[string]string

// seen is what the whole pipeline made of each Snapshot, one after the other.
type seen struct {
	agent *Agent
	plane *lbtest.Dataplane

	mu    sync.Mutex // guards the following
	turns []served
}

func newSeen(tb testing.TB) *seen {
	plane := lbtest.New()
	return &seen{agent: New(DefaultConfig(), nil, plane, zap.NewNop(), nil), plane: plane}
}

// take turns the pipeline for one Snapshot, none left out.
func (v *seen) take(s *model.Snapshot) {
	st := v.agent.turn(context.Background(), &publication{s, time.Now()})
	v.agent.state.Store(st)
	view := served{}
	lists := map[string][]string{}
	for _, r := range st.Zone.Records() {
		if r.Type == "A" && !strings.HasSuffix(r.Name, ".directory.") {
			lists[r.Name] = append(lists[r.Name], r.Data)
		}
	}
	for _, svc := range st.Applied.Services.All() {
		key := fmt.Sprintf("%s.l4lb:%d/%s", svc.Name, svc.Frontend.Addr.Port(), svc.Frontend.Proto)
		if svc.Name == "" {
			key = svc.Frontend.Addr.String() + "/" + svc.Frontend.Proto.String()
		}
		for _, b := range v.plane.Backends(svc.Frontend) {
			lists[key] = append(lists[key], b.Addr.String())
		}
		if _, named, _ := st.Zone.Lookup(svc.Name + ".l4lb.thisdcos.directory."); svc.Name != "" && !named {
			lists[key] = append(lists[key], "without a name")
		}
	}
	for key, list := range lists {
		slices.Sort(list)
		view[key] = strings.Join(slices.Compact(list), " ")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.turns = append(v.turns, view)
}

func (v *seen) all() []served {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.turns)
}

// until waits for a turn that shows want.
func (v *seen) until(tb testing.TB, what string, want func(served) bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(60 * time.Second); ; {
		if all := v.all(); len(all) > 0 && want(all[len(all)-1]) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			all := v.all()
			tb.Fatalf("never: %s; %d turns, the last %v", what, len(all), all[max(0, len(all)-1):])
		}
	}
}

// run follows the masters until the test ends.
func (v *seen) run(tb testing.TB, cfg mesos.Config) {
	tb.Helper()
	cfg.MinBackoff, cfg.MaxBackoff = 5*time.Millisecond, 10*time.Millisecond
	source, err := mesos.New(cfg, zap.NewNop(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- source.Run(ctx, v.take) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			tb.Errorf("Run ended with %v", err)
		}
	})
}

// only keeps of a view what want could have: names the oracle does not know of
// (the daemon's own, per task, per agent) are none of its business.
func (s served) only(keys map[string]bool) served {
	out := served{}
	for key, value := range s {
		if keys[key] || strings.Contains(key, ".l4lb:") || strings.Contains(key, "/") {
			out[key] = value
		}
	}
	return out
}

// inOrder fails unless each turn is what some record asked for, in their order,
// and the last turn is what the last record did.
func inOrder(tb testing.TB, turns, want []served, keys map[string]bool) {
	tb.Helper()
	at := 0
	for i, turn := range turns {
		got := turn.only(keys)
		next := slices.IndexFunc(want[at:], func(w served) bool { return cmp.Equal(w, got) })
		if next < 0 {
			tb.Fatalf("turn %d of %d is none that a record from the %dth on asks for (-want +got):\n%s\n%s", i, len(turns), at, cmp.Diff(want[at], got), cmp.Diff(want[min(at+1, len(want)-1)], got))
		}
		at += next
	}
	if d := cmp.Diff(want[len(want)-1], turns[len(turns)-1].only(keys)); d != "" {
		tb.Errorf("at the end (-want +got):\n%s", d)
	}
}

// stream is the Scene of a recorded event stream, to its recorded end.
func stream(tb testing.TB, master, path string) mesostest.Scene {
	tb.Helper()
	s := mesostest.Scene{Master: master, Of: "SUBSCRIBE", Raw: outside.Read(tb, "fixtures", path+".raw")}
	for line := range bytes.Lines(outside.Read(tb, "fixtures", path+".times.jsonl")) {
		var p struct {
			T        float64
			Off, Len int
		}
		if err := json.Unmarshal(line, &p); err != nil {
			tb.Fatal(err)
		}
		s.Pieces = append(s.Pieces, mesostest.Piece{At: moment(p.T), Off: p.Off, Len: p.Len})
	}
	s.At = s.Pieces[0].At
	return s
}

func moment(seconds float64) time.Time {
	whole, rest := math.Modf(seconds)
	return time.Unix(int64(whole), int64(rest*1e9))
}

func replay(tb testing.TB, scale float64, scenes ...mesostest.Scene) *mesostest.Replay {
	tb.Helper()
	r, err := mesostest.NewReplay(scale, scenes)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(r.Close)
	return r
}

// watched are the Scenes of masters that somebody kept asking: what they answer
// to calls is what they answer to a subscriber.
func watched(tb testing.TB, path string, name func(any) string) []mesostest.Scene {
	tb.Helper()
	var out []mesostest.Scene
	for line := range bytes.Lines(outside.Read(tb, "fixtures", path)) {
		var w struct {
			T               float64
			Master          any
			Request, Answer string
		}
		if err := json.Unmarshal(line, &w); err != nil {
			tb.Fatal(err)
		}
		s := mesostest.Scene{At: moment(w.T), Master: name(w.Master), Raw: mesostest.Answer(w.Answer), Hangs: strings.Contains(w.Answer, "Timeout")}
		_, s.Of, _ = strings.Cut(w.Request, " ")
		if w.Request == "POST /api/v1 GET_MASTER" {
			s.Of = "SUBSCRIBE"
		}
		if strings.HasPrefix(w.Answer, "HTTP/1.1 200") && s.Of != "/master/redirect" {
			continue // the stream and the state have recordings of their own
		}
		out = append(out, s)
	}
	return out
}
