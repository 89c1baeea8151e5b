package lb

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/vip"
)

func slowConfig() EjectConfig {
	cfg := DefaultEjectConfig()
	cfg.Slow = 4
	return cfg
}

// timed are the counters of one service's backends, each with so many connects and
// a latency in milliseconds.
func timed(connects uint64, latencies ...int) iter.Seq2[vip.Frontend, BackendStats] {
	return func(yield func(vip.Frontend, BackendStats) bool) {
		for i, ms := range latencies {
			s := BackendStats{Addr: backend(i, 1, vip.Up).Addr, Connections: connects, Latency: time.Duration(ms) * time.Millisecond}
			if !yield(frontend(1), s) {
				return
			}
		}
	}
}

// numbers returns which backends of timed are out.
func numbers(e *Ejections) (out []int) {
	for _, list := range e.All() {
		for addr := range list {
			for i := range 20 {
				if backend(i, 1, vip.Up).Addr == addr {
					out = append(out, i)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

func TestBackendsThatAreSlowerThanTheOthersAreOut(t *testing.T) {
	off := slowConfig()
	off.Slow = 0
	for name, tc := range map[string]struct {
		cfg       EjectConfig
		connects  []uint64 // at each look
		latencies []int
		want      []int
	}{
		"all alike":                         {slowConfig(), []uint64{10, 20, 30}, []int{5, 6, 7, 5}, nil},
		"one of three":                      {slowConfig(), []uint64{10, 20}, []int{5, 100, 7}, []int{1}},
		"one of four, far slower":           {slowConfig(), []uint64{10, 20}, []int{5, 1000, 7, 6}, []int{1}},
		"not by default":                    {off, []uint64{10, 20, 30}, []int{5, 1000, 7}, nil},
		"not at the first look":             {slowConfig(), []uint64{10}, []int{5, 100, 7}, nil},
		"not with few connects":             {slowConfig(), []uint64{1, 2, 3, 9}, []int{5, 100, 7}, nil},
		"few connects add up":               {slowConfig(), []uint64{6, 12, 18, 24}, []int{5, 100, 7}, []int{1}},
		"not without connects since":        {slowConfig(), []uint64{10, 10, 10}, []int{5, 100, 7}, nil},
		"not within the bound":              {slowConfig(), []uint64{10, 20, 30}, []int{10, 40, 10}, nil},
		"not where nobody minds":            {slowConfig(), []uint64{10, 20, 30}, []int{1, 20, 1}, nil},
		"not one of two":                    {slowConfig(), []uint64{10, 20, 30}, []int{5, 100}, nil},
		"not the only one":                  {slowConfig(), []uint64{10, 20, 30}, []int{100}, nil},
		"not where others are unmeasured":   {slowConfig(), []uint64{10, 20, 30}, []int{5, 100, 0}, nil},
		"the slowest third of those":        {slowConfig(), []uint64{10, 20}, []int{5, 100, 7, 6, 300, 200, 5}, []int{4, 5}},
		"not where most are slow":           {slowConfig(), []uint64{10, 20, 30}, []int{5, 100, 90, 110, 95}, nil},
		"one that is quick is no exception": {slowConfig(), []uint64{10, 20, 30}, []int{1, 50, 50, 50}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := NewEjector(tc.cfg)
			var got *Ejections
			for i, n := range tc.connects {
				got = e.Observe(timed(n, tc.latencies...), at.Add(time.Duration(i)*time.Second))
			}
			if diff := cmp.Diff(tc.want, numbers(got)); diff != "" {
				t.Errorf("who is out (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOneAtTheBoundDoesNotComeAndGo(t *testing.T) {
	for name, tc := range map[string]struct {
		latencies []int // of one of three, look by look; the others' are 10
		want      bool
	}{
		"slow, then quick, then slow":            {[]int{100, 10, 100}, false},
		"slow, then nearly, then slow":           {[]int{100, 30, 100}, true},
		"nearly all the time":                    {[]int{39, 38, 39, 40}, false},
		"slow, then nearly, then quick for good": {[]int{100, 35, 20, 15}, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := NewEjector(slowConfig())
			for i, ms := range tc.latencies {
				e.Observe(timed(uint64(10*(i+1)), 10, ms, 10), at)
			}
			if got := out(e.now) == 1; got != tc.want {
				t.Errorf("out: %v, want %v", got, tc.want)
			}
		})
	}
}

// What ejected a backend is told, and one that comes back starts from nothing: the
// balancer has counted it anew.
func TestWhoWasSlowComesBackAndIsJudgedAnew(t *testing.T) {
	e := NewEjector(slowConfig())
	e.Observe(timed(10, 5, 100, 7), at)
	got := e.Observe(timed(20, 5, 100, 7), at)
	want := map[netip.AddrPort]Ejection{backend(1, 1, vip.Up).Addr: {
		Since: at, Until: at.Add(30 * time.Second), Connects: 20, Latency: 100 * time.Millisecond, Usual: 7 * time.Millisecond,
	}}
	if diff := cmp.Diff(want, got.of(frontend(1)), compareAddrs); diff != "" {
		t.Fatalf("who is out (-want +got):\n%s", diff)
	}
	const reason = "connects take 100ms, to others 7ms"
	if e := want[backend(1, 1, vip.Up).Addr]; e.Reason() != reason || !e.Slow() {
		t.Errorf("reason: %s, want %s", e.Reason(), reason)
	}
	now := at.Add(30 * time.Second)
	for i, want := range []int{0, 1} {
		if got := out(e.Observe(timed(uint64(30+10*i), 5, 100, 7), now)); got != want {
			t.Errorf("look %d after the hold: %d are out, want %d", i, got, want)
		}
	}
	if e := e.now.of(frontend(1))[backend(1, 1, vip.Up).Addr]; e.Until.Sub(e.Since) != time.Minute {
		t.Errorf("the second time it is out for %s", e.Until.Sub(e.Since))
	}
}

func TestFailuresAndSlownessShareTheThird(t *testing.T) {
	e := NewEjector(slowConfig())
	stats := func(round uint64) iter.Seq2[vip.Frontend, BackendStats] {
		return func(yield func(vip.Frontend, BackendStats) bool) {
			for f, s := range timed(10*round, 5, 300, 7, 200, 5, 6) {
				if s.Addr == backend(5, 1, vip.Up).Addr {
					s.Failures = uint32(10 * round)
				}
				if !yield(f, s) {
					return
				}
			}
		}
	}
	e.Observe(stats(1), at)
	if diff := cmp.Diff([]int{1, 5}, numbers(e.Observe(stats(2), at))); diff != "" {
		t.Errorf("who is out (-want +got):\n%s", diff)
	}
}

// TestEjectorWalk has backends of several services fail, be slow, leave and come
// at random, and holds what is promised whatever has happened.
func TestEjectorWalk(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		cfg := slowConfig()
		cfg.Hold = time.Duration(1+r.IntN(5)) * time.Second
		e, now := NewEjector(cfg), at
		counted := map[vip.Frontend][]BackendStats{}
		for i := range 1 + r.IntN(3) {
			for b := range 1 + r.IntN(12) {
				counted[frontend(i+1)] = append(counted[frontend(i+1)], BackendStats{Addr: backend(b, 1, vip.Up).Addr})
			}
		}
		before := map[place]Ejection{}
		for range 60 {
			now = now.Add(time.Duration(r.IntN(1500)) * time.Millisecond)
			bad := misbehave(r, counted, e.now)
			was := e.now
			is := e.Observe(without(counted, was), now)
			if err := promised(counted, bad, before, is, now); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			after := flat(is)
			if (is == was) != maps.Equal(before, after) {
				t.Fatalf("seed %d: the same value %v, the same pointer %v", seed, maps.Equal(before, after), is == was)
			}
			before = after
		}
	}
}

// misbehave counts on, and returns those backends that failed just now, or were
// slow when they were last connected to: they may be judged later, for want of
// others to compare with.
func misbehave(r *rand.Rand, counted map[vip.Frontend][]BackendStats, out *Ejections) map[place]bool {
	bad := map[place]bool{}
	for number := range len(counted) { // in order, so that a seed is one walk
		f := frontend(number + 1)
		list := counted[f]
		for i := range list {
			s := &list[i]
			if out.has(f, s.Addr) {
				*s = BackendStats{Addr: s.Addr} // counted anew when it comes back
				continue
			}
			n := uint64(r.IntN(20))
			s.Connections += n
			if n > 0 {
				s.Latency = time.Duration(1+r.IntN(10)) * time.Millisecond
			}
			switch r.IntN(6) {
			case 0:
				s.Failures += uint32(n)
				bad[place{f, s.Addr}] = true
			case 1, 2:
				s.Latency = time.Duration(100+r.IntN(900)) * time.Millisecond
			}
			if s.Latency >= 100*time.Millisecond {
				bad[place{f, s.Addr}] = true
			}
		}
	}
	return bad
}

// without yields what a Dataplane would: those who are out have no counters.
func without(counted map[vip.Frontend][]BackendStats, out *Ejections) iter.Seq2[vip.Frontend, BackendStats] {
	return func(yield func(vip.Frontend, BackendStats) bool) {
		for f, list := range counted {
			for _, s := range list {
				if !out.has(f, s.Addr) && !yield(f, s) {
					return
				}
			}
		}
	}
}

func flat(e *Ejections) map[place]Ejection {
	out := map[place]Ejection{}
	for f, list := range e.All() {
		for addr, ejection := range list {
			out[place{f, addr}] = ejection
		}
	}
	return out
}

// promised returns what an Ejector must never do.
func promised(counted map[vip.Frontend][]BackendStats, bad map[place]bool, before map[place]Ejection, is *Ejections, now time.Time) error {
	for f, list := range is.All() {
		if n := len(counted[f]); len(list) > n/3 {
			return fmt.Errorf("%d of %d are out", len(list), n)
		}
		for addr, ejection := range list {
			at := place{f, addr}
			old, was := before[at]
			switch {
			case !ejection.Until.After(now):
				return fmt.Errorf("%v is out beyond its time", at)
			case was && old.Until.After(now) && old != ejection:
				return fmt.Errorf("%v is out for another reason than it was", at)
			case (!was || !old.Until.After(now)) && !bad[at]:
				return fmt.Errorf("%v is out and did nothing", at)
			case ejection.Slow() && ejection.Latency <= 4*ejection.Usual:
				return fmt.Errorf("%v is out and not slow: %+v", at, ejection)
			}
		}
	}
	for at, e := range before {
		if !is.has(at.frontend, at.addr) && e.Until.After(now) {
			return fmt.Errorf("%v is back before its time", at)
		}
	}
	return nil
}
