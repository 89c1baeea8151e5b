package lb

import (
	"slices"
	"time"

	"waggle/vip"
)

// strikesOut is how often in a row a backend must be found slow to be ejected.
const strikesOut = 2

// pace is how a backend was found the last times.
type pace struct {
	judged  uint64 // Connections then
	strikes int
}

// late is a backend that takes longer to connect to than the others of its
// service usually take.
type late struct {
	BackendStats
	usual time.Duration
}

// slow judges one service's backends by how long connects to them take, and
// returns those that have been slow often enough, the slowest first. Each is
// judged anew once it has had Samples connects since. It is found slow above the
// bound and quick below half of it; between them nothing changes, so that one at
// the bound does not come and go. What it notes is in next.
func (e *Ejector) slow(f vip.Frontend, list []BackendStats, next map[place]pace) (out []late) {
	var times []time.Duration
	for _, s := range list {
		if s.Latency > 0 {
			times = append(times, s.Latency)
		}
	}
	slices.Sort(times)
	for _, s := range list {
		at := place{f, s.Addr}
		p := e.paces[at]
		if s.Connections < p.judged { // it joined anew
			p = pace{}
		}
		// Of two others neither is usual.
		if s.Latency > 0 && len(times) >= 3 && s.Connections-p.judged >= e.cfg.Samples {
			p.judged = s.Connections
			usual := medianWithout(times, s.Latency)
			switch bound := e.bound(usual); {
			case s.Latency > bound:
				if p.strikes++; p.strikes >= strikesOut {
					out = append(out, late{s, usual})
				}
			case s.Latency <= bound/2:
				p.strikes = 0
			}
		}
		next[at] = p
	}
	slices.SortStableFunc(out, func(a, b late) int { return int(b.Latency - a.Latency) })
	return out
}

// bound returns what connects may take where the others usually take so long.
func (e *Ejector) bound(usual time.Duration) time.Duration {
	return max(time.Duration(e.cfg.Slow*float64(usual)), usual+e.cfg.SlowBy)
}

// medianWithout returns the median of sorted times without one of them, the
// greater of two in the middle.
func medianWithout(times []time.Duration, one time.Duration) time.Duration {
	at, _ := slices.BinarySearch(times, one)
	middle := (len(times) - 1) / 2
	if middle >= at {
		middle++
	}
	return times[middle]
}
