package lb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waggle/model"
	"waggle/vip"
)

func frontend(i int) vip.Frontend {
	return vip.Frontend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), 80), Proto: model.TCP}
}

func backend(i int, weight uint16, state vip.State) vip.Backend {
	return vip.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 8080), Weight: weight, State: state}
}

func table(rows ...*vip.Service) *vip.Table {
	services := model.Groups[vip.Frontend, *vip.Service]{}.Edit()
	for _, r := range rows {
		services.Set(r.Frontend, r)
	}
	return &vip.Table{Services: services.Groups()}
}

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestBackendsThatTakeConnections(t *testing.T) {
	up, draining, sick := backend(1, 1, vip.Up), backend(2, 2, vip.Draining), backend(3, 3, vip.Unhealthy)
	plan := func(b vip.Backend) Backend { return Backend{Addr: b.Addr, Weight: b.Weight} }
	for name, tc := range map[string]struct {
		in   []vip.Backend
		want []Backend
	}{
		"those that are up":                            {[]vip.Backend{up, draining, sick}, []Backend{plan(up)}},
		"draining ones when there is no other":         {[]vip.Backend{draining}, []Backend{plan(draining)}},
		"unhealthy ones when there is no other":        {[]vip.Backend{sick}, []Backend{plan(sick)}},
		"draining and unhealthy alike when none is up": {[]vip.Backend{draining, sick}, []Backend{plan(draining), plan(sick)}},
		"none when there is none":                      {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := Build(nil, table(&vip.Service{Frontend: frontend(1), Backends: tc.in}), DefaultConfig(), at)
			got, _ := p.Services.Get(frontend(1))
			want := &Service{Frontend: frontend(1), Backends: tc.want}
			if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
				t.Errorf("service (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNearBackendsAreTakenBeforeOthers(t *testing.T) {
	place := func(i int, agent string, weight uint16, state vip.State) vip.Backend {
		b := backend(i, weight, state)
		b.Agent = netip.MustParseAddr(agent)
		return b
	}
	here, near, far := place(1, "10.9.0.1", 1, vip.Up), place(2, "10.9.0.2", 1, vip.Up), place(3, "10.9.0.3", 1, vip.Up)
	cfg := DefaultConfig()
	cfg.Node = []netip.Addr{here.Agent}
	cfg.Near = &Neighbours{map[netip.Addr]bool{here.Agent: true, near.Agent: true}}
	sickHere, sickNear := place(1, "10.9.0.1", 1, vip.Unhealthy), place(2, "10.9.0.2", 1, vip.Draining)
	idle := place(1, "10.9.0.1", 0, vip.Up)
	for name, tc := range map[string]struct {
		prefer vip.Locality
		in     []vip.Backend
		want   []int
	}{
		"anywhere":                              {vip.Anywhere, []vip.Backend{here, near, far}, []int{1, 2, 3}},
		"the same zone":                         {vip.SameZone, []vip.Backend{here, near, far}, []int{1, 2}},
		"the same agent":                        {vip.SameAgent, []vip.Backend{here, near, far}, []int{1}},
		"then the zone":                         {vip.SameAgent, []vip.Backend{sickHere, near, far}, []int{2}},
		"then all":                              {vip.SameAgent, []vip.Backend{sickHere, sickNear, far}, []int{3}},
		"one of weight 0 takes none":            {vip.Anywhere, []vip.Backend{idle, near, far}, []int{2, 3}},
		"be it near":                            {vip.SameAgent, []vip.Backend{idle, far}, []int{3}},
		"all alike if none has a weight":        {vip.Anywhere, []vip.Backend{idle}, []int{1}},
		"row 3: all that drain when none is up": {vip.SameAgent, []vip.Backend{sickNear}, []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			row := &vip.Service{Frontend: frontend(1), Backends: tc.in, Options: vip.Options{Locality: tc.prefer}}
			p := Build(nil, table(row), cfg, at)
			s, _ := p.Services.Get(frontend(1))
			var want []Backend
			for _, i := range tc.want {
				want = append(want, Backend{Addr: backend(i, 1, vip.Up).Addr, Weight: 1})
			}
			if diff := cmp.Diff(want, s.Backends, compareAddrs); diff != "" {
				t.Errorf("backends (-want +got):\n%s", diff)
			}
		})
	}
	// The zone of the node may become known later.
	row := &vip.Service{Frontend: frontend(1), Backends: []vip.Backend{near, far}, Options: vip.Options{Locality: vip.SameZone}}
	late := cfg
	late.Near = nil
	p := Build(Build(nil, table(row), late, at), table(row), cfg, at)
	if s, _ := p.Services.Get(frontend(1)); len(s.Backends) != 1 {
		t.Errorf("a zone that became known changed nothing: %v", s.Backends)
	}
}

func TestOptionsReachThePlan(t *testing.T) {
	o := vip.Options{Choice: LeastActive, Affinity: Affinity{By: ByCgroup, Timeout: time.Minute}, Allow: []Client{{Cgroup: "/a"}}}
	row := &vip.Service{Frontend: frontend(1), Options: o}
	p := Build(nil, table(row), DefaultConfig(), at)
	got, _ := p.Services.Get(frontend(1))
	want := &Service{Frontend: frontend(1), Choice: o.Choice, Affinity: o.Affinity, Allow: o.Allow}
	if diff := cmp.Diff(want, got, compareAddrs, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("service (-want +got):\n%s", diff)
	}
}

var compareAddrs = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})

func TestPeernameIsCarriedToEveryService(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Peername = true
	p := Build(nil, table(&vip.Service{Frontend: frontend(1)}), cfg, at)
	if s, _ := p.Services.Get(frontend(1)); !s.Peername {
		t.Error("the service has no Peername")
	}
}

func TestAServiceThatLeftRefusesForTheGraceAndThenGoes(t *testing.T) {
	cfg := DefaultConfig()
	row := &vip.Service{Frontend: frontend(1), Backends: []vip.Backend{backend(1, 1, vip.Up)}}
	live := Build(nil, table(row), cfg, at)
	if _, waits := live.Due(); waits {
		t.Error("a live service waits for its retirement")
	}
	left := at.Add(time.Minute)
	retired := Build(live, table(), cfg, left)
	got, _ := retired.Services.Get(frontend(1))
	if diff := cmp.Diff(&Service{Frontend: frontend(1), Retired: left}, got, compareAddrs); diff != "" {
		t.Errorf("retired service (-want +got):\n%s", diff)
	}
	due, waits := retired.Due()
	if !waits || !due.Equal(left.Add(cfg.Grace)) {
		t.Errorf("Due = %v, %v, want %v", due, waits, left.Add(cfg.Grace))
	}
	early := Build(retired, table(), cfg, due.Add(-1))
	if again, _ := early.Services.Get(frontend(1)); again != got {
		t.Error("a retired service that nothing happened to is not the same pointer")
	}
	gone := Build(early, table(), cfg, due)
	if _, ok := gone.Services.Get(frontend(1)); ok {
		t.Error("the service is still there after its grace")
	}
	if _, waits := gone.Due(); waits {
		t.Error("something waits though nothing is retired")
	}
}

func TestAServiceThatComesBackWithinTheGraceIsLive(t *testing.T) {
	cfg := DefaultConfig()
	row := &vip.Service{Frontend: frontend(1), Backends: []vip.Backend{backend(1, 1, vip.Up)}}
	p := Build(nil, table(row), cfg, at)
	p = Build(p, table(), cfg, at.Add(time.Second))
	p = Build(p, table(row), cfg, at.Add(2*time.Second))
	want := &Service{Frontend: frontend(1), Backends: []Backend{{Addr: backend(1, 1, vip.Up).Addr, Weight: 1}}}
	for _, when := range []time.Time{at.Add(2 * time.Second), at.Add(time.Hour)} {
		p = Build(p, table(row), cfg, when)
		got, _ := p.Services.Get(frontend(1))
		if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
			t.Errorf("service (-want +got):\n%s", diff)
		}
	}
}

func TestWhatDoesNotConcernTheKernelKeepsThePointer(t *testing.T) {
	row := &vip.Service{Frontend: frontend(1), Backends: []vip.Backend{backend(1, 1, vip.Up)}}
	p := Build(nil, table(row), DefaultConfig(), at)
	renamed := *row
	renamed.Name = "other.marathon"
	q := Build(p, table(&renamed), DefaultConfig(), at)
	before, _ := p.Services.Get(frontend(1))
	if after, _ := q.Services.Get(frontend(1)); after != before {
		t.Error("another name made another Service")
	}
}

// model of Build, as plain as can be: what is in the Table, and when what is
// not left it.
type plainModel struct {
	rows map[vip.Frontend]*vip.Service
	left map[vip.Frontend]time.Time
}

func (m *plainModel) expect(cfg Config, now time.Time) map[vip.Frontend]*Service {
	out := map[vip.Frontend]*Service{}
	for f, left := range m.left {
		if now.Sub(left) >= cfg.Grace {
			delete(m.left, f)
			continue
		}
		out[f] = &Service{Frontend: f, Retired: left, Peername: cfg.Peername}
	}
	for f, row := range m.rows {
		s := &Service{Frontend: f, Peername: cfg.Peername}
		for _, b := range row.Backends {
			if b.State == vip.Up {
				s.Backends = append(s.Backends, Backend{Addr: b.Addr, Weight: b.Weight})
			}
		}
		if s.Backends == nil {
			for _, b := range row.Backends {
				s.Backends = append(s.Backends, Backend{Addr: b.Addr, Weight: b.Weight})
			}
		}
		out[f] = s
	}
	return out
}

func (m *plainModel) due(cfg Config) (time.Time, bool) {
	var first time.Time
	for _, left := range m.left {
		if first.IsZero() || left.Before(first) {
			first = left
		}
	}
	return first.Add(cfg.Grace), !first.IsZero()
}

func TestARandomWalkEqualsAPlainModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { walk(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func walk(t *testing.T, r *rand.Rand) {
	cfg := Config{Grace: 30 * time.Second, Peername: r.IntN(2) == 0}
	m := plainModel{rows: map[vip.Frontend]*vip.Service{}, left: map[vip.Frontend]time.Time{}}
	rows := model.Groups[vip.Frontend, *vip.Service]{}
	var p *Plan
	now := at
	for step := range 150 {
		now = now.Add(time.Duration(r.IntN(20)) * time.Second)
		rows = mutate(r, &m, rows, now)
		before := p
		p = Build(p, &vip.Table{Services: rows}, cfg, now)
		want, got := m.expect(cfg, now), map[vip.Frontend]*Service{}
		for f, s := range p.Services.All() {
			got[f] = s
		}
		if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
			t.Fatalf("step %d (-want +got):\n%s", step, diff)
		}
		wantDue, wantOK := m.due(cfg)
		if due, ok := p.Due(); ok != wantOK || ok && !due.Equal(wantDue) {
			t.Fatalf("step %d: Due = %v, %v, want %v, %v", step, due, ok, wantDue, wantOK)
		}
		if before == nil {
			continue
		}
		for c := range model.Diff(before.Services, p.Services) {
			if c.InOld && c.InNew && cmp.Equal(c.Old, c.New, compareAddrs) {
				t.Fatalf("step %d: %v did not change but is another pointer", step, c.Key)
			}
		}
	}
}

func mutate(r *rand.Rand, m *plainModel, rows model.Groups[vip.Frontend, *vip.Service], now time.Time) model.Groups[vip.Frontend, *vip.Service] {
	e := rows.Edit()
	for range r.IntN(4) {
		f := frontend(r.IntN(12))
		if _, ok := m.rows[f]; ok && r.IntN(2) == 0 {
			delete(m.rows, f)
			e.Delete(f)
			continue
		}
		row := &vip.Service{Frontend: f}
		for i := range r.IntN(4) {
			row.Backends = append(row.Backends, backend(i, uint16(1+r.IntN(3)), vip.State(r.IntN(3))))
		}
		m.rows[f] = row
		e.Set(f, row)
	}
	// Only what Build sees counts: a row may come and leave, or leave and come
	// back, between two Builds.
	for f := range rows.All() {
		if _, ok := m.rows[f]; !ok {
			m.left[f] = now
		}
	}
	for f := range m.rows {
		delete(m.left, f)
	}
	return e.Groups()
}

func BenchmarkBuildOneChange(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprint(n, " services"), func(b *testing.B) {
			var rows []*vip.Service
			for i := range n {
				rows = append(rows, &vip.Service{Frontend: frontend(i), Backends: []vip.Backend{backend(1, 1, vip.Up)}})
			}
			t := table(rows...)
			p := Build(nil, t, DefaultConfig(), at)
			row := *rows[0]
			for i := range 2 {
				row.Backends = append(row.Backends, backend(2+i, 1, vip.Up))
			}
			e := t.Services.Edit()
			e.Set(row.Frontend, &row)
			changed := &vip.Table{Services: e.Groups()}
			b.ReportAllocs()
			for b.Loop() {
				Build(p, changed, DefaultConfig(), at)
			}
		})
	}
}
