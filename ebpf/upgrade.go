package ebpf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// The layout of schema v2, as far as it differs from ours: descriptors lay with
// the rest of a service, slots took eight octets each and backends 48.
type (
	v2Service struct {
		Descriptor      uint64
		Departed        uint64
		AffinitySeconds uint32
		Spare           [3]uint32
	}
	v2Slot struct {
		Backend uint32
		Spare   uint32
	}
	v2Backend struct {
		Addr                    [4]uint32
		Port, Weight            uint16
		Service, Serial, Active uint32
		Connections             uint64
		Failures, Latency       uint32
	}
)

// v2 is what the maps of that schema hold.
type v2 struct {
	services []v2Service
	slots    []v2Slot
	backends []v2Backend
	allow    map[uint32]map[bpfAllowKey]bool // by service
	maps     []*ebpf.Map
}

// takeOverLocked makes the maps hold what those of the schema before do, where
// there are any. Its programs go on until ours take over their links.
func (d *Dataplane) takeOverLocked() error {
	if d.pins.older == "" {
		return nil
	}
	err := d.takeOver(d.pins.older)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // which says that only forgetOlder was cut short
		return fmt.Errorf("take over %s: %w", d.pins.older, err)
	}
	return nil
}

func (d *Dataplane) takeOver(dir string) error {
	old, err := openV2(dir)
	defer old.close()
	if err != nil {
		return err
	}
	if err := d.services.allow.set(every, slices.Collect(maps.Keys(old.allow[every]))); err != nil {
		return err
	}
	return errors.Join(inheritVIPs(d.v4, old, dir, bpfMapVip4), inheritVIPs(d.v6, old, dir, bpfMapVip6))
}

// openV2 opens the maps in dir. The caller closes what it returns, error or not.
func openV2(dir string) (*v2, error) {
	o := &v2{}
	var err error
	if o.services, err = mappedPin[v2Service](o, dir, bpfMapServices); err != nil {
		return o, err
	}
	if o.slots, err = mappedPin[v2Slot](o, dir, bpfMapSlots); err != nil {
		return o, err
	}
	if o.backends, err = mappedPin[v2Backend](o, dir, bpfMapBackends); err != nil {
		return o, err
	}
	m, err := o.open(dir, bpfMapAllow)
	if err != nil {
		return o, err
	}
	allow := allowances{m: m}
	err = allow.adopt()
	o.allow = allow.held
	return o, err
}

func mappedPin[T any](o *v2, dir, name string) ([]T, error) {
	m, err := o.open(dir, name)
	if err != nil {
		return nil, err
	}
	return mapped[T](m)
}

func (o *v2) open(dir, name string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
	if err != nil {
		return nil, fmt.Errorf("open map %s: %w", name, err)
	}
	o.maps = append(o.maps, m)
	return m, nil
}

func (o *v2) close() {
	_, _, _ = unmap(o.services), unmap(o.slots), unmap(o.backends)
	for _, m := range o.maps {
		_ = m.Close()
	}
}

// inheritVIPs makes f hold what the map of VIPs in dir leads to. What it lacks,
// f may have: an upgrade that was cut short is done again.
func inheritVIPs[K comparable](f *family[K], old *v2, dir, name string) error {
	m, err := old.open(dir, name)
	if err != nil {
		return err
	}
	var key K
	var id uint32
	var made []change
	var entries []entry
	it := m.Iterate()
	for it.Next(&key, &id) {
		frontend, ours := f.frontend(key)
		if !ours || int(id) >= len(old.services) {
			continue // damage; the first Plan makes it good
		}
		to := old.recipe(id)
		if e, ok := f.held[frontend]; ok {
			f.held[frontend], err = f.replace(e, to)
		} else {
			e, err = f.prepare(to)
			made, entries = append(made, change{frontend: frontend}), append(entries, e)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", frontend, err)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read %s VIPs: %w", f.name, err)
	}
	for _, failed := range f.publish(made, entries) {
		err = errors.Join(err, failed)
	}
	return err
}

// recipe reads a service.
func (o *v2) recipe(id uint32) recipe {
	s := &o.services[id]
	d := descriptor(s.Descriptor)
	to := recipe{flags: d.flags(), affinity: time.Duration(s.AffinitySeconds) * time.Second, allow: slices.Collect(maps.Keys(o.allow[id]))}
	slots, last := d.list(), uint32(0)
	for _, slot := range o.slots[min(int(slots.base), len(o.slots)):min(int(slots.end()), len(o.slots))] {
		if int(slot.Backend) >= len(o.backends) {
			continue
		}
		if n := len(to.shares); n > 0 && slot.Backend == last {
			to.shares[n-1].slots++
			continue
		}
		b := &o.backends[slot.Backend]
		to.shares, last = append(to.shares, share{*packedWords(&b.Addr), b.Port, b.Weight, 1}), slot.Backend
	}
	return to
}

// forgetOlder removes the pins of the schema before, whose links are ours now.
func (p *pins) forgetOlder() error {
	if p.older == "" {
		return nil
	}
	entries, err := os.ReadDir(p.older)
	if err != nil {
		return fmt.Errorf("read pin folder: %w", err)
	}
	// Links last: an upgrade cut short here must find the maps gone.
	for _, links := range []bool{false, true} {
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), linkPrefix) == links {
				err = errors.Join(err, os.Remove(filepath.Join(p.older, e.Name())))
			}
		}
	}
	if err := errors.Join(err, os.Remove(p.older)); err != nil {
		return fmt.Errorf("remove pins of an older layout: %w", err)
	}
	p.older = ""
	return nil
}
