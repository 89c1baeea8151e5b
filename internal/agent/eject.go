package agent

import (
	"context"
	"iter"
	"time"

	"go.uber.org/zap"

	"waggle/lb"
	"waggle/vip"
)

// counter is what a Dataplane may be besides: one that counts connects.
type counter interface {
	BackendStats() iter.Seq2[vip.Frontend, lb.BackendStats]
}

// ejected returns how many backends are out for being slow, or for failing.
func (s *State) ejected(slow bool) (n int) {
	if s == nil {
		return 0
	}
	for _, list := range s.Plan.AllEjected() {
		for _, e := range list {
			if e.Slow() == slow {
				n++
			}
		}
	}
	return n
}

// eject looks at the counters over and over until ctx ends, and lets the
// pipeline turn when somebody else is out.
func (a *Agent) eject(ctx context.Context) error {
	plane, ok := a.plane.(counter)
	if !ok || a.cfg.Eject.Every <= 0 {
		return nil
	}
	e := lb.NewEjector(a.cfg.Eject)
	tick := time.NewTicker(a.cfg.Eject.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		at := a.now()
		now := e.Observe(plane.BackendStats(), at)
		if now == a.ejected.Load() {
			continue
		}
		a.ejected.Store(now)
		for f, list := range now.All() {
			for addr, out := range list {
				if out.Since.Equal(at) {
					a.log.Warn("backend gets no new connections for now", zap.Stringer("vip", f.Addr),
						zap.Stringer("backend", addr), zap.Time("until", out.Until), zap.String("reason", out.Reason()))
				}
			}
		}
		a.poke()
	}
}
