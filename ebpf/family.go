package ebpf

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"waggle/lb"
	"waggle/vip"
)

// change is what a frontend is to become; a nil service means nothing.
type change struct {
	frontend vip.Frontend
	service  *lb.Service
}

// family is the VIPs of one address family.
type family[K comparable] struct {
	format[K]
	*services
	*recipes
	vips *ebpf.Map // frontend to service id
	held map[vip.Frontend]entry
}

// adopt reads which VIPs the kernel holds. Entries that contradict the others
// can only come from outside damage: a VIP that claims another's service, or
// none there is, is removed. taken collects the service ids in use.
func (f *family[K]) adopt(taken map[uint32]bool) error {
	size := f.vips.MaxEntries()
	keys, ids := make([]K, size), make([]uint32, size)
	n, err := f.vips.BatchLookup(new(ebpf.MapBatchCursor), keys, ids, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // which says that this was all
		return fmt.Errorf("read %s VIPs: %w", f.name, err)
	}
	f.removed = f.removed || n < len(f.held) // by somebody else, just now perhaps
	f.held = make(map[vip.Frontend]entry, n)
	for i := range n {
		frontend, ours := f.frontend(keys[i])
		if !ours || int(ids[i]) >= len(f.elems) || taken[ids[i]] {
			if err := f.vips.Delete(keys[i]); err != nil {
				return fmt.Errorf("remove damaged %s VIP: %w", f.name, err)
			}
			f.removed = true
			continue
		}
		taken[ids[i]] = true
		f.held[frontend] = entry{ids[i], f.load(ids[i])}
	}
	return nil
}

func (f *family[K]) holds(frontend vip.Frontend) bool {
	_, ok := f.held[frontend]
	return ok
}

// update carries out the changes that concern what is held, and returns those
// that remain to be added.
func (f *family[K]) update(ctx context.Context, changes []change) (add []change, failed []*lb.ServiceError, err error) {
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
			err = f.change(e, c.service)
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
func (f *family[K]) remove(frontend vip.Frontend, e entry) error {
	if err := f.vips.Delete(f.key(frontend)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	f.release(e)
	delete(f.held, frontend)
	return nil
}

func (f *family[K]) change(e entry, s *lb.Service) error {
	to, err := f.recipe(s)
	if err != nil {
		return err
	}
	e, err = f.replace(e, to)
	f.held[s.Frontend] = e
	return err
}

// add makes services that the kernel does not hold: first their slots, then
// their descriptor, and the VIP that leads there last.
func (f *family[K]) add(ctx context.Context, changes []change) (failed []*lb.ServiceError, err error) {
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
		to, err := f.recipe(c.service)
		var e entry
		if err == nil {
			e, err = f.prepare(to)
		}
		if err != nil {
			failed = append(failed, &lb.ServiceError{Frontend: c.frontend, Err: err})
			continue
		}
		made, entries = append(made, c), append(entries, e)
	}
	return append(failed, f.publish(made, entries)...), nil
}

func (f *family[K]) abandon(entries []entry, err error) error {
	for _, e := range entries {
		f.release(e)
	}
	return err
}

// publish makes VIPs lead to their services, in one system call where it can.
func (f *family[K]) publish(made []change, entries []entry) (failed []*lb.ServiceError) {
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
