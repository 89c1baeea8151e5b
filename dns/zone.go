package dns

import (
	"slices"
	"strings"

	"waggle/dns/wire"
	"waggle/model"
	"waggle/vip"
)

// Zone is everything the daemon has names for at one moment. It is immutable
// and safe for concurrent use.
type Zone struct {
	layout *layout
	serial uint32 // grows when a record changes
	index  *wire.Index

	// What it was built from.
	snap     *model.Snapshot
	services model.Groups[vip.Frontend, *vip.Service]
}

// Build returns the Zone of snap and table. It redoes the names of what
// changed since prev was built, shares all others with it, and leaves prev as
// it is. A nil prev means from nothing; a nil table means no VIPs yet. cfg must
// have passed Check and be the one prev was built with.
func Build(prev *Zone, snap *model.Snapshot, table *vip.Table, cfg Config) *Zone {
	if prev == nil {
		return Rebuild(nil, snap, table, cfg)
	}
	return build(prev, snap, table, false)
}

// Rebuild returns the Zone of snap and table, all of it made anew, since prev may
// be of another configuration. Its serial comes after that of prev, if any.
func Rebuild(prev *Zone, snap *model.Snapshot, table *vip.Table, cfg Config) *Zone {
	l := newLayout(cfg)
	empty := &Zone{layout: l, index: wire.NewIndex(l.wire), snap: &model.Snapshot{}}
	if prev != nil {
		empty.serial = prev.serial
	}
	return build(empty, snap, table, true)
}

// build returns the Zone that follows prev, which is empty if it is the first
// with its layout.
func build(prev *Zone, snap *model.Snapshot, table *vip.Table, first bool) *Zone {
	z := &Zone{layout: prev.layout, serial: prev.serial, snap: snap}
	if table != nil {
		z.services = table.Services
	}
	b := z.layout.builder(prev.index)
	if first {
		b.note(1, z.layout.given)
	}
	b.masters(prev.snap, snap)
	redo(b, prev.snap.Agents, snap.Agents, z.layout.agent)
	redo(b, prev.snap.Frameworks, snap.Frameworks, z.layout.framework)
	redo(b, prev.services, z.services, z.layout.virtual)
	for c := range model.Diff(prev.snap.Apps, snap.Apps) {
		b.app(c.Old, c.New)
	}
	index, changed := b.edit.Index()
	if changed || first {
		z.serial++
		index = index.WithDomains(z.layout.domainsAt(z.serial))
	}
	z.index = index
	z.layout.keep(b)
	return z
}

// find is the way into the Zone for people and for unusual questions: it
// returns the domain that name, which is in lower case with the final dot,
// belongs to, and what is at the name. The domain is nil for a name that is not
// ours, the node for one that does not exist.
func (z *Zone) find(name string) (*domain, *node) {
	real, in, steps := z.layout.real(name)
	d := z.layout.domainOf(name)
	if askable(real) {
		if n, ok := z.index.Get(wire.AppendName(nil, real)); ok {
			return d, nodeOf(n, steps)
		}
	}
	switch {
	case in.missing == wire.ForeignName:
		return nil, nil
	case real == in.apex:
		return d, &node{}
	}
	return d, nil
}

// ours reports whether a name that is not there is denied by us; else nobody
// has it, and nobody is to be asked for it.
func (z *Zone) ours(name string) bool {
	_, in, _ := z.layout.real(name)
	return in.missing == wire.Denied
}

// addFunc says that a name has a value.
type addFunc func(name string, v value)

// builder turns the names of one Zone into those of the next. What is to be
// taken away is made again from the old Snapshot, so no name has to remember
// whom it has its values from.
type builder struct {
	layout     *layout
	edit       wire.Editor
	name, data []byte  // in wire format; scratch
	gone, come []given // scratch
}

// builder returns one that is to change index: the one used last, unless that is
// in use, since most of what a change of one task takes is room to work in.
func (l *layout) builder(index *wire.Index) *builder {
	b := l.idle.Swap(nil)
	if b == nil {
		const ofOneTask = 64
		b = &builder{layout: l, gone: make([]given, 0, ofOneTask), come: make([]given, 0, ofOneTask)}
	}
	b.edit.Reset(index)
	return b
}

// keep has the next change use b again, unless that grew large.
func (l *layout) keep(b *builder) {
	const ofSomeTasks = 1024
	if cap(b.gone) <= ofSomeTasks && cap(b.come) <= ofSomeTasks {
		l.idle.Store(b)
	}
}

// note collects what made says, to be given n times; a negative n takes it
// away.
func (b *builder) note(n int32, made func(addFunc)) {
	made(func(name string, v value) { b.add(name, v, n) })
}

func (b *builder) add(name string, v value, n int32) {
	if findable(name, v) {
		b.name = wire.AppendName(b.name[:0], name)
		b.data = v.appendData(b.data[:0])
		b.edit.Add(b.name, v.kind(), b.data, n)
	}
}

// given is one value and the name it is given to.
type given struct {
	name string
	value
}

// replace takes away what was says and adds what is says. Most of it is the
// same, in the same place, so that is found out before any work is done.
func (b *builder) replace(was, is func(addFunc)) {
	b.gone, b.come = b.gone[:0], b.come[:0]
	was(func(name string, v value) { b.gone = append(b.gone, given{name, v}) })
	is(func(name string, v value) { b.come = append(b.come, given{name, v}) })
	for i, g := range b.gone {
		if i >= len(b.come) || g != b.come[i] {
			b.add(g.name, g.value, -1)
		}
	}
	for i, c := range b.come {
		if i >= len(b.gone) || c != b.gone[i] {
			b.add(c.name, c.value, 1)
		}
	}
}

// findable leaves out names that nobody could ask for, and services whose target
// nobody could look up.
func findable(name string, v value) bool {
	return askable(name) && (v.target == "" || askable(v.target))
}

func (b *builder) masters(old, next *model.Snapshot) {
	if old.Leader == next.Leader && slices.Equal(old.Masters, next.Masters) {
		return
	}
	b.replace(func(add addFunc) { b.layout.masters(old.Leader, old.Masters, add) },
		func(add addFunc) { b.layout.masters(next.Leader, next.Masters, add) })
}

// redo redoes what changed between two groups.
func redo[K, V comparable](b *builder, old, next model.Groups[K, V], names func(V, addFunc)) {
	for c := range model.Diff(old, next) {
		if c.InOld {
			b.note(-1, func(add addFunc) { names(c.Old, add) })
		}
		if c.InNew {
			b.note(1, func(add addFunc) { names(c.New, add) })
		}
	}
}

// app redoes the tasks that differ between two versions of an app, either of
// which may be nil.
func (b *builder) app(old, next *model.App) {
	var was, is appNames
	var gone, come []*model.Task
	if old != nil {
		was, gone = b.layout.app(old), old.Tasks
	}
	if next != nil {
		if is, come = was, next.Tasks; old == nil || old.Key != next.Key || old.Framework != next.Framework {
			is = b.layout.app(next)
		}
	}
	same := was == is
	for len(gone) > 0 || len(come) > 0 {
		switch order := compareTasks(gone, come); {
		case order < 0:
			b.note(-1, func(add addFunc) { b.layout.task(was, gone[0], add) })
			gone = gone[1:]
		case order > 0:
			b.note(1, func(add addFunc) { b.layout.task(is, come[0], add) })
			come = come[1:]
		default:
			if gone[0] != come[0] || !same {
				b.replace(func(add addFunc) { b.layout.task(was, gone[0], add) },
					func(add addFunc) { b.layout.task(is, come[0], add) })
			}
			gone, come = gone[1:], come[1:]
		}
	}
	if !b.layout.cfg.Exact {
		b.instances(was, is, old, next)
	}
}

// instances redoes the numbers of the tasks of an app.
func (b *builder) instances(was, is appNames, old, next *model.App) {
	gone, come := instancesOf(old), instancesOf(next)
	for i := range max(len(gone), len(come)) {
		var g, c *model.Task
		if i < len(gone) {
			g = gone[i]
		}
		if i < len(come) {
			c = come[i]
		}
		if g != c || was != is {
			b.replace(func(add addFunc) { b.layout.instanceOf(was, i, g, add) },
				func(add addFunc) { b.layout.instanceOf(is, i, c, add) })
		}
	}
}

// compareTasks orders the first tasks of two lists; an empty list comes last.
func compareTasks(a, b []*model.Task) int {
	switch {
	case len(b) == 0:
		return -1
	case len(a) == 0:
		return 1
	}
	return strings.Compare(a[0].Key.ID, b[0].Key.ID)
}
