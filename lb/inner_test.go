package lb

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/vip"
)

// TestWhereABackendsPortLeadsIsSaidOfThisMachineOnly follows a backend through
// its life: up, replaced by a task at the same port, drained.
func TestWhereABackendsPortLeadsIsSaidOfThisMachineOnly(t *testing.T) {
	here, there := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	inner, next := netip.MustParseAddrPort("172.31.0.2:80"), netip.MustParseAddrPort("172.31.0.3:80")
	at := func(agent netip.Addr, inner netip.AddrPort) vip.Backend {
		return vip.Backend{Addr: netip.AddrPortFrom(agent, 31000), Agent: agent, Inner: inner, Weight: 1}
	}
	now := time.Unix(1000, 0)
	o := vip.Options{Drain: time.Minute}
	row := func(b ...vip.Backend) *vip.Table {
		return table(&vip.Service{Frontend: frontend(1), Options: o, Backends: b})
	}
	equal := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	cfg := Config{Node: []netip.Addr{here}}
	for _, c := range []struct {
		name string
		on   bool
		want []Backend
	}{
		{"not asked for", false, []Backend{{Addr: at(here, inner).Addr, Weight: 1}, {Addr: at(there, inner).Addr, Weight: 1}}},
		{"asked for", true, []Backend{{Addr: at(here, inner).Addr, Weight: 1, Inner: inner}, {Addr: at(there, inner).Addr, Weight: 1}}},
	} {
		cfg.Inner = c.on
		s, _ := Build(nil, row(at(here, inner), at(there, inner)), cfg, now).Services.Get(frontend(1))
		if d := cmp.Diff(c.want, s.Backends, equal); d != "" {
			t.Errorf("%s (-want +got): %s", c.name, d)
		}
	}
	p := Build(nil, row(at(here, inner), at(there, inner)), cfg, now)
	p = Build(p, row(at(here, next), at(there, inner)), cfg, now)
	if s, _ := p.Services.Get(frontend(1)); s.Backends[0].Inner != next {
		t.Errorf("another task at the same port is at %s", s.Backends[0].Inner)
	}
	killed := at(here, next)
	killed.State = vip.Draining
	p = Build(p, row(killed, at(there, inner)), cfg, now)
	if d := cmp.Diff([]Backend{{Addr: killed.Addr, Inner: next}}, p.Idle(frontend(1)), equal); d != "" {
		t.Errorf("idle (-want +got): %s", d)
	}
	p = Build(p, row(at(there, inner)), cfg, now)
	if got := p.Draining(); len(got) != 1 || got[0].Inner != next {
		t.Errorf("draining %v", got)
	}
}
