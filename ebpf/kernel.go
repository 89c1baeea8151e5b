package ebpf

import (
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// mapped returns the elements of an array map as memory shared with the
// programs. The element's size must be a multiple of 8, as the kernel pads
// others. The caller calls unmap when nobody uses them any more.
func mapped[T any](m *ebpf.Map) ([]T, error) {
	size := int(m.MaxEntries()) * int(m.ValueSize())
	b, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map memory of %s: %w", m, err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), size/int(unsafe.Sizeof(*new(T)))), nil
}

func unmap[T any](elems []T) error {
	if len(elems) == 0 {
		return nil
	}
	size := len(elems) * int(unsafe.Sizeof(elems[0]))
	return unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(&elems[0])), size))
}

// rcu waits for programs in the kernel. There is no system call for that, but
// the kernel promises that an update of a map of maps returns only when every
// program that may have seen the old value has ended (since 4.19; about 10 ms).
type rcu struct {
	outer, inner *ebpf.Map
}

func newRCU() (*rcu, error) {
	inner, err := ebpf.NewMap(&ebpf.MapSpec{Name: "rcu_inner", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, err
	}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "rcu_outer", Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1,
		InnerMap: &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1},
	})
	if err != nil {
		inner.Close()
		return nil, err
	}
	return &rcu{outer, inner}, nil
}

// wait returns when every program that was running when it was called has
// ended.
func (r *rcu) wait() error {
	if err := r.outer.Put(uint32(0), r.inner); err != nil {
		return fmt.Errorf("wait for running programs: %w", err)
	}
	return nil
}

// Close frees the maps; nobody may wait any more.
func (r *rcu) Close() error {
	r.inner.Close()
	return r.outer.Close()
}

// descriptor is the word that says where the slots or backends of a service are;
// its bits are explained at struct service in bpf/maps.h.
type descriptor uint64

func newDescriptor(list extent, flags uint16) descriptor {
	return descriptor(list.base) | descriptor(list.n)<<32 | descriptor(flags)<<48
}

func (d descriptor) list() extent { return extent{uint32(d), uint32(d >> 32 & 0xffff)} }

func (d descriptor) isRow() bool { return d>>48&flagRow != 0 }

// slots returns where the slots are, none of a row.
func (d descriptor) slots() extent {
	if d.isRow() {
		return extent{}
	}
	return d.list()
}

// flags returns what the service wants.
func (d descriptor) flags() uint16 { return uint16(d>>48) &^ flagRow }
