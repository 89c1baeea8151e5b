package ebpf

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
)

// entry is what the kernel holds for a frontend.
type entry struct {
	id         uint32
	descriptor descriptor
}

// services are the arrays of services, slots and backends, which both address
// families share. The first four are memory shared with the programs.
type services struct {
	descriptors []uint64     // by service id
	elems       []bpfService // by service id
	slots       []uint32     // indices of backends
	backends    []bpfBackend
	counts      *ebpf.Map // what the programs counted, by service id
	allow       *allowances

	freeIDs, freeSlots, freeBackends *slab // which settle together

	unused  []bool       // ids, where the maps were made by us; else nil
	removed bool         // since the last settle, so that ids rest
	wait    func() error // until programs that run have ended
	waits   uint64

	// Reused from call to call.
	list, had, gone, fresh []uint32
}

// forget sets the counters of services to zero, but for those whose ids have
// never been used.
func (s *services) forget(ids []uint32) error {
	if s.unused != nil {
		ids = slices.DeleteFunc(slices.Clone(ids), func(id uint32) bool {
			unused := s.unused[id]
			s.unused[id] = false
			return unused
		})
	}
	if len(ids) == 0 {
		return nil
	}
	zero := make([]bpfCounters, len(ids)*ebpf.MustPossibleCPU())
	if _, err := s.counts.BatchUpdate(ids, zero, nil); err != nil {
		return fmt.Errorf("set counters to zero: %w", err)
	}
	return nil
}

func (s *services) load(id uint32) descriptor {
	return descriptor(atomic.LoadUint64(&s.descriptors[id]))
}

// store makes d what connections to the service follow from now on. As it is
// one word, each connection sees the old list or the new one.
func (s *services) store(id uint32, d descriptor) {
	atomic.StoreUint64(&s.descriptors[id], uint64(d))
}

// listed appends to buf the backends that d leads to, in their order, each once.
// What leads beyond all there is, which is damage, leads nowhere.
func (s *services) listed(d descriptor, buf []uint32) []uint32 {
	where := d.list()
	switch {
	case !s.within(d):
		return buf
	case d.isRow():
		for i := where.base; i < where.end(); i++ {
			buf = append(buf, i)
		}
		return buf
	}
	for _, i := range s.slots[where.base:where.end()] {
		if n := len(buf); n == 0 || buf[n-1] != i {
			buf = append(buf, i)
		}
	}
	return buf
}

// own is listed without backends of others, which only damage brings in there:
// they must not go when this service changes.
func (s *services) own(id uint32, d descriptor, buf []uint32) []uint32 {
	return slices.DeleteFunc(s.listed(d, buf), func(i uint32) bool {
		return int(i) >= len(s.backends) || s.backends[i].Service != id
	})
}

// within reports whether the list of d is within the slots or, of a row, the
// backends.
func (s *services) within(d descriptor) bool {
	list, most := d.list(), len(s.slots)
	if d.isRow() {
		most = len(s.backends)
	}
	return list.base <= list.end() && list.end() <= uint32(most)
}

// replace brings a service that the kernel holds to what it is to be, unless it
// is that already, and returns its new entry.
func (s *services) replace(e entry, to recipe) (entry, error) {
	s.had = s.own(e.id, e.descriptor, s.had[:0])
	if s.same(e, to) {
		return e, nil
	}
	fresh, err := s.fill(e.id, to)
	if err != nil {
		return e, err
	}
	d, err := s.write(to.flags)
	if err == nil {
		if err = s.allow.add(e.id, to.allow); err != nil {
			s.freeSlots.rest(d.slots())
		}
	}
	if err != nil {
		s.drop(fresh)
		return e, err
	}
	s.setAffinity(e.id, to.affinity)
	s.weigh(to)
	s.store(e.id, d)
	s.freeSlots.rest(e.descriptor.slots())
	for _, i := range s.gone {
		s.depart(e.id, i)
	}
	e.descriptor = d
	return e, s.allow.keep(e.id, to.allow)
}

// same reports whether e, whose backends are s.had, is what to says.
func (s *services) same(e entry, to recipe) bool {
	if e.descriptor != s.load(e.id) || e.descriptor.flags() != to.flags || len(s.had) != len(to.shares) {
		return false
	}
	if s.elems[e.id].AffinitySeconds != seconds(to.affinity) || !s.allow.is(e.id, to.allow) {
		return false
	}
	slots, isRow := e.descriptor.list(), e.descriptor.isRow()
	at := slots.base
	for i, sh := range to.shares {
		b := &s.backends[s.had[i]]
		if *packedWords(&b.Addr) != sh.addr || b.Port != sh.port || b.Weight != sh.weight || b.Service != e.id {
			return false
		}
		for range sh.slots {
			if at == slots.end() || !isRow && s.slots[at] != s.had[i] {
				return false
			}
			at++
		}
	}
	return at == slots.end()
}

// fill makes s.list what the service's slots are to hold, keeping the backends
// of s.had that it names; the others are s.gone. It returns those that are new.
func (s *services) fill(id uint32, to recipe) (fresh []uint32, err error) {
	s.list, s.gone, fresh = s.list[:0], s.gone[:0], s.fresh[:0]
	defer func() { s.fresh = fresh }()
	// What cannot be is found out before anything is taken: what is given back
	// rests, and each further service would wait for that.
	if more := len(to.shares) - len(s.had); more > s.freeBackends.room() {
		return nil, fmt.Errorf("backends: no room for %d more (%d are free)", more, s.freeBackends.room())
	}
	if n := to.slots(); n > s.freeSlots.room() {
		return nil, fmt.Errorf("slots: no room for %d more (%d are free)", n, s.freeSlots.room())
	}
	had := s.had
	for _, sh := range to.shares {
		// Both lists are sorted alike. Where damage has made it otherwise,
		// more backends than needed are made anew.
		for len(had) > 0 && s.compare(had[0], sh) < 0 {
			s.gone, had = append(s.gone, had[0]), had[1:]
		}
		var index uint32
		if len(had) > 0 && s.compare(had[0], sh) == 0 && s.backends[had[0]].Service == id {
			index, had = had[0], had[1:]
		} else {
			e, err := s.take(s.freeBackends, 1)
			if err != nil {
				s.drop(fresh)
				return nil, fmt.Errorf("backends: %w", err)
			}
			index = e.base
			fresh = append(fresh, index)
			s.settleIn(id, index, sh)
		}
		for range sh.slots {
			s.list = append(s.list, index)
		}
	}
	s.gone = append(s.gone, had...)
	return fresh, nil
}

// weigh gives backends that the service keeps the weights that are advice to
// LeastActive, now that nothing can fail any more.
func (s *services) weigh(to recipe) {
	if len(s.had) == 0 {
		return
	}
	at := 0
	for _, sh := range to.shares {
		s.backends[s.list[at]].Weight = sh.weight
		at += int(sh.slots)
	}
}

// compare orders a backend and a share by address and port.
func (s *services) compare(index uint32, sh share) int {
	b := &s.backends[index]
	if at := *packedWords(&b.Addr); at != sh.addr {
		return at.compare(sh.addr)
	}
	return cmp.Compare(bits.ReverseBytes16(b.Port), bits.ReverseBytes16(sh.port))
}

// settleIn makes a backend that nobody reads yet. Its serial is the one that
// its predecessor was left with.
func (s *services) settleIn(id, index uint32, sh share) {
	b := &s.backends[index]
	*packedWords(&b.Addr) = sh.addr
	b.Port, b.Weight, b.Service = sh.port, sh.weight, id
	b.Active, b.Connections, b.Failures, b.Latency = 0, 0, 0, 0
}

// depart ends a backend: what sockets and clients remember of it is void.
func (s *services) depart(id, index uint32) {
	b := &s.backends[index]
	atomic.AddUint32(&b.Serial, 1)
	s.elems[id].Departed += atomic.LoadUint64(&b.Connections)
	s.freeBackends.rest(extent{index, 1})
}

// drop gives back backends that no list has named.
func (s *services) drop(fresh []uint32) {
	for _, i := range fresh {
		s.freeBackends.rest(extent{i, 1})
	}
}

// write returns the descriptor that leads to s.list: to the backends themselves
// where they lie in a row, else to slots that nobody reads.
func (s *services) write(flags uint16) (descriptor, error) {
	if inARow(s.list) {
		return newDescriptor(extent{s.list[0], uint32(len(s.list))}, flags|flagRow), nil
	}
	where, err := s.take(s.freeSlots, uint32(len(s.list)))
	if err != nil {
		return 0, fmt.Errorf("slots: %w", err)
	}
	copy(s.slots[where.base:where.end()], s.list)
	return newDescriptor(where, flags), nil
}

func inARow(list []uint32) bool {
	for i, at := range list {
		if at != list[0]+uint32(i) {
			return false
		}
	}
	return len(list) > 0
}

func (s *services) setAffinity(id uint32, d time.Duration) {
	atomic.StoreUint32(&s.elems[id].AffinitySeconds, seconds(d))
}

func seconds(d time.Duration) uint32 { return uint32((d + time.Second - 1) / time.Second) }

// prepare makes a service that no VIP leads to yet.
func (s *services) prepare(to recipe) (entry, error) {
	id, err := s.take(s.freeIDs, 1)
	if err != nil {
		return entry{}, fmt.Errorf("services: %w", err)
	}
	e := entry{id: id.base}
	s.store(e.id, 0)
	s.elems[e.id].Departed = 0
	// Rests of a service that failed may be left.
	if err := s.allow.keep(e.id, nil); err != nil {
		s.freeIDs.rest(id)
		return entry{}, err
	}
	if e, err = s.replace(e, to); err != nil {
		s.freeIDs.rest(id)
		return entry{}, err
	}
	return e, nil
}

// release gives back all of a service that no VIP leads to any more.
func (s *services) release(e entry) {
	s.had = s.own(e.id, e.descriptor, s.had[:0])
	for _, i := range s.had {
		s.depart(e.id, i)
	}
	s.freeSlots.rest(e.descriptor.slots())
	s.freeIDs.rest(extent{e.id, 1})
	_ = s.allow.keep(e.id, nil) // what is left goes when the id is used again
	s.removed = true
}

// settle makes all that rests free, after waiting for the programs that may be
// reading it.
func (s *services) settle() error {
	slabs := []*slab{s.freeIDs, s.freeSlots, s.freeBackends}
	if slices.ContainsFunc(slabs, func(sl *slab) bool { return len(sl.resting) > 0 }) {
		if err := s.wait(); err != nil {
			return err
		}
		s.waits++
	}
	for _, sl := range slabs {
		sl.settle()
	}
	s.removed = false
	return nil
}

// take hands out n elements in a row of one of the slabs.
func (s *services) take(sl *slab, n uint32) (extent, error) {
	if n == 0 {
		return extent{}, nil
	}
	if e, ok := sl.take(n); ok {
		return e, nil
	}
	if err := s.settle(); err != nil {
		return extent{}, err
	}
	if e, ok := sl.take(n); ok {
		return e, nil
	}
	return extent{}, fmt.Errorf("no room for %d more in a row (%d are free)", n, sl.room())
}
