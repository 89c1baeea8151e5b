package vip

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/model"
)

// smallPools are so small that names collide, and some get no address.
func smallPools() []pool {
	addr := netip.MustParseAddr
	return []pool{
		newPool(addr("11.0.0.254"), addr("11.0.1.4"), hash4),
		newPool(addr("fd01:c::fffe"), addr("fd01:c::1:c"), hash6),
	}
}

// plainLayout works the layout of names out from nothing: the lowest name
// chooses first, and each takes the first free address from its home on.
func plainLayout(p pool, names []string) map[string]netip.Addr {
	at := map[string]netip.Addr{}
	taken := map[netip.Addr]bool{}
	for _, n := range slices.Sorted(slices.Values(names)) {
		home := p.home(n)
		for slot := home; ; {
			if !taken[slot] {
				at[n], taken[slot] = slot, true
				break
			}
			if slot = p.next(slot); slot == home {
				break
			}
		}
	}
	return at
}

// contents returns what l holds, and fails if its parts contradict each other.
func (l layout) contents(tb testing.TB) (at map[string]netip.Addr, waiting []string) {
	tb.Helper()
	at = maps.Collect(l.names.All())
	for slot, name := range l.slots.All() {
		if at[name] != slot {
			tb.Errorf("%s holds %s, which has %s", slot, name, at[name])
		}
	}
	if l.slots.Len() != len(at) {
		tb.Errorf("%d addresses are held by %d names", l.slots.Len(), len(at))
	}
	for name := range l.waiting.All() {
		waiting = append(waiting, name)
	}
	slices.Sort(waiting)
	return at, waiting
}

func compareAddrs() cmp.Option { return cmp.Comparer(func(a, b netip.Addr) bool { return a == b }) }

func TestALayoutDependsOnTheSetOfNamesOnly(t *testing.T) {
	for _, p := range smallPools() {
		r := rand.New(rand.NewPCG(1, 1))
		var l layout
		wanted := map[string]bool{}
		for step := range 1500 {
			before, _ := l.contents(t)
			old := l
			touched := map[target]bool{}
			edit := l.edit(p, func(t target) { touched[t] = true })
			for range 1 + r.IntN(4) {
				name := fmt.Sprintf("n%d.marathon", r.IntN(10+step/100))
				wanted[name] = r.IntN(2) == 0
				edit.want(name, wanted[name])
			}
			l = edit.layout()

			var names, none []string
			for n, yes := range wanted {
				if yes {
					names = append(names, n)
				}
			}
			want := plainLayout(p, names)
			for _, n := range names {
				if _, ok := want[n]; !ok {
					none = append(none, n)
				}
			}
			slices.Sort(none)
			at, waiting := l.contents(t)
			if d := cmp.Diff(want, at, compareAddrs()); d != "" {
				t.Fatalf("step %d: names (-plain +edited):\n%s", step, d)
			}
			if d := cmp.Diff(none, waiting); d != "" {
				t.Fatalf("step %d: names without an address (-plain +edited):\n%s", step, d)
			}
			if again, _ := old.contents(t); !maps.Equal(before, again) {
				t.Fatalf("step %d: the edit changed the layout it began with", step)
			}
			for c := range model.Diff(old.names, l.names) {
				if !touched[target{name: c.Key}] || c.InNew && !touched[target{addr: c.New}] || c.InOld && !touched[target{addr: c.Old}] {
					t.Fatalf("step %d: nobody was told of %+v", step, c)
				}
			}
			for c := range model.Diff(old.waiting, l.waiting) {
				if !touched[target{name: c.Key}] {
					t.Fatalf("step %d: nobody was told that %s waits, or no more", step, c.Key)
				}
			}
		}
	}
}
