package watcher

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"waggle/model"
)

// DefaultPatience is how long the first Snapshot of a Merge waits for sources
// that have not published.
const DefaultPatience = 10 * time.Second

// Merge is a Source of what several publish together. Of an app, agent or
// framework that more than one of them has, the first source's counts; so does
// the first leader known. A Supplement adds to what the others have. Make it with
// NewMerge.
type Merge struct {
	sources  []Source
	patience time.Duration
	spoken   atomic.Bool

	newest []atomic.Pointer[model.Snapshot] // by source; nil before its first
	dirty  chan struct{}                    // one slot
}

var _ Source = (*Merge)(nil)

// Supplement is a Source whose tasks another, the first of a Merge, tells of too
// and knows better: which of them run is for that one to say. What is left of the
// Supplement is what only it knows of those tasks: their health where it is worse,
// and service ports. Until the first source has published, a Supplement stands in
// for it.
type Supplement struct{ Source }

// NewMerge returns a Source of sources. Its first Snapshot is that of all of them
// or, once the first of them has waited for patience, of those that have
// published: one scheduler that is away must not keep the others' tasks from
// being served, but a file that is read in no time must not pass for the world.
func NewMerge(patience time.Duration, sources ...Source) *Merge {
	return &Merge{
		sources: sources, patience: patience,
		newest: make([]atomic.Pointer[model.Snapshot], len(sources)), dirty: make(chan struct{}, 1),
	}
}

// Spoken reports whether what is published is of every source: it is true from
// right before the first Snapshot that is. It is safe for concurrent use.
func (m *Merge) Spoken() bool { return m.spoken.Load() }

// Restore gives snap to the sources that can make use of what was published
// before a restart. It must be called before Run.
func (m *Merge) Restore(snap *model.Snapshot) {
	for _, s := range m.sources {
		if r, ok := s.(interface{ Restore(*model.Snapshot) }); ok {
			r.Restore(snap)
		}
	}
}

// Run implements Source. It is for one call.
func (m *Merge) Run(ctx context.Context, publish func(*model.Snapshot)) error {
	if len(m.sources) == 0 {
		return errors.New("no source to follow")
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range m.sources {
		g.Go(func() error {
			return s.Run(ctx, func(snap *model.Snapshot) {
				m.newest[i].Store(snap)
				select {
				case m.dirty <- struct{}{}:
				default:
				}
			})
		})
	}
	g.Go(func() error { return m.loop(ctx, publish) })
	return g.Wait()
}

func (m *Merge) loop(ctx context.Context, publish func(*model.Snapshot)) error {
	world := newMerged(m.sources)
	var enough <-chan time.Time // runs from the first word on
	patient := true
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.dirty:
		case <-enough:
			patient = false
		}
		all := true
		for i := range m.newest {
			if s := m.newest[i].Load(); s != nil {
				world.take(i, s)
			} else {
				all = false
			}
		}
		switch {
		case all:
			m.spoken.Store(true)
			world.whole.Partial = false
		case patient && enough == nil:
			enough = time.After(m.patience)
			continue
		case patient:
			continue
		}
		publish(world.snapshot())
	}
}

// merged is what sources published, together.
type merged struct {
	parts  []*model.Snapshot // by source; empty before it has published
	adds   []bool            // by source: it is a Supplement
	spoken bool              // the first has published: Supplements stand in no longer
	whole  model.Snapshot
}

func newMerged(sources []Source) *merged {
	w := &merged{
		parts: make([]*model.Snapshot, len(sources)), adds: make([]bool, len(sources)), whole: model.Snapshot{Partial: true},
	}
	for i, s := range sources {
		w.parts[i] = &model.Snapshot{}
		_, w.adds[i] = s.(Supplement)
	}
	return w
}

// take makes s what source i says. It redoes what differs from what it said
// before.
func (w *merged) take(i int, s *model.Snapshot) {
	if w.parts[i] == s {
		return
	}
	w.put(i, s)
	if i > 0 || w.spoken {
		return
	}
	stood := slices.Clone(w.parts)
	for j, adds := range w.adds {
		if adds {
			w.put(j, &model.Snapshot{})
		}
	}
	w.spoken = true
	for j, adds := range w.adds {
		if adds {
			w.put(j, stood[j])
		}
	}
}

func (w *merged) put(i int, s *model.Snapshot) {
	old := w.parts[i]
	w.parts[i] = s
	w.whole.Apps = together(w, w.whole.Apps, old, func(s *model.Snapshot) model.Groups[model.AppKey, *model.App] { return s.Apps }, i, w.supplemented)
	w.whole.Agents = together(w, w.whole.Agents, old, func(s *model.Snapshot) model.Groups[string, *model.Agent] { return s.Agents }, i, asItIs)
	w.whole.Frameworks = together(w, w.whole.Frameworks, old, func(s *model.Snapshot) model.Groups[string, *model.Framework] { return s.Frameworks }, i, asItIs)
	w.whole.Held = together(w, w.whole.Held, old, func(s *model.Snapshot) model.Groups[string, *model.Hold] { return s.Held }, i, asItIs)
}

// together returns whole with what changed of part i since old: of each key what
// the first part says that has it, with more made of it. more is given what was
// there before, too.
func together[K, V comparable](w *merged, whole model.Groups[K, V], old *model.Snapshot, of func(*model.Snapshot) model.Groups[K, V], i int, more func(was, v V) V) model.Groups[K, V] {
	edit := whole.Edit()
	for c := range model.Diff(of(old), of(w.parts[i])) {
		was, _ := edit.Get(c.Key)
		edit.Delete(c.Key)
		for j, p := range w.parts {
			if v, ok := of(p).Get(c.Key); ok && !(w.spoken && w.adds[j]) {
				edit.Set(c.Key, more(was, v))
				break
			}
		}
	}
	return edit.Groups()
}

func asItIs[V any](_, v V) V { return v }

// supplemented returns app with what Supplements add to it: was itself where that
// says the same, and app itself where they add nothing.
func (w *merged) supplemented(was, app *model.App) *model.App {
	all := app
	for j, p := range w.parts {
		if extra, ok := p.Apps.Get(app.Key); ok && w.spoken && w.adds[j] {
			all = supplemented(all, extra)
		}
	}
	if all == app { // it is another's, and its pointer what it goes by
		return app
	}
	return all.Keep(was)
}

// snapshot returns the whole as it is now.
func (w *merged) snapshot() *model.Snapshot {
	s := w.whole
	for _, p := range w.parts {
		if !s.Leader.IsValid() {
			s.Leader = p.Leader
		}
		if len(s.Masters) == 0 {
			s.Masters = p.Masters
		}
		s.Problems = append(s.Problems, p.Problems...)
	}
	return &s
}

// supplemented returns app with what extra knows of its tasks: app itself where
// that is nothing more.
func supplemented(app, extra *model.App) *model.App {
	out := app
	for i, t := range app.Tasks {
		more := extra.Task(t.Key.ID)
		if more == nil {
			continue
		}
		health, ports := worse(t.Health, more.Health), servicePorts(t.Ports, more.Ports)
		if health == t.Health && ports == nil {
			continue
		}
		if out == app {
			one := *app
			one.Tasks = slices.Clone(app.Tasks)
			out = &one
		}
		one := *t
		if one.Health = health; ports != nil {
			one.Ports = ports
		}
		out.Tasks[i] = &one
	}
	return out
}

// worse returns the worse of two verdicts; any is worse than none.
func worse(a, b model.Health) model.Health {
	switch {
	case a == model.Unhealthy || b == model.Unhealthy:
		return model.Unhealthy
	case a == model.HealthUnknown:
		return b
	}
	return a
}

// servicePorts returns ports with the service ports that more has for the same
// ports; nil where it has none.
func servicePorts(ports, more []model.Port) (out []model.Port) {
	for i, p := range ports {
		at := slices.IndexFunc(more, func(m model.Port) bool {
			return m.Proto == p.Proto && m.Number == p.Number && m.HostPort == p.HostPort && m.Name == p.Name
		})
		if at < 0 || more[at].ServicePort == p.ServicePort {
			continue
		}
		if out == nil {
			out = slices.Clone(ports)
		}
		out[i].ServicePort = more[at].ServicePort
	}
	return out
}
