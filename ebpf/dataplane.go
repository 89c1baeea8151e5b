package ebpf

import (
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

// Dataplane balances TCP and UDP by eBPF. Its methods are safe for concurrent
// use.
type Dataplane struct {
	pins    *pins
	cgroup  *os.File
	objs    objects
	rcu     *rcu
	metrics *collector
	log     *zap.Logger
	events  *events
	probe   *probe // nil for no self-test
	killer  *killer

	// mu guards what follows.
	mu       sync.Mutex
	services *services
	recipes  *recipes
	v4       *family[bpfVip4Key]
	v6       *family[bpfVip6Key]
	adopted  bool     // our picture of the maps can be relied on
	plan     *lb.Plan // the last one applied, wholly or not
	// applied is what the maps were brought to, so that a Plan's differences
	// from it are all there is to do, if compared says so.
	applied  model.Groups[vip.Frontend, *lb.Service]
	compared bool
	// excluded are the clients that the kernel leaves alone, as a Plan names them.
	excluded []lb.Client
	// restricted are the services not for everyone, as they were last wanted.
	restricted map[vip.Frontend]*lb.Service
	// unknown are backends that the kernel was found with and that no Plan has
	// known. They stay until a Plan comes that is not partial.
	unknown map[vip.Frontend][]lb.Backend
	repairs uint64 // of programs and pins
}

var _ lb.Dataplane = (*Dataplane)(nil)

// Open loads the programs, attaches them and adopts what the kernel holds from
// earlier, of this layout of the maps or of the one before, without changing
// where any VIP leads. The first Apply then removes what its Plan does not
// have. What a failed first Open made is removed again.
//
// It returns ErrNotSupported if eBPF cannot balance here, found out by trying
// (Linux 5.18 is the first that can), and ErrInUse if another process has
// cfg.PinDir open. reg may be nil. The caller closes the Dataplane.
func Open(cfg Config, log *zap.Logger, reg prometheus.Registerer) (*Dataplane, error) {
	cgroup, err := openCgroup(cfg.Cgroup)
	if err != nil {
		return nil, err
	}
	p, err := openPins(cfg.PinDir)
	if err != nil {
		cgroup.Close()
		return nil, err
	}
	d := &Dataplane{pins: p, cgroup: cgroup, log: log, restricted: map[vip.Frontend]*lb.Service{}}
	if err := d.open(cfg, reg); err != nil {
		return nil, errors.Join(err, p.abandon(), d.Close())
	}
	log.Info("balancing", zap.String("cgroup", cgroup.Name()), zap.String("pins", p.dir),
		zap.Int("adopted", len(d.v4.held)+len(d.v6.held)))
	for _, w := range warnings() {
		log.Warn(w)
	}
	return d, nil
}

func (d *Dataplane) open(cfg Config, reg prometheus.Registerer) (err error) {
	attach := func() error { return d.attachLocked(cfg.Watch) }
	for _, step := range []func() error{
		func() error { return d.prepare(cfg) }, d.adoptLocked, d.takeOverLocked, attach, d.pins.forgetOlder,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	d.noteUnknownLocked()
	d.killer = newKiller(d.objs.pinnedMaps(), d.log)
	if d.probe, err = newProbe(cfg.SelfTest); err != nil {
		return err
	}
	d.recipes.probe = d.probe
	if d.events, err = openEvents(d); err != nil {
		return err
	}
	d.metrics, err = newMetrics(reg, d)
	return err
}

// prepare loads the programs, and maps the memory that they share with us.
func (d *Dataplane) prepare(cfg Config) (err error) {
	if err := d.pins.load(cfg, &d.objs, d.log); err != nil {
		return err
	}
	if d.rcu, err = newRCU(); err != nil {
		return explain("make maps to wait with", err)
	}
	d.services = &services{counts: d.objs.Counts, allow: &allowances{m: d.objs.Allow}, wait: d.rcu.wait}
	d.recipes = &recipes{
		udp:   d.objs.has(bpfProgSendmsg4, bpfProgSendmsg6, bpfProgRecvmsg4, bpfProgRecvmsg6),
		watch: cfg.Watch && d.objs.has(bpfProgWatch),
		ends:  d.objs.has(bpfProgSockRelease),
		names: newNames(openPath(d.cgroup)),
	}
	d.v4 = &family[bpfVip4Key]{format: newFormat4(), services: d.services, recipes: d.recipes, vips: d.objs.Vip4}
	d.v6 = &family[bpfVip6Key]{format: newFormat6(), services: d.services, recipes: d.recipes, vips: d.objs.Vip6}
	if d.services.descriptors, err = mapped[uint64](d.objs.Descriptors); err != nil {
		return err
	}
	if d.services.elems, err = mapped[bpfService](d.objs.Services); err != nil {
		return err
	}
	if d.pins.fresh {
		d.services.unused = slices.Repeat([]bool{true}, len(d.services.elems))
	}
	if d.services.slots, err = mapped[uint32](d.objs.Slots); err != nil {
		return err
	}
	if d.services.backends, err = mapped[bpfBackend](d.objs.Backends); err != nil {
		return err
	}
	return nil
}

// attachLocked attaches the programs, or puts ours where they were attached.
func (d *Dataplane) attachLocked(watch bool) error {
	d.objs.links = map[string]link.Link{}
	for _, h := range hooks(watch) {
		program := d.objs.programs[h.name]
		if program == nil {
			continue
		}
		l, err := d.pins.attach(h, program, d.cgroup)
		if l != nil {
			d.objs.links[h.name] = l
		}
		if err != nil {
			return err
		}
		if err := proveEffective(h, program, d.cgroup); err != nil {
			return err
		}
	}
	if !watch {
		return d.pins.removeLink(bpfProgWatch)
	}
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
// nothing is wrong, and costs some 50 ms for a million destinations. Its errors
// are those of Apply.
func (d *Dataplane) Repair(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.services == nil {
		return errors.New("repair: the dataplane is closed")
	}
	if err := d.mendLocked(); err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	if d.plan == nil {
		return nil
	}
	d.adopted = false
	return d.applyLocked(ctx, d.plan)
}

// Mend attaches programs again that somebody has detached, and pins again what is
// no longer pinned, and looks again who is excluded: the part of Repair that costs
// the same however much the maps hold, a fraction of a millisecond.
func (d *Dataplane) Mend() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.services == nil {
		return errors.New("mend: the dataplane is closed")
	}
	err := d.mendLocked()
	if len(d.excluded) > 0 {
		d.recipes.names.forget()
		err = errors.Join(err, d.services.allow.set(every, d.recipes.names.resolve(d.excluded)))
	}
	return err
}

func (d *Dataplane) applyLocked(ctx context.Context, p *lb.Plan) error {
	if !d.adopted {
		if err := d.adoptLocked(); err != nil {
			return fmt.Errorf("apply plan: %w", err)
		}
	}
	if !p.Partial {
		d.unknown = nil
	}
	// What was known of clients may be older than the Plan that admits them.
	d.recipes.names.forget()
	exclude := d.excludeLocked(p)
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
	err = d.concludeLocked(p, slices.Concat(failed, failed6, notAdded4, notAdded6))
	if exclude != nil {
		return errors.Join(err, exclude)
	}
	return err
}

// changesLocked returns what is to be done for p, by address family.
func (d *Dataplane) changesLocked(p *lb.Plan) (v4, v6 []change) {
	note := func(f vip.Frontend, s *lb.Service) {
		if len(d.unknown) > 0 && s != nil {
			s = d.besidesLocked(s)
		}
		d.restrictLocked(f, s)
		if f.Addr.Addr().Is4() {
			v4 = append(v4, change{f, s})
		} else {
			v6 = append(v6, change{f, s})
		}
	}
	// After a partial Plan the kernel may hold more than was applied.
	if d.compared && (p.Partial || !d.plan.Partial) {
		for c := range model.Diff(d.applied, p.Services) {
			note(c.Key, c.New)
		}
		return v4, v6
	}
	for f, s := range p.Services.All() {
		note(f, s)
	}
	if d.probe != nil {
		note(d.probe.service.Frontend, d.probe.service)
	}
	if p.Partial {
		return v4, v6
	}
	for f := range d.heldLocked() {
		if _, ok := p.Services.Get(f); !ok && !d.probe.is(f) {
			note(f, nil)
		}
	}
	return v4, v6
}

func (d *Dataplane) restrictLocked(f vip.Frontend, s *lb.Service) {
	if s != nil && len(s.Allow) > 0 {
		d.restricted[f] = s
	} else {
		delete(d.restricted, f)
	}
}

// besidesLocked returns s with the backends that the kernel was found with and
// that no Plan has known yet: they may be newer than what this daemon knows.
func (d *Dataplane) besidesLocked(s *lb.Service) *lb.Service {
	unknown := slices.DeleteFunc(d.unknown[s.Frontend], func(u lb.Backend) bool {
		return slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.Addr == u.Addr })
	})
	if len(unknown) == 0 {
		delete(d.unknown, s.Frontend)
		return s
	}
	d.unknown[s.Frontend] = unknown
	both := *s
	both.Backends = slices.Concat(s.Backends, unknown)
	slices.SortFunc(both.Backends, func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) })
	return &both
}

// noteUnknownLocked remembers the backends that the kernel was found with.
func (d *Dataplane) noteUnknownLocked() {
	d.unknown = map[vip.Frontend][]lb.Backend{}
	for f, id := range d.heldLocked() {
		for _, i := range d.services.listed(d.services.load(id), nil) {
			b := &d.services.backends[i]
			d.unknown[f] = append(d.unknown[f], lb.Backend{Addr: addrPort(b.Addr, b.Port), Weight: max(1, b.Weight)})
		}
	}
}

func (d *Dataplane) serviceLocked(f vip.Frontend) (uint32, bool) {
	if e, ok := d.v4.held[f]; ok {
		return e.id, true
	}
	e, ok := d.v6.held[f]
	return e.id, ok
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
	d.applied, d.compared = now.Groups(), true
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
	errs := []error{d.events.close(), d.probe.close(), d.killer.close()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.services != nil {
		s := d.services
		errs = append(errs, unmap(s.descriptors), unmap(s.elems), unmap(s.slots), unmap(s.backends))
	}
	if d.rcu != nil {
		errs = append(errs, d.rcu.Close())
	}
	if d.pins.lock != nil {
		errs = append(errs, d.objs.Close(), d.cgroup.Close(), d.pins.lock.Close())
	}
	d.services, d.rcu, d.pins.lock = nil, nil, nil
	return errors.Join(errs...)
}
