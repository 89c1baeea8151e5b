// Package agent drives the pipeline: each Snapshot a Source publishes becomes a
// Table, a Plan in the kernel and a Zone, in that order. It is the one place
// that sees every stage; read it first. It answers no queries and serves no
// HTTP: those read its State.
package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"waggle/dns"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
	"waggle/watcher"
)

// Config sets up the stages of the pipeline.
type Config struct {
	VIP vip.Config
	LB  lb.Config
	DNS dns.Config
	// RetryAfter is how long a failed Apply waits before the next try: short,
	// since names freeze meanwhile, but not so short that a kernel that
	// refuses is asked in a loop.
	RetryAfter time.Duration
	// RepairEvery is how often the kernel is looked at in case somebody else has
	// changed it: whether the programs are attached, and, where the last time is
	// RepairRest times as long ago as it took, all that the maps hold. So a look at
	// a million backends, 50 ms, comes every 10 s, and a usual one every time.
	RepairEvery time.Duration
	RepairRest  int
	// TurnEvery is the time between turns while changes come faster than that,
	// and TurnBurst how many turns go ahead of it: a change is delayed only if
	// that many came within TurnBurst times TurnEvery before it. What comes
	// meanwhile is taken in one turn, so longer saves work and shorter saves the
	// changes in a storm some milliseconds.
	TurnEvery time.Duration
	TurnBurst int
	// DrainFile is where drains are kept, to go on after a restart of the
	// daemon; empty keeps none. Its folder is made where it is missing.
	DrainFile string
	// Eject says when backends that refuse connections, or are slow to take them,
	// get none for a while.
	Eject lb.EjectConfig
	// Renamed is called as soon as a Zone counts that says something else than the
	// one before. Nil is fine.
	Renamed func()
}

// DefaultConfig returns the stages' own defaults, a retry after 1 s, a repair
// every 2 s that takes 1/200 of the time at most, and at most 200 turns a second beyond the first 20.
func DefaultConfig() Config {
	return Config{
		VIP:         vip.DefaultConfig(),
		LB:          lb.DefaultConfig(),
		DNS:         dns.DefaultConfig(),
		RetryAfter:  time.Second,
		RepairEvery: 2 * time.Second,
		RepairRest:  200,
		TurnEvery:   5 * time.Millisecond,
		TurnBurst:   20,
		Eject:       lb.DefaultEjectConfig(),
	}
}

// repairer is what a Dataplane may be besides: one that can bring the kernel
// back to the last Plan after somebody else has changed it.
type repairer interface {
	Repair(ctx context.Context) error
}

// mender is one that can also see to its programs alone, for next to nothing.
type mender interface {
	Mend() error
}

// State is what one turn of the pipeline made. All parts are immutable.
type State struct {
	Snapshot *model.Snapshot
	Table    *vip.Table // what the Snapshot asks for
	Applied  *vip.Table // what the kernel balances, so what names may say; nil without a Dataplane
	Plan     *lb.Plan   // nil without a Dataplane
	Zone     *dns.Zone

	Published time.Time // when the Source published the Snapshot
	Err       error     // why Applied is behind Table; nil when it is not
	// Unsupported are the services that the Dataplane can never balance, and
	// Failed those that it could not balance now, for lack of room in a kernel
	// map, say: they are as they were before, whole, and tried again.
	Unsupported, Failed []*lb.ServiceError

	near  *lb.Neighbours // agents in this node's fault domain
	built *stages        // what it was built with
}

// Agent is the pipeline. Its methods are safe for concurrent use.
type Agent struct {
	cfg     Config
	source  watcher.Source
	plane   lb.Dataplane
	log     *zap.Logger
	metrics *metrics
	now     func() time.Time
	stages  atomic.Pointer[stages]

	published atomic.Pointer[publication]
	dirty     chan struct{} // one slot: a publication waits
	state     atomic.Pointer[State]
	turned    atomic.Pointer[chan struct{}] // closed at the end of the next turn
	drained   drained
	file      drainFile
	ejected   atomic.Pointer[lb.Ejections]
}

type publication struct {
	snapshot *model.Snapshot
	at       time.Time
}

// New returns an Agent that follows source and programs plane. A nil plane
// means no balancing: then no VIP is named either. The caller keeps plane and
// closes it after Run has returned. reg may be nil.
func New(cfg Config, source watcher.Source, plane lb.Dataplane, log *zap.Logger, reg prometheus.Registerer) *Agent {
	a := &Agent{
		cfg: cfg, source: source, plane: plane, log: log, now: time.Now,
		dirty: make(chan struct{}, 1), drained: drained{poke: make(chan struct{}, 1)}, file: drainFile{path: cfg.DrainFile},
	}
	a.stages.Store(&stages{cfg.VIP, cfg.LB, cfg.DNS})
	first := make(chan struct{})
	a.turned.Store(&first)
	a.metrics = newMetrics(reg, a)
	return a
}

// poke lets the pipeline turn.
func (a *Agent) poke() {
	select {
	case a.dirty <- struct{}{}:
	default:
	}
}

// State returns the result of the last turn, or nil before the first one.
func (a *Agent) State() *State { return a.state.Load() }

// Turned returns a channel that is closed once there is a State later than what
// State returns after the call.
func (a *Agent) Turned() <-chan struct{} { return *a.turned.Load() }

// Zone returns the Zone of the last turn, or nil before the first one.
func (a *Agent) Zone() *dns.Zone {
	if s := a.state.Load(); s != nil {
		return s.Zone
	}
	return nil
}

// Run follows the source and turns the pipeline until ctx ends. It returns
// ctx's error, or the source's if that can never work.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.source.Run(ctx, a.publish) })
	g.Go(func() error { return a.loop(ctx) })
	g.Go(func() error { return a.disconnect(ctx) })
	g.Go(func() error { return a.eject(ctx) })
	return g.Wait()
}

// publish hands a Snapshot to the loop. Only the newest counts: a Snapshot is
// the whole picture, so one that was never looked at loses nothing.
func (a *Agent) publish(s *model.Snapshot) {
	a.published.Store(&publication{s, a.now()})
	a.poke()
}

func (a *Agent) loop(ctx context.Context) error {
	pace := pacer{every: a.cfg.TurnEvery, burst: a.cfg.TurnBurst}
	again, due := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	again.Stop()
	due.Stop()
	defer again.Stop()
	defer due.Stop()
	repair := time.NewTicker(a.cfg.RepairEvery)
	defer repair.Stop()
	var full time.Time // when the next look at all is due
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.dirty:
			if wait := pace.wait(a.now()); wait > 0 {
				due.Reset(wait)
				continue
			}
		case <-due.C:
		case <-again.C:
		case <-repair.C:
			start := a.now()
			if start.Before(full) {
				a.mend()
				continue
			}
			good := a.repaired(ctx)
			full = a.now().Add(time.Duration(a.cfg.RepairRest) * a.now().Sub(start))
			if good {
				continue
			}
		}
		p := a.published.Load()
		if p == nil {
			continue
		}
		due.Stop() // whatever waited is in the turn that starts now
		pace.spent(a.now())
		s := a.turn(ctx, p)
		before := a.Zone()
		a.state.Store(s)
		if a.cfg.Renamed != nil && !s.Zone.Same(before) {
			a.cfg.Renamed()
		}
		next := make(chan struct{})
		close(*a.turned.Swap(&next))
		if at, ok := a.wake(s); ok {
			again.Reset(max(0, at.Sub(a.now())))
		}
	}
}

// repaired reports whether the kernel is as it should be, so that the pipeline
// need not turn to make it so.
func (a *Agent) repaired(ctx context.Context) bool {
	r, ok := a.plane.(repairer)
	if !ok {
		return true
	}
	err := r.Repair(ctx)
	failed := serviceErrors(err)
	if err == nil || failed != nil && !slices.ContainsFunc(failed, retriable) {
		return true
	}
	if ctx.Err() == nil {
		a.log.Error("kernel not repaired", zap.Error(err))
	}
	return false
}

// mend has programs attached again that somebody has detached. What fails is
// the next repair's matter.
func (a *Agent) mend() {
	if m, ok := a.plane.(mender); ok {
		if err := m.Mend(); err != nil {
			a.log.Error("programs in the kernel not mended", zap.Error(err))
		}
	}
}

// retriable reports whether a service that failed may yet be balanced.
func retriable(e *lb.ServiceError) bool { return !errors.Is(e, lb.ErrUnsupported) }

// wake says when the pipeline must turn again although nothing is published:
// to retry the kernel, to let go of a service whose names have expired,
// or to end a drain.
func (a *Agent) wake(s *State) (time.Time, bool) {
	if s.Err != nil {
		return a.now().Add(a.cfg.RetryAfter), true
	}
	if s.Plan != nil {
		return s.Plan.Due()
	}
	return time.Time{}, false
}

// turn takes one Snapshot through every stage. The order is the promise: the
// kernel balances a VIP before DNS names it, and a VIP that left the Table
// stays in the Plan, refusing, until its name has left the caches.
func (a *Agent) turn(ctx context.Context, p *publication) *State {
	start := a.now()
	prev := a.state.Load()
	if prev == nil {
		prev = &State{Plan: a.resume()}
	}
	s := &State{Snapshot: p.snapshot, Published: p.at, built: a.stages.Load()}
	base, zone := prev, dns.Build
	if prev.built != s.built { // what was built with another configuration is no base
		base, zone = &State{}, dns.Rebuild
	}
	s.Table = vip.Build(base.Table, s.Snapshot, s.built.vip)
	if a.plane != nil {
		s.near = nearOf(base, s.Snapshot, s.built.lb.Node)
		cfg := s.built.lb
		cfg.Near, cfg.Ejected = s.near, a.ejected.Load()
		s.Plan = lb.Build(prev.Plan, s.Table, cfg, start)
		s.Plan.Partial = s.Snapshot.Partial
		s.take(prev.Applied, a.plane.Apply(ctx, s.Plan))
		a.drained.note(s.Plan)
	}
	s.Zone = zone(prev.Zone, s.Snapshot, s.Applied, s.built.dns)
	if ctx.Err() == nil { // else the kernel was not let finish, which is no news
		a.report(prev, s, start)
	}
	return s
}

// take notes what the kernel balances after Apply returned err: all of the
// Table, or the Table with the services that failed as they were before, or,
// where the error tells nothing, what it was before.
func (s *State) take(before *vip.Table, err error) {
	s.Applied = s.Table
	if err == nil {
		return
	}
	failed := serviceErrors(err)
	if failed == nil {
		s.Applied, s.Err = before, err
		return
	}
	t := *s.Table
	rows := t.Services.Edit()
	var errs []error
	for _, e := range failed {
		rows.Delete(e.Frontend)
		if !retriable(e) {
			s.Unsupported = append(s.Unsupported, e)
			continue
		}
		s.Failed = append(s.Failed, e)
		errs = append(errs, e)
		if before == nil {
			continue
		}
		if old, ok := before.Services.Get(e.Frontend); ok {
			rows.Set(e.Frontend, old)
		}
	}
	t.Services = rows.Groups()
	s.Applied, s.Err = &t, few(errs)
}

// few joins errs, of which there may be thousands with one cause.
func few(errs []error) error {
	const most = 3
	if n := len(errs) - most; n > 0 {
		errs = append(errs[:most:most], fmt.Errorf("and %d services more", n))
	}
	return errors.Join(errs...)
}

// serviceErrors returns the parts of a joined error if each of them concerns
// one service, and nil if any does not.
func serviceErrors(err error) []*lb.ServiceError {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		var one *lb.ServiceError
		if !errors.As(err, &one) {
			return nil
		}
		return []*lb.ServiceError{one}
	}
	var out []*lb.ServiceError
	for _, part := range joined.Unwrap() {
		errs := serviceErrors(part)
		if errs == nil {
			return nil
		}
		out = append(out, errs...)
	}
	return out
}

func (a *Agent) report(prev, s *State, start time.Time) {
	end := a.now()
	a.metrics.turns.Inc()
	a.metrics.turn.Observe(end.Sub(start).Seconds())
	if prev.Snapshot != s.Snapshot {
		a.metrics.convergence.Observe(end.Sub(s.Published).Seconds())
	}
	if s.Err != nil {
		a.metrics.applyErrors.Inc()
		if prev.Err == nil || prev.Err.Error() != s.Err.Error() {
			a.log.Error("kernel not up to date, VIP names frozen", zap.Error(s.Err))
		}
	} else if prev.Err != nil {
		a.log.Info("kernel up to date again")
	}
}
