package lb

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/vip"
)

// drained is a row of one service that asks for a drain of a minute.
func drained(i int, list ...vip.Backend) *vip.Service {
	return &vip.Service{Frontend: frontend(i), Backends: list, Options: vip.Options{Drain: time.Minute}}
}

func TestDrains(t *testing.T) {
	up1, up2, killed := backend(1, 1, vip.Up), backend(2, 1, vip.Up), backend(2, 1, vip.Draining)
	sick := backend(2, 1, vip.Unhealthy)
	lazy := &vip.Service{Frontend: frontend(1), Backends: []vip.Backend{up1}}
	ends := func(i, after int, shared bool) Drain {
		return Drain{Frontend: frontend(i), Backend: up2.Addr, Until: at.Add(time.Minute + time.Duration(after)*time.Second), Shared: shared}
	}
	both := table(drained(1, up1, up2))
	for name, tc := range map[string]struct {
		steps []*vip.Table // a second apart
		want  []Drain      // that ended two minutes later
	}{
		"a backend that is taken away":                  {[]*vip.Table{both, table(drained(1, up1))}, []Drain{ends(1, 1, false)}},
		"one whose task is being killed":                {[]*vip.Table{both, table(drained(1, up1, killed))}, []Drain{ends(1, 1, false)}},
		"it drains once though it goes later":           {[]*vip.Table{both, table(drained(1, up1, killed)), table(drained(1, up1))}, []Drain{ends(1, 1, false)}},
		"one that was being killed when we came":        {[]*vip.Table{table(drained(1, up1, killed)), table(drained(1, up1))}, []Drain{ends(1, 1, false)}},
		"an unhealthy one keeps its connections":        {[]*vip.Table{both, table(drained(1, up1, sick))}, nil},
		"one that comes back keeps them too":            {[]*vip.Table{both, table(drained(1, up1)), both}, nil},
		"all of a service that goes":                    {[]*vip.Table{table(drained(1, up2)), table()}, []Drain{ends(1, 1, false)}},
		"a service without a drain":                     {[]*vip.Table{both, table(lazy)}, nil},
		"row 4: a backend that another service has too": {[]*vip.Table{table(drained(1, up1, up2), drained(2, up2)), table(drained(1, up1), drained(2, up2))}, []Drain{ends(1, 1, true)}},
	} {
		t.Run(name, func(t *testing.T) {
			var p *Plan
			now := at
			for _, s := range tc.steps {
				p = Build(p, s, DefaultConfig(), now)
				if p.Ended != nil {
					t.Errorf("ended at once: %v", p.Ended)
				}
				now = now.Add(time.Second)
			}
			if due, ok := p.Due(); tc.want != nil && (!ok || due.After(tc.want[0].Until)) {
				t.Errorf("Due = %v, %v, want it not after %v", due, ok, tc.want[0].Until)
			}
			p = Build(p, tc.steps[len(tc.steps)-1], DefaultConfig(), at.Add(2*time.Minute))
			if diff := cmp.Diff(tc.want, p.Ended, compareAddrs); diff != "" {
				t.Errorf("ended (-want +got):\n%s", diff)
			}
			if len(p.Draining()) > 0 {
				t.Errorf("still draining: %v", p.Draining())
			}
			if p = Build(p, tc.steps[len(tc.steps)-1], DefaultConfig(), at.Add(2*time.Minute)); p.Ended != nil {
				t.Errorf("ended twice: %v", p.Ended)
			}
		})
	}
}

// Row 4: while another service drains the backend longer, its connections live.
func TestADrainSparesWhatAnotherServiceDrainsLonger(t *testing.T) {
	b := backend(1, 1, vip.Up)
	long := drained(2, b)
	long.Options.Drain = time.Hour
	p := Build(nil, table(drained(1, b), long), DefaultConfig(), at)
	p = Build(p, table(), DefaultConfig(), at)
	for _, step := range []struct {
		after time.Duration
		want  []Drain
	}{
		{time.Minute, []Drain{{Frontend: frontend(1), Backend: b.Addr, Until: at.Add(time.Minute), Shared: true}}},
		{time.Hour, []Drain{{Frontend: frontend(2), Backend: b.Addr, Until: at.Add(time.Hour)}}},
	} {
		p = Build(p, table(), DefaultConfig(), at.Add(step.after))
		if diff := cmp.Diff(step.want, p.Ended, compareAddrs); diff != "" {
			t.Errorf("ended after %s (-want +got):\n%s", step.after, diff)
		}
	}
}

// Row 4: only where nothing else tells them apart do sockets have to remember.
func TestSocketsRememberWhereADrainCouldNotTellThem(t *testing.T) {
	own, shared := backend(1, 1, vip.Up), backend(2, 1, vip.Up)
	shared.Shared = true
	idle := &vip.Service{Frontend: frontend(1), Backends: []vip.Backend{own, shared}}
	var p *Plan
	for _, step := range []struct {
		name string
		row  *vip.Service
		want bool
	}{
		{"no drain", idle, false},
		{"a drain", drained(1, own, shared), true},
		{"a drain of backends that are its own", drained(1, own), false},
		{"a drain again", drained(1, own, shared), true},
		{"no drain again", idle, false},
	} {
		p = Build(p, table(step.row), DefaultConfig(), at)
		if s, _ := p.Services.Get(frontend(1)); s.Remember != step.want {
			t.Errorf("%s: remember %v, want %v", step.name, s.Remember, step.want)
		}
	}
}
