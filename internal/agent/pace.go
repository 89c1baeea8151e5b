package agent

import "time"

// pacer lets a burst of turns through at once and any more at a steady rate, so
// that a change that comes alone, or as one of a few, waits for nothing while a
// storm costs a bounded number of turns.
type pacer struct {
	every time.Duration
	burst int
	full  time.Time // when the whole burst is there again
}

// wait returns how long a turn that is wanted at the time now has to wait;
// nothing, or less, means that it may start.
func (p *pacer) wait(now time.Time) time.Duration {
	return p.full.Add(-time.Duration(p.burst-1) * p.every).Sub(now)
}

// spent notes that a turn started.
func (p *pacer) spent(now time.Time) {
	if p.full.Before(now) {
		p.full = now
	}
	p.full = p.full.Add(p.every)
}
