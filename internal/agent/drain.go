package agent

import (
	"context"
	"slices"
	"sync"

	"go.uber.org/zap"

	"waggle/lb"
)

// disconnecter is what a Dataplane may be besides: one that can end the
// connections to backends whose drain is over, and returns how many there were.
type disconnecter interface {
	Disconnect(ended []lb.Drain) (int, error)
}

// drained are the drains whose connections are to be ended, and those to come,
// beside the pipeline: looking through all sockets may take longer than a turn may.
type drained struct {
	poke chan struct{} // one slot: there is news
	// mu guards what follows.
	mu      sync.Mutex
	ended   []lb.Drain
	pending []lb.Drain
}

// note takes what p says of drains.
func (d *drained) note(p *lb.Plan) {
	d.mu.Lock()
	news := len(p.Ended) > 0 || !slices.Equal(d.pending, p.Draining())
	d.ended, d.pending = append(d.ended, p.Ended...), p.Draining()
	d.mu.Unlock()
	if !news {
		return
	}
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// take returns the drains that have ended since the last call, and those to come.
func (d *drained) take() (ended, pending []lb.Drain) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ended, d.ended = d.ended, nil
	return ended, d.pending
}

// disconnect ends connections until ctx ends, and keeps on disk which are to be
// ended: one that is not known any more would never be.
func (a *Agent) disconnect(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			a.saveDrains(a.drained.take())
			return ctx.Err()
		case <-a.drained.poke:
		}
		ended, pending := a.drained.take()
		a.saveDrains(ended, pending)
		if len(ended) > 0 {
			a.endConnections(ended)
			a.saveDrains(nil, pending)
		}
	}
}

func (a *Agent) endConnections(ended []lb.Drain) {
	plane, ok := a.plane.(disconnecter)
	if !ok {
		return
	}
	n, err := plane.Disconnect(ended)
	a.metrics.drained.Add(float64(len(ended)))
	a.metrics.disconnected.Add(float64(n))
	if err != nil {
		a.log.Error("connections to drained backends not all ended", zap.Int("ended", n), zap.Error(err))
		return
	}
	a.log.Debug("drains ended", zap.Int("backends", len(ended)), zap.Int("connections", n))
}

func (a *Agent) saveDrains(ended, pending []lb.Drain) {
	if a.file.path == "" {
		return
	}
	if err := a.file.save(slices.Concat(ended, pending)); err != nil {
		a.log.Error("drains would be forgotten at a restart", zap.Error(err))
	}
}

// resume returns what the first Plan is built from: the drains that a daemon
// before this one did not end.
func (a *Agent) resume() *lb.Plan {
	list, err := a.file.load()
	if err != nil {
		a.log.Error("drains of before the restart are forgotten", zap.Error(err))
	}
	if len(list) > 0 {
		a.log.Info("drains go on", zap.Int("backends", len(list)))
	}
	a.drained.mu.Lock()
	a.drained.pending = list
	a.drained.mu.Unlock()
	return lb.Resume(list)
}
