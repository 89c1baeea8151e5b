package lb

import (
	"iter"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/vip"
)

// counted is the counters of one service's backends, of which those numbered
// fail all connects.
func counted(backends int, round uint64, failing ...int) iter.Seq2[vip.Frontend, BackendStats] {
	return func(yield func(vip.Frontend, BackendStats) bool) {
		for i := range backends {
			s := BackendStats{Addr: backend(i, 1, vip.Up).Addr, Connections: 10 * round}
			for _, f := range failing {
				if f == i {
					s.Failures = uint32(10 * round)
				}
			}
			if !yield(frontend(1), s) {
				return
			}
		}
	}
}

func out(e *Ejections) int {
	n := 0
	for _, list := range e.All() {
		n += len(list)
	}
	return n
}

func TestBackendsThatRefuseAreOutForAWhile(t *testing.T) {
	cfg := DefaultEjectConfig()
	for name, tc := range map[string]struct {
		backends int
		failing  []int
		want     int
	}{
		"none fails":              {9, nil, 0},
		"one of three":            {3, []int{1}, 1},
		"never more than a third": {9, []int{0, 1, 2, 3, 4}, 3},
		"not one of two":          {2, []int{1}, 0},
		"not the only one":        {1, []int{0}, 0},
		"not all, however many":   {6, []int{0, 1, 2, 3, 4, 5}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			e := NewEjector(cfg)
			first := e.Observe(counted(tc.backends, 1, tc.failing...), at)
			if got := out(first); got != tc.want {
				t.Fatalf("%d are out, want %d", got, tc.want)
			}
			// The same counters again tell of no further failure.
			if again := e.Observe(counted(tc.backends, 1, tc.failing...), at.Add(time.Second)); again != first {
				t.Error("nothing happened, and yet it is another value")
			}
			if later := e.Observe(counted(tc.backends, 1, tc.failing...), at.Add(cfg.Hold)); out(later) != 0 {
				t.Errorf("%d are out after the hold", out(later))
			}
		})
	}
}

func TestWhoIsOutAgainIsOutLonger(t *testing.T) {
	cfg := DefaultEjectConfig()
	e := NewEjector(cfg)
	e.Observe(counted(3, 1, 1), at)
	now := at.Add(cfg.Hold)
	e.Observe(counted(3, 1, 1), now)
	if e.Observe(counted(3, 2, 1), now); out(e.now) != 1 {
		t.Fatal("not out the second time")
	}
	if e.Observe(counted(3, 2, 1), now.Add(cfg.Hold)); out(e.now) != 1 {
		t.Error("out no longer than the first time")
	}
	if e.Observe(counted(3, 2, 1), now.Add(2*cfg.Hold)); out(e.now) != 0 {
		t.Error("out for more than twice as long")
	}
}

func TestAPlanLeavesOutWhoIsOut(t *testing.T) {
	var list []vip.Backend
	for i := range 3 {
		list = append(list, backend(i, 1, vip.Up))
	}
	row := &vip.Service{Frontend: frontend(1), Backends: list}
	cfg := DefaultConfig()
	p := Build(nil, table(row), cfg, at)
	e := NewEjector(DefaultEjectConfig())
	cfg.Ejected = e.Observe(counted(3, 1, 1), at)
	p = Build(p, table(row), cfg, at)
	if s, _ := p.Services.Get(frontend(1)); len(s.Backends) != 2 {
		t.Errorf("backends: %v", s.Backends)
	}
	want := map[netip.AddrPort]Ejection{list[1].Addr: {Since: at, Until: at.Add(30 * time.Second), Failed: 10, Connects: 10}}
	if diff := cmp.Diff(want, p.Ejected(frontend(1)), compareAddrs); diff != "" {
		t.Errorf("who is out (-want +got):\n%s", diff)
	}
	// Of two backends one is more than a third.
	few := Build(p, table(&vip.Service{Frontend: frontend(1), Backends: list[:2]}), cfg, at)
	if s, _ := few.Services.Get(frontend(1)); len(s.Backends) != 2 || len(few.Ejected(frontend(1))) != 0 {
		t.Errorf("of two backends: %v, out %v", s.Backends, few.Ejected(frontend(1)))
	}
	cfg.Ejected = e.Observe(counted(3, 1, 1), at.Add(time.Hour))
	p = Build(p, table(row), cfg, at)
	if s, _ := p.Services.Get(frontend(1)); len(s.Backends) != 3 {
		t.Errorf("after the hold: %v", s.Backends)
	}
	for f, list := range p.AllEjected() {
		t.Errorf("after the hold: %v is out of %v", list, f)
	}
}
