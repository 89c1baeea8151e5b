package dns

import (
	"slices"
	"strings"

	"waggle/model"
	"waggle/vip"
)

// Zone is everything the daemon has names for at one moment. It is immutable
// and safe for concurrent use.
type Zone struct {
	layout *layout
	serial uint32 // grows when a record changes
	names  model.Groups[string, *node]

	// What it was built from.
	snap     *model.Snapshot
	services model.Groups[vip.Frontend, *vip.Service]
}

// Build returns the Zone of snap and table. It redoes the names of what
// changed since prev was built, shares all others with it, and leaves prev as
// it is. A nil prev means from nothing; a nil table means no VIPs yet. cfg must
// have passed Check and be the one prev was built with.
func Build(prev *Zone, snap *model.Snapshot, table *vip.Table, cfg Config) *Zone {
	first := prev == nil
	if first {
		prev = &Zone{layout: newLayout(cfg), snap: &model.Snapshot{}}
	}
	z := &Zone{layout: prev.layout, serial: prev.serial, snap: snap}
	if table != nil {
		z.services = table.Services
	}
	b := &builder{layout: z.layout, names: prev.names.Edit()}
	if first {
		b.note(1, z.layout.nameserver)
		b.commit()
	}
	b.masters(prev.snap, snap)
	redo(b, prev.snap.Agents, snap.Agents, z.layout.agent)
	redo(b, prev.snap.Frameworks, snap.Frameworks, z.layout.framework)
	redo(b, prev.services, z.services, z.layout.service)
	for c := range model.Diff(prev.snap.Apps, snap.Apps) {
		b.app(c.Old, c.New)
	}
	z.names = b.names.Groups()
	if b.changed || first {
		z.serial++
	}
	return z
}

// find is the one way into the Zone: it returns the domain that name, which is
// in lower case with the final dot, belongs to, and what is at the name. The
// domain is nil for a name that is not ours, the node for one that does not
// exist.
func (z *Zone) find(name string) (*domain, *node) {
	d := z.layout.domainOf(name)
	if d == nil {
		return nil, nil
	}
	if name == d.apex {
		return d, &node{}
	}
	n, _ := z.names.Get(name)
	return d, n
}

// addFunc says that a name has a value.
type addFunc func(name string, v value)

// edit is one change: value is given to name n times, or taken from it.
type edit struct {
	name string
	counted
}

// builder turns the names of one Zone into those of the next. What is to be
// taken away is made again from the old Snapshot, so no name has to remember
// whom it has its values from.
type builder struct {
	layout  *layout
	names   *model.Editor[string, *node]
	edits   []edit
	changed bool
}

// note collects what made says, to be given n times; a negative n takes it
// away. Names that nobody could ask for are left out, and so are services whose
// target nobody could look up.
func (b *builder) note(n int32, made func(addFunc)) {
	made(func(name string, v value) {
		if askable(name) && (v.target == "" || askable(v.target)) {
			b.edits = append(b.edits, edit{name, counted{v, n}})
		}
	})
}

func (b *builder) masters(old, next *model.Snapshot) {
	if old.Leader == next.Leader && slices.Equal(old.Masters, next.Masters) {
		return
	}
	b.note(-1, func(add addFunc) { b.layout.masters(old.Leader, old.Masters, add) })
	b.note(1, func(add addFunc) { b.layout.masters(next.Leader, next.Masters, add) })
	b.commit()
}

// redo redoes what changed between two groups in one commit, because many
// of their members share a name.
func redo[K, V comparable](b *builder, old, next model.Groups[K, V], names func(V, addFunc)) {
	for c := range model.Diff(old, next) {
		if c.InOld {
			b.note(-1, func(add addFunc) { names(c.Old, add) })
		}
		if c.InNew {
			b.note(1, func(add addFunc) { names(c.New, add) })
		}
	}
	b.commit()
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
		is, come = b.layout.app(next), next.Tasks
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
				b.note(-1, func(add addFunc) { b.layout.task(was, gone[0], add) })
				b.note(1, func(add addFunc) { b.layout.task(is, come[0], add) })
			}
			gone, come = gone[1:], come[1:]
		}
	}
	b.commit()
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

// commit brings about what was noted.
func (b *builder) commit() {
	slices.SortFunc(b.edits, func(x, y edit) int {
		if c := strings.Compare(x.name, y.name); c != 0 {
			return c
		}
		return compareValues(x.value, y.value)
	})
	for from := 0; from < len(b.edits); {
		to := from + 1
		for to < len(b.edits) && b.edits[to].name == b.edits[from].name {
			to++
		}
		b.rewrite(b.edits[from].name, b.edits[from:to])
		from = to
	}
	b.edits = b.edits[:0]
}

// rewrite applies edits, all of one name.
func (b *builder) rewrite(name string, edits []edit) {
	old, _ := b.names.Get(name)
	if old == nil {
		old = &node{}
	}
	values := merge(old.values, edits)
	if slices.Equal(values, old.values) {
		return
	}
	sameValue := func(x, y counted) bool { return x.value == y.value }
	b.changed = b.changed || !slices.EqualFunc(values, old.values, sameValue)
	b.put(name, old, &node{values: values, children: old.children})
}

// put makes n the node at name instead of old and tells the name above if that
// makes name begin or cease to exist.
func (b *builder) put(name string, old, n *node) {
	for {
		if n.exists() {
			b.names.Set(name, n)
		} else {
			b.names.Delete(name)
		}
		above := name[strings.IndexByte(name, '.')+1:]
		if old.exists() == n.exists() || b.layout.domainOf(above) == nil {
			return
		}
		step := int32(1)
		if old.exists() {
			step = -1
		}
		if old, _ = b.names.Get(above); old == nil {
			old = &node{}
		}
		name, n = above, &node{values: old.values, children: old.children + step}
	}
}

// merge returns the sorted values with the sorted edits applied.
func merge(values []counted, edits []edit) []counted {
	out := make([]counted, 0, len(values)+len(edits))
	for len(values) > 0 || len(edits) > 0 {
		var v counted
		if len(edits) == 0 || len(values) > 0 && compareValues(values[0].value, edits[0].value) <= 0 {
			v, values = values[0], values[1:]
		} else {
			v = counted{value: edits[0].value}
		}
		for len(edits) > 0 && edits[0].value == v.value {
			v.n += edits[0].n
			edits = edits[1:]
		}
		if v.n > 0 {
			out = append(out, v)
		}
	}
	return out
}
