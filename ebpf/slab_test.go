package ebpf

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var compareExtents = cmp.AllowUnexported(extent{})

func TestASlabStartsWithTheGapsBetweenWhatIsUsed(t *testing.T) {
	for name, tc := range map[string]struct {
		used    []extent
		free    []extent
		overlap []int
	}{
		"nothing used":         {nil, []extent{{0, 10}}, nil},
		"all used":             {[]extent{{0, 4}, {4, 6}}, nil, nil},
		"gaps":                 {[]extent{{1, 2}, {5, 1}}, []extent{{0, 1}, {3, 2}, {6, 4}}, nil},
		"overlap with another": {[]extent{{0, 4}, {3, 4}}, []extent{{4, 6}}, []int{1}},
		"twice the same":       {[]extent{{2, 2}, {2, 2}}, []extent{{0, 2}, {4, 6}}, []int{1}},
		"inside another":       {[]extent{{0, 8}, {2, 2}, {8, 1}}, []extent{{9, 1}}, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			s, overlap := newSlab(10, tc.used)
			if diff := cmp.Diff(tc.free, s.free, compareExtents); diff != "" {
				t.Errorf("free (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.overlap, overlap); diff != "" {
				t.Errorf("overlap (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatRestsIsNotHandedOutBeforeItHasSettled(t *testing.T) {
	s, _ := newSlab(4, nil)
	e, ok := s.take(4)
	if !ok || e != (extent{0, 4}) {
		t.Fatalf("take = %v, %v", e, ok)
	}
	s.rest(extent{0, 2})
	if e, ok := s.take(1); ok {
		t.Errorf("took %v, which rests", e)
	}
	s.settle()
	if e, ok := s.take(3); ok {
		t.Errorf("took %v of two", e)
	}
	s.rest(extent{2, 2})
	s.settle()
	if e, ok := s.take(4); !ok || e != (extent{0, 4}) {
		t.Errorf("take after both halves settled = %v, %v", e, ok)
	}
}

func TestAWalkOverASlabNeverHandsOutTwice(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			const size = 300
			s, _ := newSlab(size, nil)
			var busy [size]bool // taken or resting
			var taken, resting []extent
			for range 2000 {
				switch r.IntN(8) {
				case 0:
					s.settle()
					for _, e := range resting {
						mark(t, busy[:], e, false)
					}
					resting = nil
				case 1, 2, 3:
					if len(taken) > 0 {
						i := r.IntN(len(taken))
						s.rest(taken[i])
						resting = append(resting, taken[i])
						taken = append(taken[:i], taken[i+1:]...)
					}
				default:
					if e, ok := s.take(uint32(1 + r.IntN(20))); ok {
						mark(t, busy[:], e, true)
						taken = append(taken, e)
					}
				}
				used := 0
				for _, e := range taken {
					used += int(e.n)
				}
				if s.room() != size-used {
					t.Fatalf("room %d, want %d", s.room(), size-used)
				}
			}
			for _, e := range taken {
				s.rest(e)
			}
			s.settle()
			if diff := cmp.Diff([]extent{{0, size}}, s.free, compareExtents); diff != "" {
				t.Errorf("free at the end (-want +got):\n%s", diff)
			}
		})
	}
}

func mark(t *testing.T, busy []bool, e extent, to bool) {
	t.Helper()
	for i := e.base; i < e.end(); i++ {
		if busy[i] == to {
			t.Fatalf("element %d of %v is already %v", i, e, to)
		}
		busy[i] = to
	}
}
