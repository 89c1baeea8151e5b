package ebpf

import (
	"cmp"
	"slices"
)

// extent is a run of elements of an array.
type extent struct{ base, n uint32 }

func (e extent) end() uint32 { return e.base + e.n }

// slab hands out extents of an array that programs in the kernel may be
// reading. It hands them out in one sweep from the start to the end; what is
// given back meanwhile rests, and can be had again only after settle, which the
// caller calls once no program can be reading it any more.
type slab struct {
	free    []extent // sorted by base; those before next are spent in this sweep
	next    int
	resting []extent
	left    int // how many elements are not in use, resting ones included
}

// newSlab returns a slab of size elements of which used are taken. used must be
// sorted by base and within size; the result's second part are the positions in
// used of extents that overlap one before them, which are not taken.
func newSlab(size uint32, used []extent) (*slab, []int) {
	s := &slab{}
	var overlap []int
	end := uint32(0)
	for i, e := range used {
		if e.base < end {
			overlap = append(overlap, i)
			continue
		}
		s.add(extent{end, e.base - end})
		end = e.end()
	}
	s.add(extent{end, size - end})
	return s, overlap
}

func (s *slab) add(e extent) {
	if e.n > 0 {
		s.free = append(s.free, e)
		s.left += int(e.n)
	}
}

// take hands out n elements, at least one, or reports that the sweep has come
// to the end.
func (s *slab) take(n uint32) (extent, bool) {
	for ; s.next < len(s.free); s.next++ {
		if e := &s.free[s.next]; e.n >= n {
			out := extent{e.base, n}
			e.base, e.n = e.base+n, e.n-n
			s.left -= int(n)
			return out, true
		}
	}
	return extent{}, false
}

// rest gives e back. An empty extent is no matter.
func (s *slab) rest(e extent) {
	if e.n > 0 {
		s.resting = append(s.resting, e)
		s.left += int(e.n)
	}
}

// settle makes what rests free, and starts a new sweep.
func (s *slab) settle() {
	s.next = 0
	if len(s.resting) == 0 {
		return
	}
	all := append(s.free, s.resting...)
	slices.SortFunc(all, func(a, b extent) int { return cmp.Compare(a.base, b.base) })
	s.free, s.resting = all[:0], s.resting[:0]
	for _, e := range all {
		if last := len(s.free) - 1; last >= 0 && s.free[last].end() == e.base {
			s.free[last].n += e.n
		} else if e.n > 0 {
			s.free = append(s.free, e)
		}
	}
}

// room returns how many elements are not in use, resting ones included.
func (s *slab) room() int { return s.left }
