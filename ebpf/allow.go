package ebpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// every is the number of no service: EVERY of bpf/maps.h.
const every = 1<<32 - 1

// allowances is the map of who may connect to services that are not for
// everyone, and what it holds.
type allowances struct {
	m    *ebpf.Map
	held map[uint32]map[bpfAllowKey]bool // by service
	n    int
}

// adopt reads what the map holds.
func (a *allowances) adopt() error {
	a.held, a.n = map[uint32]map[bpfAllowKey]bool{}, 0
	var key bpfAllowKey
	var value uint8
	it := a.m.Iterate()
	for it.Next(&key, &value) {
		a.note(key)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read who may connect: %w", err)
	}
	return nil
}

func (a *allowances) note(key bpfAllowKey) {
	if a.held[key.Service] == nil {
		a.held[key.Service] = map[bpfAllowKey]bool{}
	}
	a.held[key.Service][key] = true
	a.n++
}

// is reports whether exactly these clients may connect to the service.
func (a *allowances) is(id uint32, clients []bpfAllowKey) bool {
	have := a.held[id]
	if len(have) != len(clients) {
		return false
	}
	for _, key := range clients {
		key.Service = id
		if !have[key] {
			return false
		}
	}
	return true
}

// add lets clients connect besides those that may already: all of them or none.
func (a *allowances) add(id uint32, clients []bpfAllowKey) error {
	var added []bpfAllowKey
	for _, key := range clients {
		key.Service = id
		if a.held[id][key] {
			continue
		}
		if err := a.m.Put(key, uint8(1)); err != nil {
			for _, k := range added {
				err = errors.Join(err, a.remove(k))
			}
			return fmt.Errorf("clients that may connect: %w", err)
		}
		a.note(key)
		added = append(added, key)
	}
	return nil
}

// keep lets no others connect.
func (a *allowances) keep(id uint32, clients []bpfAllowKey) error {
	if len(a.held[id]) == 0 {
		return nil
	}
	stay := make(map[bpfAllowKey]bool, len(clients))
	for _, key := range clients {
		key.Service = id
		stay[key] = true
	}
	for key := range a.held[id] {
		if stay[key] {
			continue
		}
		if err := a.remove(key); err != nil {
			return err
		}
	}
	return nil
}

func (a *allowances) remove(key bpfAllowKey) error {
	if err := a.m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("clients that may no longer connect: %w", err)
	}
	delete(a.held[key.Service], key)
	a.n--
	if len(a.held[key.Service]) == 0 {
		delete(a.held, key.Service)
	}
	return nil
}

// set is add and keep.
func (a *allowances) set(id uint32, clients []bpfAllowKey) error {
	return errors.Join(a.add(id, clients), a.keep(id, clients))
}
