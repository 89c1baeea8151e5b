package mesos

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"waggle/model"
)

// TestTaskSetIsAMap adds and removes at random and compares with a map.
func TestTaskSetIsAMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	set, want := newTaskSet(), map[model.TaskKey]*record{}
	for n := range 50_000 {
		// Grows to some thousand, then shrinks, several times.
		key := model.TaskKey{FrameworkID: fmt.Sprint(rnd.IntN(2)), ID: fmt.Sprint(rnd.IntN(4000))}
		if got := set.get(key); got != want[key] {
			t.Fatalf("step %d: %v is %p, want %p", n, key, got, want[key])
		}
		if removing := n/10_000%2 == 1; removing || rnd.IntN(4) == 0 {
			set.remove(key)
			delete(want, key)
		} else if want[key] == nil {
			r := &record{task: &model.Task{Key: key}}
			set.add(r)
			want[key] = r
		}
	}
	if set.len() != len(want) {
		t.Errorf("%d records, want %d", set.len(), len(want))
	}
	for _, key := range slices.Collect(maps.Keys(want)) {
		if set.get(key) != want[key] {
			t.Fatalf("%v is lost", key)
		}
		set.remove(key)
		if set.get(key) != nil {
			t.Fatalf("%v is still there", key)
		}
	}
	if set.len() != 0 || slices.ContainsFunc(set.slots, func(r *record) bool { return r != nil }) {
		t.Error("something is left")
	}
}
