package ebpf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf/link"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// Dataplane balances TCP by eBPF. Its methods are safe for concurrent use.
type Dataplane struct {
	pins    *pins
	objs    bpfObjects
	links   []link.Link
	rcu     *rcu
	metrics *collector

	// mu guards what follows.
	mu       sync.Mutex
	services *services
	v4       *family[bpfVip4Key, bpfDest4]
	v6       *family[bpfVip6Key, bpfDest6]
	adopted  bool     // our picture of the maps can be relied on
	plan     *lb.Plan // the last one applied, wholly or not
	// applied is what the maps were brought to, so that a Plan's differences
	// from it are all there is to do, if compared says so.
	applied  model.Groups[vip.Frontend, *lb.Service]
	compared bool
}

var _ lb.Dataplane = (*Dataplane)(nil)

// Open loads the programs, attaches them and adopts what the kernel holds from
// earlier, without changing where any VIP leads. The first Apply then removes
// what its Plan does not have. What a failed first Open made is removed again.
//
// It returns ErrNotSupported if eBPF cannot balance here, found out by trying
// (Linux 5.18 is the first that can), and ErrInUse if another process has
// cfg.PinDir open. reg may be nil. The caller closes the Dataplane.
func Open(cfg Config, log *zap.Logger, reg prometheus.Registerer) (*Dataplane, error) {
	cgroup, err := openCgroup(cfg.Cgroup)
	if err != nil {
		return nil, err
	}
	defer cgroup.Close()
	p, err := openPins(cfg.PinDir)
	if err != nil {
		return nil, err
	}
	d := &Dataplane{pins: p}
	if err := d.open(cfg, cgroup, log, reg); err != nil {
		return nil, errors.Join(err, p.abandon(), d.Close())
	}
	log.Info("balancing", zap.String("cgroup", cgroup.Name()), zap.String("pins", p.dir),
		zap.Int("adopted", len(d.v4.held)+len(d.v6.held)))
	return d, nil
}

func (d *Dataplane) open(cfg Config, cgroup *os.File, log *zap.Logger, reg prometheus.Registerer) (err error) {
	if err := d.pins.load(cfg, &d.objs, log); err != nil {
		return err
	}
	if d.rcu, err = newRCU(); err != nil {
		return explain("make maps to wait with", err)
	}
	d.services = &services{counters: d.objs.StSvc, wait: d.rcu.wait}
	d.v4 = &family[bpfVip4Key, bpfDest4]{format: newFormat4(), services: d.services, vips: d.objs.Vip4}
	d.v6 = &family[bpfVip6Key, bpfDest6]{format: newFormat6(), services: d.services, vips: d.objs.Vip6}
	if d.services.elems, err = mapped[bpfService](d.objs.Svc); err != nil {
		return err
	}
	if d.v4.dests, err = mapped[bpfDest4](d.objs.Slot4); err != nil {
		return err
	}
	if d.v6.dests, err = mapped[bpfDest6](d.objs.Slot6); err != nil {
		return err
	}
	if err := d.adoptLocked(); err != nil {
		return err
	}
	for _, h := range d.objs.hooks() {
		l, err := attach(h, cgroup, d.pins.linkPath(h.name))
		if l != nil {
			d.links = append(d.links, l)
		}
		if err != nil {
			return err
		}
		if err := proveEffective(h, cgroup); err != nil {
			return err
		}
	}
	d.metrics, err = newMetrics(reg, d)
	return err
}

// adoptLocked takes what the maps hold for the truth.
func (d *Dataplane) adoptLocked() error {
	d.adopted, d.compared = false, false
	taken := map[uint32]bool{}
	if err := errors.Join(d.v4.adopt(taken), d.v6.adopt(taken)); err != nil {
		return err
	}
	ids := make([]extent, 0, len(taken))
	for id := range taken {
		ids = append(ids, extent{id, 1})
	}
	slices.SortFunc(ids, func(a, b extent) int { return cmp.Compare(a.base, b.base) })
	s := d.services
	s.ids, _ = newSlab(uint32(len(s.elems)), ids)
	s.slabs = []*slab{s.ids, d.v4.slots, d.v6.slots}
	s.removed = false
	// Nothing is known of what rested before: programs may still be reading it.
	if err := s.wait(); err != nil {
		return err
	}
	d.adopted = true
	return nil
}

// Apply implements lb.Dataplane. Its cost grows with what differs from the Plan
// before, not with the number of services; the first Apply, and one after an
// error that is no *lb.ServiceError, looks at all the kernel holds.
func (d *Dataplane) Apply(ctx context.Context, p *lb.Plan) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.services == nil {
		return errors.New("apply plan: the dataplane is closed")
	}
	return d.applyLocked(ctx, p)
}

// Repair reads all that the kernel holds and brings it to the last Plan that
// was applied, in case somebody else has changed it. It changes nothing where
// nothing is wrong, and costs some 10 ms plus 40 for a million destinations. Its
// errors are those of Apply.
func (d *Dataplane) Repair(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.services == nil {
		return errors.New("repair: the dataplane is closed")
	}
	if d.plan == nil {
		return nil
	}
	d.adopted = false
	return d.applyLocked(ctx, d.plan)
}

func (d *Dataplane) applyLocked(ctx context.Context, p *lb.Plan) error {
	if !d.adopted {
		if err := d.adoptLocked(); err != nil {
			return fmt.Errorf("apply plan: %w", err)
		}
	}
	changes4, changes6 := d.changesLocked(p)
	d.plan, d.compared = p, false
	// What is removed first makes room, whatever its family.
	add4, failed, err := d.v4.update(ctx, changes4)
	if err != nil {
		return fmt.Errorf("apply plan: %w", err)
	}
	add6, failed6, err := d.v6.update(ctx, changes6)
	if err != nil {
		return fmt.Errorf("apply plan: %w", err)
	}
	notAdded4, err := d.v4.add(ctx, add4)
	if err != nil {
		return fmt.Errorf("apply plan: %w", err)
	}
	notAdded6, err := d.v6.add(ctx, add6)
	if err != nil {
		return fmt.Errorf("apply plan: %w", err)
	}
	return d.concludeLocked(p, slices.Concat(failed, failed6, notAdded4, notAdded6))
}

// changesLocked returns what is to be done for p, by address family.
func (d *Dataplane) changesLocked(p *lb.Plan) (v4, v6 []change) {
	note := func(f vip.Frontend, s *lb.Service) {
		if f.Addr.Addr().Is4() {
			v4 = append(v4, change{f, s})
		} else {
			v6 = append(v6, change{f, s})
		}
	}
	if d.compared {
		for c := range model.Diff(d.applied, p.Services) {
			note(c.Key, c.New)
		}
		return v4, v6
	}
	for f, s := range p.Services.All() {
		note(f, s)
	}
	if p.Partial {
		return v4, v6
	}
	for f := range d.heldLocked() {
		if _, ok := p.Services.Get(f); !ok {
			note(f, nil)
		}
	}
	return v4, v6
}

// concludeLocked notes that the kernel holds p, but for the failed services,
// which are as they were and which the next Apply tries again. It returns their
// errors joined.
func (d *Dataplane) concludeLocked(p *lb.Plan, failed []*lb.ServiceError) error {
	var errs []error
	now := p.Services.Edit()
	for _, e := range failed {
		errs = append(errs, e)
		if old, ok := d.applied.Get(e.Frontend); ok {
			now.Set(e.Frontend, old)
		} else if d.v4.holds(e.Frontend) || d.v6.holds(e.Frontend) {
			// Adopted and not understood: anything but what a Plan has.
			now.Set(e.Frontend, &lb.Service{Frontend: e.Frontend})
		} else {
			now.Delete(e.Frontend)
		}
	}
	d.applied, d.compared = now.Groups(), !p.Partial
	return errors.Join(errs...)
}

// heldLocked returns the service ids of the frontends that the kernel holds.
func (d *Dataplane) heldLocked() map[vip.Frontend]uint32 {
	out := make(map[vip.Frontend]uint32, len(d.v4.held)+len(d.v6.held))
	for f, e := range d.v4.held {
		out[f] = e.id
	}
	for f, e := range d.v6.held {
		out[f] = e.id
	}
	return out
}

// Close implements lb.Dataplane: the kernel goes on balancing as it does.
func (d *Dataplane) Close() error {
	d.metrics.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, l := range d.links {
		errs = append(errs, l.Close())
	}
	if d.services != nil {
		errs = append(errs, unmap(d.services.elems), unmap(d.v4.dests), unmap(d.v6.dests))
	}
	if d.rcu != nil {
		errs = append(errs, d.rcu.Close())
	}
	if d.pins.lock != nil {
		errs = append(errs, d.objs.Close(), d.pins.lock.Close())
	}
	d.links, d.services, d.rcu, d.pins.lock = nil, nil, nil, nil
	return errors.Join(errs...)
}
