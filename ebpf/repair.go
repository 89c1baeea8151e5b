package ebpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"

	"waggle/lb"
)

// mendLocked attaches programs again that somebody has detached, and pins again
// what is no longer pinned.
func (d *Dataplane) mendLocked() error {
	id, err := cgroupID(d.cgroup)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.pins.dir, 0o700); err != nil {
		return fmt.Errorf("make pin folder: %w", err)
	}
	for _, h := range hooks(true) {
		l, program := d.objs.links[h.name], d.objs.programs[h.name]
		if l == nil {
			continue
		}
		pin := d.pins.linkPath(h.name)
		if attachedTo(l, id) && exists(pin) && proveEffective(h, program, d.cgroup) == nil {
			continue
		}
		if err := d.attachAgain(h, l, program, attachedTo(l, id)); err != nil {
			return err
		}
		d.repairs++
		d.log.Warn("somebody detached or unpinned a program; it is back", zap.String("program", h.name))
	}
	for name, m := range d.objs.pinnedMaps() {
		pin := filepath.Join(d.pins.dir, name)
		if exists(pin) {
			continue
		}
		if err := repin(m, pin); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
		d.repairs++
		d.log.Warn("somebody removed the pin of a map; it is back", zap.String("map", name))
	}
	return nil
}

func (d *Dataplane) attachAgain(h hook, l link.Link, program *ebpf.Program, attached bool) error {
	pin := d.pins.linkPath(h.name)
	if attached && !exists(pin) {
		if err := repin(l, pin); err != nil {
			return explain("pin link "+pin, err)
		}
		return nil
	}
	if err := os.Remove(pin); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove link %s: %w", pin, err)
	}
	fresh, err := d.pins.attach(h, program, d.cgroup)
	if fresh != nil {
		d.objs.links[h.name] = fresh
		err = errors.Join(err, l.Close())
	}
	if err != nil {
		return err
	}
	return proveEffective(h, program, d.cgroup)
}

// pinner is a map or a link, whose library remembers where it is pinned and
// would rename what is no longer there.
type pinner interface {
	Pin(string) error
	Unpin() error
}

func repin(p pinner, path string) error {
	if err := p.Unpin(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return p.Pin(path)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// pinnedMaps returns the maps by the names they are pinned by.
func (o *objects) pinnedMaps() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		bpfMapVip4: o.Vip4, bpfMapVip6: o.Vip6, bpfMapDescriptors: o.Descriptors, bpfMapServices: o.Services, bpfMapSlots: o.Slots,
		bpfMapBackends: o.Backends, bpfMapCounts: o.Counts, bpfMapClients: o.Clients, bpfMapAllow: o.Allow,
		bpfMapTcpPeer: o.TcpPeer, bpfMapUdpPeers: o.UdpPeers, bpfMapEvents: o.Events,
	}
}

// removeLink detaches a program of an earlier run, if there is one.
func (p *pins) removeLink(name string) error {
	path := p.linkPath(name)
	if !exists(path) {
		return nil
	}
	return errors.Join(detach(path), os.Remove(path))
}

// refreshLocked resolves anew who may connect to services not for everyone.
func (d *Dataplane) refreshLocked() error {
	if len(d.restricted) == 0 {
		return nil
	}
	d.recipes.names.forget()
	var err error
	for f, s := range d.restricted {
		if id, ok := d.serviceLocked(f); ok {
			err = errors.Join(err, d.services.allow.set(id, d.recipes.names.resolve(s.Allow)))
		}
	}
	return err
}

// excludeLocked lets go of the clients that p excludes, before any service asks who
// they are. Where they are others than before, every service is looked at again.
func (d *Dataplane) excludeLocked(p *lb.Plan) error {
	if d.compared && slices.Equal(d.excluded, p.Exclude) {
		return nil
	}
	d.compared = false
	d.recipes.exclude = len(p.Exclude) > 0
	if err := d.services.allow.set(every, d.recipes.names.resolve(p.Exclude)); err != nil {
		d.excluded = nil
		return fmt.Errorf("leave clients alone: %w", err)
	}
	d.excluded = p.Exclude
	return nil
}
