package model

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func collect[K, V comparable](g Groups[K, V]) map[K]V {
	out := map[K]V{}
	for k, v := range g.All() {
		out[k] = v
	}
	return out
}

// naiveDiff is Diff for people who have time.
func naiveDiff(old, new map[string]int) map[string]Change[string, int] {
	out := map[string]Change[string, int]{}
	for k, v := range new {
		if was, ok := old[k]; !ok || was != v {
			out[k] = Change[string, int]{Key: k, Old: was, New: v, InOld: ok, InNew: true}
		}
	}
	for k, was := range old {
		if _, ok := new[k]; !ok {
			out[k] = Change[string, int]{Key: k, Old: was, InOld: true}
		}
	}
	return out
}

// sameAsMap fails unless g holds what want holds, by every way of reading it.
func sameAsMap(t *testing.T, g Groups[string, int], want map[string]int) {
	t.Helper()
	if d := cmp.Diff(want, collect(g)); d != "" {
		t.Fatalf("All (-want +got):\n%s", d)
	}
	if g.Len() != len(want) {
		t.Fatalf("Len is %d, want %d", g.Len(), len(want))
	}
	for k, v := range want {
		if got, ok := g.Get(k); !ok || got != v {
			t.Fatalf("Get(%q) is %d, %v; want %d", k, got, ok, v)
		}
	}
}

func diffOf(t *testing.T, old, new Groups[string, int]) map[string]Change[string, int] {
	t.Helper()
	out := map[string]Change[string, int]{}
	for c := range Diff(old, new) {
		if _, twice := out[c.Key]; twice {
			t.Fatalf("Diff yields %q twice", c.Key)
		}
		out[c.Key] = c
	}
	return out
}

func TestGroupsZeroValueIsEmpty(t *testing.T) {
	var g Groups[string, int]
	sameAsMap(t, g, map[string]int{})
	if _, ok := g.Get("x"); ok {
		t.Error("Get finds something in the zero value")
	}
	e := g.Edit()
	e.Delete("x")
	sameAsMap(t, e.Groups(), map[string]int{})
	if d := diffOf(t, g, g); len(d) != 0 {
		t.Errorf("Diff of nothing and nothing: %v", d)
	}
}

// TestGroupsRandomWalk edits a map for a long time, through every growth of its
// table, and holds all versions ever taken against plain maps: what a version
// says never changes, and the difference of any two is that of their maps.
func TestGroupsRandomWalk(t *testing.T) {
	type version struct {
		g    Groups[string, int]
		want map[string]int
	}
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		keys := 40 << seed // at most 1280: past several growths
		var all []version
		now := map[string]int{}
		e := Groups[string, int]{}.Edit()
		for range 30 {
			for range rnd.IntN(keys / 4) {
				k := fmt.Sprint("k", rnd.IntN(keys))
				if rnd.IntN(3) == 0 {
					e.Delete(k)
					delete(now, k)
				} else {
					v := rnd.IntN(3)
					e.Set(k, v)
					now[k] = v
				}
				want, has := now[k]
				if got, ok := e.Get(k); ok != has || got != want {
					t.Fatalf("seed %d: Editor.Get(%q) is %d, %v", seed, k, got, ok)
				}
			}
			if e.Len() != len(now) {
				t.Fatalf("seed %d: Editor.Len is %d, want %d", seed, e.Len(), len(now))
			}
			all = append(all, version{e.Groups(), maps.Clone(now)})
			if rnd.IntN(4) == 0 { // go on from some version, as a new lineage of edits
				v := all[rnd.IntN(len(all))]
				e, now = v.g.Edit(), maps.Clone(v.want)
			}
		}
		for _, v := range all {
			sameAsMap(t, v.g, v.want)
			w := all[rnd.IntN(len(all))]
			if d := cmp.Diff(naiveDiff(v.want, w.want), diffOf(t, v.g, w.g)); d != "" {
				t.Fatalf("seed %d: Diff (-want +got):\n%s", seed, d)
			}
		}
	}
}

func TestGroupsDiffOfUnrelatedMapsComparesTheirContent(t *testing.T) {
	build := func(n int) Groups[string, int] {
		e := Groups[string, int]{}.Edit()
		for i := range n {
			e.Set(fmt.Sprint(i), i)
		}
		return e.Groups()
	}
	if d := diffOf(t, build(1000), build(1000)); len(d) != 0 {
		t.Errorf("equal maps built apart differ by %v", d)
	}
	want := map[string]Change[string, int]{"999": {Key: "999", Old: 999, InOld: true}}
	if d := cmp.Diff(want, diffOf(t, build(1000), build(999))); d != "" {
		t.Error(d)
	}
}

func TestGroupsIterationStopsWhenAsked(t *testing.T) {
	e := Groups[string, int]{}.Edit()
	for i := range 100 {
		e.Set(fmt.Sprint(i), i)
	}
	full := e.Groups()
	for name, count := range map[string]func() int{
		"All": func() (n int) {
			for range full.All() {
				n++
				break
			}
			return n
		},
		"Diff of additions": func() (n int) {
			for range Diff(Groups[string, int]{}, full) {
				n++
				break
			}
			return n
		},
		"Diff of removals": func() (n int) {
			for range Diff(full, Groups[string, int]{}) {
				n++
				break
			}
			return n
		},
	} {
		if n := count(); n != 1 {
			t.Errorf("%s went on for %d", name, n)
		}
	}
}

// TestGroupsSetOfTheSameValueSharesEverything is what makes an unchanged app
// cost nothing downstream.
func TestGroupsSetOfTheSameValueSharesEverything(t *testing.T) {
	e := Groups[string, int]{}.Edit()
	for i := range 1000 {
		e.Set(fmt.Sprint(i), i)
	}
	g := e.Groups()
	again := g.Edit()
	again.Set("7", 7)
	again.Delete("no such key")
	same := again.Groups()
	for range g.unshared(same) {
		t.Fatal("a shard was copied")
	}
	again.Set("7", 8)
	changed, copied := again.Groups(), 0
	for range changed.unshared(g) {
		copied++
	}
	if copied != 1 {
		t.Errorf("one change copied %d shards, want 1", copied)
	}
}

func TestGroupsGetAllocatesNothing(t *testing.T) {
	e := Groups[AppKey, *App]{}.Edit()
	for i := range 1000 {
		k := AppKey{FrameworkID: "f", Name: fmt.Sprint(i)}
		e.Set(k, &App{Key: k})
	}
	g, hit, miss := e.Groups(), AppKey{"f", "77"}, AppKey{"f", "none"}
	if n := testing.AllocsPerRun(100, func() { g.Get(hit); g.Get(miss) }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

func BenchmarkGroupsChangeOneOf(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := Groups[string, int]{}.Edit()
			for i := range n {
				e.Set(fmt.Sprint(i), i)
			}
			g := e.Groups()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e := g.Edit()
				e.Set("77", -i-1)
				next := e.Groups()
				for range Diff(g, next) {
				}
				g = next
			}
		})
	}
}
