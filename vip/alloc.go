package vip

import (
	"net/netip"

	"waggle/model"
)

// layout says which address of a pool each name has. It depends on the set of
// names alone, so all nodes agree whatever they learned first: a name takes the
// first address from its home on that no lower name takes. It is immutable.
type layout struct {
	names   model.Groups[string, netip.Addr]
	slots   model.Groups[netip.Addr, string] // names turned round
	waiting model.Groups[string, struct{}]   // names that found all addresses taken
}

// allocator turns one layout into another.
type allocator struct {
	pool    pool
	names   *model.Editor[string, netip.Addr]
	slots   *model.Editor[netip.Addr, string]
	waiting *model.Editor[string, struct{}]
	// touch is told each name and address whose part in the layout may have
	// changed.
	touch func(target)
}

func (l layout) edit(p pool, touch func(target)) *allocator {
	return &allocator{pool: p, names: l.names.Edit(), slots: l.slots.Edit(), waiting: l.waiting.Edit(), touch: touch}
}

func (a *allocator) layout() layout {
	return layout{names: a.names.Groups(), slots: a.slots.Groups(), waiting: a.waiting.Groups()}
}

// want makes name part of the layout, or leaves it out.
func (a *allocator) want(name string, wanted bool) {
	_, placed := a.names.Get(name)
	_, waits := a.waiting.Get(name)
	switch {
	case wanted && !placed && !waits:
		a.insert(name)
	case !wanted && placed:
		a.remove(name)
	case !wanted && waits:
		a.waiting.Delete(name)
		a.touch(target{name: name})
	}
}

// insert gives name an address. Whoever has to make way for it goes on from
// there, and so on: every name keeps trying the addresses from its home on, in
// order, and leaves one only to a lower name. Such a layout is unique: the
// lowest name has its home in it, the second lowest the first address left to
// it, and so forth.
func (a *allocator) insert(name string) {
	home := a.pool.home(name)
	for slot := home; ; {
		holder, taken := a.slots.Get(slot)
		if !taken || name < holder {
			a.place(name, slot)
			if !taken {
				return
			}
			a.names.Delete(holder)
			name, home = holder, a.pool.home(holder)
		}
		if slot = a.pool.next(slot); slot == home {
			a.waiting.Set(name, struct{}{})
			a.touch(target{name: name})
			return
		}
	}
}

// remove takes name out. Only names between it and the next free address can
// have been kept from a better one by it, so those are laid out again.
func (a *allocator) remove(name string) {
	hole, _ := a.names.Get(name)
	a.free(name, hole)
	var run []string
	for slot := a.pool.next(hole); slot != hole; slot = a.pool.next(slot) {
		n, taken := a.slots.Get(slot)
		if !taken {
			break
		}
		a.free(n, slot)
		run = append(run, n)
	}
	for _, n := range run {
		a.insert(n)
	}
	if n, ok := a.lowestWaiting(); ok {
		a.waiting.Delete(n)
		a.insert(n)
	}
}

func (a *allocator) lowestWaiting() (lowest string, ok bool) {
	if a.waiting.Len() == 0 {
		return "", false
	}
	for n := range a.waiting.Groups().All() {
		if !ok || n < lowest {
			lowest, ok = n, true
		}
	}
	return lowest, ok
}

func (a *allocator) place(name string, slot netip.Addr) {
	a.names.Set(name, slot)
	a.slots.Set(slot, name)
	a.touch(target{name: name})
	a.touch(target{addr: slot})
}

func (a *allocator) free(name string, slot netip.Addr) {
	a.names.Delete(name)
	a.slots.Delete(slot)
	a.touch(target{name: name})
	a.touch(target{addr: slot})
}
