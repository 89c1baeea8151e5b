package mesos

import (
	"hash/maphash"

	"waggle/model"
)

// taskSet finds records by the key of their task, which it does not hold once
// more as a map would: with 100 000 tasks that is 8 MB of 60. It is a table with
// linear probing. The zero value is not ready for use; see newTaskSet.
type taskSet struct {
	seed  maphash.Seed
	slots []*record // a power of two, at most three quarters full
	size  int
}

func newTaskSet() *taskSet {
	return &taskSet{seed: maphash.MakeSeed(), slots: make([]*record, 8)}
}

// find returns the slot of key, or the free one where it would be.
func (s *taskSet) find(key model.TaskKey) int {
	i := s.home(key)
	for s.slots[i] != nil && s.slots[i].task.Key != key {
		i = s.next(i)
	}
	return i
}

func (s *taskSet) home(key model.TaskKey) int {
	return int(maphash.Comparable(s.seed, key) & uint64(len(s.slots)-1))
}

func (s *taskSet) next(i int) int { return (i + 1) & (len(s.slots) - 1) }

// len returns how many records there are.
func (s *taskSet) len() int { return s.size }

// get returns the record of key, or nil.
func (s *taskSet) get(key model.TaskKey) *record { return s.slots[s.find(key)] }

// add adds r, whose key must not be there.
func (s *taskSet) add(r *record) {
	if 4*(s.size+1) > 3*len(s.slots) {
		old := s.slots
		s.slots = make([]*record, 2*len(old))
		for _, r := range old {
			if r != nil {
				s.slots[s.find(r.task.Key)] = r
			}
		}
	}
	s.slots[s.find(r.task.Key)] = r
	s.size++
}

// remove removes the record of key, if there is one. Those behind it that could
// not be found across the gap move up.
func (s *taskSet) remove(key model.TaskKey) {
	gap := s.find(key)
	if s.slots[gap] == nil {
		return
	}
	s.size--
	for i := s.next(gap); s.slots[i] != nil; i = s.next(i) {
		home := s.home(s.slots[i].task.Key)
		// Cyclically, is home within (gap, i]? Then it is found from there.
		if gap < i && gap < home && home <= i || gap > i && (gap < home || home <= i) {
			continue
		}
		s.slots[gap] = s.slots[i]
		gap = i
	}
	s.slots[gap] = nil
}
