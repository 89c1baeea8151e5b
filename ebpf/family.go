package ebpf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"waggle/lb"
	"waggle/vip"
)

// change is what a frontend is to become; a nil service means nothing.
type change struct {
	frontend vip.Frontend
	service  *lb.Service
}

// entry is what the kernel holds for a frontend.
type entry struct {
	id         uint32
	descriptor descriptor
}

// family is the VIPs of one address family.
type family[K, D comparable] struct {
	format[K, D]
	*services
	vips    *ebpf.Map // frontend to service id
	dests   []D       // memory shared with the programs
	slots   *slab     // of dests
	held    map[vip.Frontend]entry
	scratch []D
}

// keyed is an entry with its key.
type keyed[K any] struct {
	key K
	entry
}

// adopt reads what the kernel holds. Entries that contradict the others can
// only come from outside damage; a descriptor that claims slots of another
// service is made to refuse, and a VIP that claims another's service is
// removed. taken collects the service ids in use.
func (f *family[K, D]) adopt(taken map[uint32]bool) error {
	all, err := f.read()
	if err != nil {
		return err
	}
	f.held = make(map[vip.Frontend]entry, len(all))
	var lists []keyed[K]
	for _, e := range all {
		frontend, ours := f.frontend(e.key)
		if !ours || int(e.id) >= len(f.elems) || taken[e.id] {
			if err := f.vips.Delete(e.key); err != nil {
				return fmt.Errorf("remove damaged %s VIP: %w", f.name, err)
			}
			continue
		}
		taken[e.id] = true
		e.descriptor = f.load(e.id)
		if e.descriptor.slots().end() > uint32(len(f.dests)) {
			f.refuse(&e)
		}
		f.held[frontend] = e.entry
		if e.descriptor.slots().n > 0 {
			lists = append(lists, e)
		}
	}
	slices.SortFunc(lists, func(a, b keyed[K]) int {
		return cmp.Compare(a.descriptor.slots().base, b.descriptor.slots().base)
	})
	used := make([]extent, len(lists))
	for i, e := range lists {
		used[i] = e.descriptor.slots()
	}
	var overlap []int
	f.slots, overlap = newSlab(uint32(len(f.dests)), used)
	for _, i := range overlap {
		e := lists[i]
		f.refuse(&e)
		frontend, _ := f.frontend(e.key)
		f.held[frontend] = e.entry
	}
	return nil
}

func (f *family[K, D]) refuse(e *keyed[K]) {
	e.descriptor = newDescriptor(extent{}, 0)
	f.store(e.id, e.descriptor)
}

func (f *family[K, D]) holds(frontend vip.Frontend) bool {
	_, ok := f.held[frontend]
	return ok
}

func (f *family[K, D]) read() ([]keyed[K], error) {
	size := f.vips.MaxEntries()
	keys, ids := make([]K, size), make([]uint32, size)
	n, err := f.vips.BatchLookup(new(ebpf.MapBatchCursor), keys, ids, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // which says that this was all
		return nil, fmt.Errorf("read %s VIPs: %w", f.name, err)
	}
	out := make([]keyed[K], n)
	for i := range out {
		out[i] = keyed[K]{keys[i], entry{id: ids[i]}}
	}
	return out, nil
}

// update carries out the changes that concern what is held, and returns those
// that remain to be added.
func (f *family[K, D]) update(ctx context.Context, changes []change) (add []change, failed []*lb.ServiceError, err error) {
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		e, ok := f.held[c.frontend]
		switch {
		case c.service == nil && ok:
			err = f.remove(c.frontend, e)
		case c.service == nil:
			err = nil
		case ok:
			err = f.replace(e, c.service)
		default:
			add, err = append(add, c), nil
		}
		if err != nil {
			failed = append(failed, &lb.ServiceError{Frontend: c.frontend, Err: err})
		}
	}
	return add, failed, nil
}

// remove lets go of the VIP before the service it leads to.
func (f *family[K, D]) remove(frontend vip.Frontend, e entry) error {
	if err := f.vips.Delete(f.key(frontend)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	f.release(e)
	delete(f.held, frontend)
	return nil
}

func (f *family[K, D]) release(e entry) {
	f.slots.rest(e.descriptor.slots())
	f.ids.rest(extent{e.id, 1})
	f.removed = true
}

// replace brings a service that the kernel holds to s, unless it is that
// already.
func (f *family[K, D]) replace(e entry, s *lb.Service) error {
	list, flags, err := f.encode(s)
	if err != nil {
		return err
	}
	old := e.descriptor.slots()
	asIs := newDescriptor(extent{old.base, uint32(len(list))}, flags)
	if asIs == e.descriptor && asIs == f.load(e.id) && slices.Equal(f.dests[old.base:old.end()], list) {
		return nil
	}
	if e.descriptor, err = f.write(list, flags); err != nil {
		return err
	}
	f.store(e.id, e.descriptor)
	f.slots.rest(old)
	f.held[s.Frontend] = e
	return nil
}

func (f *family[K, D]) encode(s *lb.Service) ([]D, uint16, error) {
	list, flags, err := f.list(s, f.scratch[:0])
	f.scratch = list
	return list, flags, err
}

// write puts list into slots that nobody reads and returns the descriptor that
// leads there.
func (f *family[K, D]) write(list []D, flags uint16) (descriptor, error) {
	slots, err := f.take(f.slots, uint32(len(list)))
	if err != nil {
		return 0, fmt.Errorf("%s slots: %w", f.name, err)
	}
	copy(f.dests[slots.base:slots.end()], list)
	return newDescriptor(slots, flags), nil
}

// add makes services that the kernel does not hold: first their slots, then
// their descriptor, and the VIP that leads there last.
func (f *family[K, D]) add(ctx context.Context, changes []change) (failed []*lb.ServiceError, err error) {
	if len(changes) == 0 {
		return nil, nil
	}
	// The kernel uses the memory of a removed VIP for the next one at once: a
	// program that has just found the old one would read the new one's service.
	if f.removed {
		if err := f.settle(); err != nil {
			return nil, err
		}
	}
	made := make([]change, 0, len(changes))
	entries := make([]entry, 0, len(changes))
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return nil, f.abandon(entries, err)
		}
		e, err := f.prepare(c.service)
		if err != nil {
			failed = append(failed, &lb.ServiceError{Frontend: c.frontend, Err: err})
			continue
		}
		made, entries = append(made, c), append(entries, e)
	}
	return append(failed, f.publish(made, entries)...), nil
}

func (f *family[K, D]) abandon(entries []entry, err error) error {
	for _, e := range entries {
		f.release(e)
	}
	return err
}

// prepare makes a service that no VIP leads to yet.
func (f *family[K, D]) prepare(s *lb.Service) (entry, error) {
	list, flags, err := f.encode(s)
	if err != nil {
		return entry{}, err
	}
	id, err := f.take(f.ids, 1)
	if err != nil {
		return entry{}, fmt.Errorf("services: %w", err)
	}
	d, err := f.write(list, flags)
	if err != nil {
		f.ids.rest(id)
		return entry{}, err
	}
	f.store(id.base, d)
	return entry{id.base, d}, nil
}

// publish makes VIPs lead to their services, in one system call where it can.
func (f *family[K, D]) publish(made []change, entries []entry) (failed []*lb.ServiceError) {
	keys, ids := make([]K, len(made)), make([]uint32, len(made))
	for i := range made {
		keys[i], ids[i] = f.key(made[i].frontend), entries[i].id
	}
	fresh := f.forget(ids)
	done := 0
	if fresh == nil && len(made) > 1 {
		// Where this stops early, the loop finds out which VIP is at fault.
		done, _ = f.vips.BatchUpdate(keys, ids, nil)
	}
	for i, c := range made {
		err := fresh
		if err == nil && i >= done {
			err = f.vips.Put(keys[i], ids[i])
		}
		if err != nil {
			f.release(entries[i])
			err = fmt.Errorf("%s VIPs: %w", f.name, err)
			failed = append(failed, &lb.ServiceError{Frontend: c.frontend, Err: err})
			continue
		}
		f.held[c.frontend] = entries[i]
	}
	return failed
}
