// Package lbtest is a Dataplane in memory for tests of whatever drives one: it
// remembers what was applied, fails when told to, and says where a connection
// would go. It knows no kernel.
package lbtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// ErrRefused is what Connect returns where a kernel would refuse at once.
var ErrRefused = errors.New("connection refused")

// Dataplane keeps the promises of lb.Dataplane in memory. Unlike a real one it
// is safe for concurrent use.
type Dataplane struct {
	// mu guards what follows.
	mu     sync.Mutex
	held   model.Groups[vip.Frontend, *lb.Service]
	plans  []*lb.Plan
	fail   error
	only   map[vip.Frontend]bool // those that fail; nil for the whole Apply
	closed bool
}

var _ lb.Dataplane = (*Dataplane)(nil)

// New returns an empty Dataplane.
func New() *Dataplane { return &Dataplane{} }

// Fail makes each further Apply fail with err: for the given frontends, whose
// services are left as they are, or altogether if none is given. A nil err ends
// that.
func (d *Dataplane) Fail(err error, frontends ...vip.Frontend) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.only = err, nil
	for _, f := range frontends {
		if d.only == nil {
			d.only = map[vip.Frontend]bool{}
		}
		d.only[f] = true
	}
}

// Apply implements lb.Dataplane.
func (d *Dataplane) Apply(ctx context.Context, p *lb.Plan) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return errors.New("apply plan: the dataplane is closed")
	case ctx.Err() != nil:
		return ctx.Err()
	case d.fail != nil && d.only == nil:
		return d.fail
	}
	d.plans = append(d.plans, p)
	var errs []error
	held := p.Services.Edit()
	for c := range model.Diff(d.held, p.Services) {
		if p.Partial && !c.InNew {
			held.Set(c.Key, c.Old)
			continue
		}
		if d.fail == nil || !d.only[c.Key] {
			continue
		}
		errs = append(errs, &lb.ServiceError{Frontend: c.Key, Err: d.fail})
		if c.InOld {
			held.Set(c.Key, c.Old)
		} else {
			held.Delete(c.Key)
		}
	}
	d.held = held.Groups()
	return errors.Join(errs...)
}

// Close implements lb.Dataplane. What is held stays.
func (d *Dataplane) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

// Plans returns the Plans that were applied, wholly or in part, oldest first.
func (d *Dataplane) Plans() []*lb.Plan {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.plans)
}

// Has reports whether f is held at all, with backends or refusing.
func (d *Dataplane) Has(f vip.Frontend) bool {
	return d.service(f) != nil
}

// Backends returns where connections to f may go; nil if it is not held or
// refuses.
func (d *Dataplane) Backends(f vip.Frontend) []lb.Backend {
	if s := d.service(f); s != nil {
		return s.Backends
	}
	return nil
}

// Connect returns where a connection to f would go, chosen by weight: to f
// itself if it is not held. It returns ErrRefused if f has no backend.
func (d *Dataplane) Connect(f vip.Frontend) (netip.AddrPort, error) {
	s := d.service(f)
	if s == nil {
		return f.Addr, nil
	}
	total := 0
	for _, b := range s.Backends {
		total += int(b.Weight)
	}
	if total == 0 {
		return netip.AddrPort{}, fmt.Errorf("connect to %s/%s: %w", f.Addr, f.Proto, ErrRefused)
	}
	n := rand.IntN(total)
	i := slices.IndexFunc(s.Backends, func(b lb.Backend) bool {
		n -= int(b.Weight)
		return n < 0
	})
	return s.Backends[i].Addr, nil
}

func (d *Dataplane) service(f vip.Frontend) *lb.Service {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _ := d.held.Get(f)
	return s
}
