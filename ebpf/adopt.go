package ebpf

import (
	"cmp"
	"errors"
	"slices"
)

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
	still := s.still()
	s.freeIDs, _ = newSlab(uint32(len(s.elems)), ids)
	damaged := s.adoptLists(taken)
	for _, id := range damaged {
		d.v4.forgetList(id)
		d.v6.forgetList(id)
	}
	if err := s.allow.adopt(); err != nil {
		return err
	}
	s.removed = false
	// What rested is free now, though programs may still be reading it.
	if !still || len(damaged) > 0 {
		if err := s.wait(); err != nil {
			return err
		}
	}
	d.adopted = true
	return nil
}

// still reports whether it is known that no program reads what is free.
func (s *services) still() bool {
	for _, sl := range []*slab{s.freeIDs, s.freeSlots, s.freeBackends} {
		if sl == nil || len(sl.resting) > 0 {
			return false
		}
	}
	return !s.removed
}

// forgetList notes that the service was made to refuse.
func (f *family[K]) forgetList(id uint32) {
	for frontend, e := range f.held {
		if e.id == id {
			f.held[frontend] = entry{id, f.load(id)}
		}
	}
}

// adoptLists finds out which slots and backends the services in use have. A
// list beyond the slots, one that claims another's slots or one that names
// backends that are not the service's can only be damage: the service is made
// to refuse, and its id is in the result.
func (s *services) adoptLists(ids map[uint32]bool) (damaged []uint32) {
	type list struct {
		id uint32
		extent
	}
	var lists []list
	refuse := func(id uint32) {
		s.store(id, 0)
		damaged = append(damaged, id)
	}
	used := make([]bool, len(s.backends))
	for id := range ids {
		switch d := s.load(id); {
		case !s.within(d) || d.isRow() && !s.claim(id, used):
			refuse(id)
		case !d.isRow() && d.list().n > 0:
			lists = append(lists, list{id, d.list()})
		}
	}
	slices.SortFunc(lists, func(a, b list) int { return cmp.Or(cmp.Compare(a.base, b.base), cmp.Compare(a.id, b.id)) })
	var slots []extent
	end := uint32(0)
	for _, l := range lists {
		if l.base < end || !s.claim(l.id, used) {
			refuse(l.id)
			continue
		}
		end = l.end()
		slots = append(slots, l.extent)
	}
	s.freeSlots, _ = newSlab(uint32(len(s.slots)), slots)
	var backends []extent
	for i, u := range used {
		if n := len(backends); u && n > 0 && backends[n-1].end() == uint32(i) {
			backends[n-1].n++
		} else if u {
			backends = append(backends, extent{uint32(i), 1})
		}
	}
	s.freeBackends, _ = newSlab(uint32(len(s.backends)), backends)
	return damaged
}

// claim notes in used the backends of a service, or reports that they are not
// its own.
func (s *services) claim(id uint32, used []bool) bool {
	s.had = s.listed(s.load(id), s.had[:0])
	for at, i := range s.had {
		if int(i) < len(used) && !used[i] && s.backends[i].Service == id {
			used[i] = true
			continue
		}
		for _, mine := range s.had[:at] {
			used[mine] = false
		}
		return false
	}
	return true
}
