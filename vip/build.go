package vip

import (
	"maps"
	"slices"
	"sync"

	"waggle/model"
)

// entry is what is known of one target.
type entry struct {
	shares []*share   // sorted by app
	rows   []*Service // what they make
}

// cause is what a list of problems is about: the labels of an app's task, or a
// target.
type cause struct {
	app    model.AppKey
	task   string
	target target
}

// Build returns the Table of snap. It reads the labels of the apps that changed
// since prev was built, redoes the services that these labels and the addresses
// they move touch, shares all others with prev, and leaves prev as it is. A nil
// prev means from nothing. cfg must have passed Check and be the one prev was
// built with.
func Build(prev *Table, snap *model.Snapshot, cfg Config) *Table {
	if prev == nil {
		prev = &Table{}
	}
	b := newBuilder(prev, cfg)
	for c := range model.Diff(prev.apps, snap.Apps) {
		b.app(c)
	}
	b.place()
	b.serve()
	t := &Table{
		Services: b.services.Groups(),
		apps:     snap.Apps,
		entries:  b.entries.Groups(),
		v4:       b.v4.layout(),
		v6:       b.v6.layout(),
		problems: b.problems.Groups(),
		sorted:   prev.sorted,
	}
	if b.reworded {
		t.sorted = sync.OnceValue(func() []model.Problem { return sortProblems(t.problems) })
	}
	return t
}

func sortProblems(by model.Groups[cause, *[]model.Problem]) []model.Problem {
	var out []model.Problem
	for _, list := range by.All() {
		out = append(out, *list...)
	}
	slices.SortFunc(out, model.Problem.Compare)
	return slices.Compact(out)
}

// builder turns one Table into the next.
type builder struct {
	cfg      Config
	services *model.Editor[Frontend, *Service]
	entries  *model.Editor[target, *entry]
	v4, v6   *allocator
	problems *model.Editor[cause, *[]model.Problem]
	reworded bool // a problem came or went
	// touched are the targets whose services may have changed.
	touched map[target]struct{}
}

func newBuilder(prev *Table, cfg Config) *builder {
	b := &builder{
		cfg:      cfg,
		services: prev.Services.Edit(),
		entries:  prev.entries.Edit(),
		problems: prev.problems.Edit(),
		touched:  map[target]struct{}{},
	}
	b.v4 = prev.v4.edit(newPool(cfg.First4, cfg.Last4, hash4), b.touch)
	b.v6 = prev.v6.edit(newPool(cfg.First6, cfg.Last6, hash6), b.touch)
	return b
}

func (b *builder) touch(t target) { b.touched[t] = struct{}{} }

// app replaces what the tasks of an app claim that changed. What they claimed
// before is read again from the old App, so that no Table has to remember it.
func (b *builder) app(c model.Change[model.AppKey, *model.App]) {
	var was, is appReader
	if c.InOld {
		was = newAppReader(b.cfg, c.Old.Framework)
	}
	if c.InNew {
		is = newAppReader(b.cfg, c.New.Framework)
	}
	edits := map[target]*edit{}
	of := func(t target) *edit {
		if edits[t] == nil {
			edits[t] = &edit{}
		}
		return edits[t]
	}
	for old, next := range changedTasks(c.Old, c.New) {
		why := cause{app: c.Key}
		if old != nil {
			why.task = old.Key.ID
			was.read(old, func(t target, c claim) { e := of(t); e.gone = append(e.gone, c) })
		}
		var problems []model.Problem
		if next != nil {
			why.task = next.Key.ID
			problems = is.read(next, func(t target, c claim) { e := of(t); e.come = append(e.come, c) })
		}
		b.setProblems(why, problems)
	}
	for t, e := range edits {
		b.setShare(t, c.Key, is.framework, e)
	}
}

// setShare applies change to what app claims of t.
func (b *builder) setShare(t target, app model.AppKey, framework string, change *edit) {
	e := &entry{}
	if old, ok := b.entries.Get(t); ok {
		e.rows = old.rows
		e.shares = slices.Clone(old.shares)
	}
	i, found := slices.BinarySearchFunc(e.shares, app, func(s *share, k model.AppKey) int {
		return compareApps(s.app, k)
	})
	if !found {
		e.shares = slices.Insert(e.shares, i, &share{})
	}
	e.shares[i] = &share{app: app, framework: framework, claims: change.apply(e.shares[i].claims)}
	if len(e.shares[i].claims) == 0 {
		e.shares = slices.Delete(e.shares, i, i+1)
	}
	b.entries.Set(t, e)
	b.touch(t)
}

// place gives the touched names an address in each family that they have
// backends of, and takes those away that they have none of any more. That may
// touch other names.
func (b *builder) place() {
	for _, t := range slices.Collect(maps.Keys(b.touched)) {
		if t.name == "" {
			continue
		}
		var v4, v6 bool
		if e, ok := b.entries.Get(t); ok {
			for _, s := range e.shares {
				for i := range s.claims {
					v4 = v4 || s.claims[i].family().Is4()
					v6 = v6 || s.claims[i].family().Is6()
				}
			}
		}
		b.v4.want(t.name, v4)
		b.v6.want(t.name, v6)
	}
}

// serve remakes the services of the touched targets. All that goes, goes first:
// an address may have passed from one target to another.
func (b *builder) serve() {
	var made []*Service
	for t := range b.touched {
		e, ok := b.entries.Get(t)
		if !ok {
			continue
		}
		rows, problems := b.rows(t, e)
		b.setProblems(cause{target: t}, problems)
		for _, old := range e.rows {
			if findRow(rows, old.Frontend) == nil {
				b.services.Delete(old.Frontend)
			}
		}
		made = append(made, rows...)
		if len(e.shares) == 0 {
			b.entries.Delete(t)
		} else {
			b.entries.Set(t, &entry{shares: e.shares, rows: rows})
		}
	}
	for _, s := range made {
		b.services.Set(s.Frontend, s)
	}
}

func (b *builder) setProblems(c cause, list []model.Problem) {
	old, ok := b.problems.Get(c)
	switch {
	case len(list) == 0 && ok:
		b.problems.Delete(c)
		b.reworded = true
	case len(list) > 0 && (!ok || !slices.Equal(*old, list)):
		b.problems.Set(c, &list)
		b.reworded = true
	}
}
