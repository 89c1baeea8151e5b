package lb

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waggle/model"
	"waggle/vip"
)

// TestAWalkThroughOptionsEqualsAFreshStart changes rows, the neighbourhood and
// who is ejected; what is live must be what Build makes of nothing.
func TestAWalkThroughOptionsEqualsAFreshStart(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	cfg := DefaultConfig()
	agent := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}) }
	cfg.Node = []netip.Addr{agent(0)}
	rows := model.Groups[vip.Frontend, *vip.Service]{}
	var p *Plan
	now := at
	for step := range 400 {
		now = now.Add(time.Second)
		e := rows.Edit()
		for range r.IntN(3) {
			row := &vip.Service{Frontend: frontend(r.IntN(6)), Options: vip.Options{
				Locality: vip.Locality(r.IntN(3)), Choice: Choice(r.IntN(2)), Drain: time.Duration(r.IntN(3)) * time.Second,
			}}
			for i := range r.IntN(7) {
				b := backend(i, uint16(r.IntN(3)), vip.State(r.IntN(3)))
				b.Agent = agent(r.IntN(4))
				row.Backends = append(row.Backends, b)
			}
			if r.IntN(5) == 0 {
				e.Delete(row.Frontend)
				continue
			}
			e.Set(row.Frontend, row)
		}
		rows = e.Groups()
		if r.IntN(4) == 0 {
			cfg.Near = &Neighbours{map[netip.Addr]bool{agent(0): true, agent(r.IntN(4)): true}}
		}
		if r.IntN(4) == 0 {
			cfg.Ejected = &Ejections{map[vip.Frontend]map[netip.AddrPort]Ejection{
				frontend(r.IntN(6)): {backend(r.IntN(7), 1, vip.Up).Addr: {Until: now.Add(time.Hour)}},
			}}
		}
		p = Build(p, &vip.Table{Services: rows}, cfg, now)
		fresh := Build(nil, &vip.Table{Services: rows}, cfg, now)
		for f, want := range fresh.Services.All() {
			got, _ := p.Services.Get(f)
			if diff := cmp.Diff(want, got, compareAddrs, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Fatalf("step %d (-fresh +walked):\n%s", step, diff)
			}
			for addr := range p.Ejected(f) {
				if slices.ContainsFunc(got.Backends, func(b Backend) bool { return b.Addr == addr }) {
					t.Fatalf("step %d: %s is said to be out of %v", step, addr, got.Backends)
				}
			}
		}
		checkDrains(t, p, rows, now)
	}
}

// checkDrains holds that nobody drains twice, too long, or while in use.
func checkDrains(t *testing.T, p *Plan, rows model.Groups[vip.Frontend, *vip.Service], now time.Time) {
	t.Helper()
	seen := map[place]bool{}
	for _, d := range p.Draining() {
		at := place{d.Frontend, d.Backend}
		if seen[at] {
			t.Fatalf("%v drains twice", d)
		}
		seen[at] = true
		if !d.Until.After(now) || d.Until.After(now.Add(2*time.Second)) {
			t.Fatalf("%v drains at %v", d, now)
		}
		if row, ok := rows.Get(d.Frontend); ok && serves(row.Backends, d.Backend) {
			t.Fatalf("%v drains and is in use", d)
		}
	}
	for _, d := range p.Ended {
		if d.Until.After(now) {
			t.Fatalf("%v ended at %v", d, now)
		}
	}
}
