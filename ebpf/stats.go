package ebpf

import (
	"iter"
	"sync/atomic"
	"time"

	"waggle/lb"
	"waggle/vip"
)

// BackendStats yields what the kernel has counted of every backend that takes
// new connections, by the frontend of its service. It reads shared memory and
// keeps Apply waiting meanwhile, some 10 ms for a million backends.
func (d *Dataplane) BackendStats() iter.Seq2[vip.Frontend, lb.BackendStats] {
	return func(yield func(vip.Frontend, lb.BackendStats) bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.services == nil {
			return
		}
		for f, id := range d.heldLocked() {
			for b := range d.services.stats(id) {
				if !yield(f, b) {
					return
				}
			}
		}
	}
}

func (s *services) stats(id uint32) iter.Seq[lb.BackendStats] {
	return func(yield func(lb.BackendStats) bool) {
		for _, i := range s.own(id, s.load(id), nil) {
			b := &s.backends[i]
			if !yield(lb.BackendStats{
				Addr:        addrPort(b.Addr, b.Port),
				Connections: atomic.LoadUint64(&b.Connections),
				Active:      atomic.LoadUint32(&b.Active),
				Failures:    atomic.LoadUint32(&b.Failures),
				Latency:     time.Duration(atomic.LoadUint32(&b.Latency)),
			}) {
				return
			}
		}
	}
}
