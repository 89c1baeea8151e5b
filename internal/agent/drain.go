package agent

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"waggle/lb"
)

// disconnecter is what a Dataplane may be besides: one that can end the
// connections to backends whose drain is over, and returns how many there were.
type disconnecter interface {
	Disconnect(ended []lb.Drain) (int, error)
}

// drained are the drains whose connections are to be ended, beside the
// pipeline: looking through all sockets may take longer than a turn may.
type drained struct {
	poke chan struct{} // one slot: something waits
	// mu guards waiting.
	mu      sync.Mutex
	waiting []lb.Drain
}

func (d *drained) add(ended []lb.Drain) {
	if len(ended) == 0 {
		return
	}
	d.mu.Lock()
	d.waiting = append(d.waiting, ended...)
	d.mu.Unlock()
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

func (d *drained) take() []lb.Drain {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.waiting
	d.waiting = nil
	return list
}

// disconnect ends connections until ctx ends.
func (a *Agent) disconnect(ctx context.Context) error {
	plane, ok := a.plane.(disconnecter)
	if !ok {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.drained.poke:
		}
		list := a.drained.take()
		n, err := plane.Disconnect(list)
		a.metrics.drained.Add(float64(len(list)))
		a.metrics.disconnected.Add(float64(n))
		if err != nil {
			a.log.Error("connections to drained backends not all ended", zap.Int("ended", n), zap.Error(err))
			continue
		}
		a.log.Debug("drains ended", zap.Int("backends", len(list)), zap.Int("connections", n))
	}
}
