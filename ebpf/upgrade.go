package ebpf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// The layout of schema v1, as far as it differs from ours: lists held addresses
// themselves, of one family each.
type (
	v1Service struct {
		Descriptor uint64
		Spare      [3]uint64
	}
	v1Dest4 struct {
		Addr  uint32
		Port  uint16
		Spare uint16
	}
	v1Dest6 struct {
		Addr  [4]uint32
		Port  uint16
		Spare [3]uint16
	}
)

const v1FlagPeername = 1

// takeOverLocked makes the maps hold what those of the schema before do, where
// there are any. Its programs go on until ours take over their links.
func (d *Dataplane) takeOverLocked() error {
	if d.pins.older == "" {
		return nil
	}
	p, err := readV1(d.pins.older)
	if err == nil {
		err = d.applyLocked(context.Background(), p)
	}
	d.plan, d.compared = nil, false
	if err != nil {
		return fmt.Errorf("take over %s: %w", d.pins.older, err)
	}
	return nil
}

// readV1 reads what the maps of schema v1 hold. What they lack, ours may have:
// an upgrade that was cut short is done again.
func readV1(dir string) (*lb.Plan, error) {
	open := func(name string) (*ebpf.Map, error) {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if err != nil {
			return nil, fmt.Errorf("open map %s: %w", name, err)
		}
		return m, nil
	}
	svc, err := open("svc")
	if errors.Is(err, fs.ErrNotExist) {
		return &lb.Plan{Partial: true}, nil // only forgetOlder was cut short
	}
	if err != nil {
		return nil, err
	}
	defer svc.Close()
	e := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	err4 := readV1Family(newFormat4(), "vip4", "slot4", svc, open, e, func(s v1Dest4) ([4]uint32, uint16) {
		return [4]uint32{2: mappedWord(), 3: s.Addr}, s.Port
	})
	err6 := readV1Family(newFormat6(), "vip6", "slot6", svc, open, e, func(s v1Dest6) ([4]uint32, uint16) { return s.Addr, s.Port })
	return &lb.Plan{Services: e.Groups(), Partial: true}, errors.Join(err4, err6)
}

func readV1Family[K comparable, D any](
	f format[K], vips, slots string, svc *ebpf.Map, open func(string) (*ebpf.Map, error),
	out *model.Editor[vip.Frontend, *lb.Service], dest func(D) ([4]uint32, uint16),
) error {
	vipMap, err := open(vips)
	if err != nil {
		return err
	}
	defer vipMap.Close()
	slotMap, err := open(slots)
	if err != nil {
		return err
	}
	defer slotMap.Close()
	lists, err := mapped[D](slotMap)
	if err != nil {
		return err
	}
	defer func() { _ = unmap(lists) }()
	var key K
	var id uint32
	it := vipMap.Iterate()
	for it.Next(&key, &id) {
		frontend, ours := f.frontend(key)
		var s v1Service
		if err := svc.Lookup(id, &s); err != nil || !ours {
			continue // damage; the first Plan makes it good
		}
		where := descriptor(s.Descriptor)
		to := &lb.Service{Frontend: frontend, Peername: where.flags()&v1FlagPeername != 0}
		for _, slot := range lists[min(int(where.slots().base), len(lists)):min(int(where.slots().end()), len(lists))] {
			a := addrPort(dest(slot))
			if n := len(to.Backends); n > 0 && to.Backends[n-1].Addr == a {
				to.Backends[n-1].Weight++
			} else {
				to.Backends = append(to.Backends, lb.Backend{Addr: a, Weight: 1})
			}
		}
		out.Set(frontend, to)
	}
	return it.Err()
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
