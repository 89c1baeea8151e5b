package lb

import (
	"net/netip"
	"slices"
	"time"

	"waggle/model"
	"waggle/vip"
)

// Drain is a backend of one service that gets no new connections and whose old
// ones go on until a time.
type Drain struct {
	Frontend vip.Frontend
	Backend  netip.AddrPort
	Until    time.Time
	Inner    netip.AddrPort // as Backend.Inner
	// Shared says that another service of the same protocol has the backend, or
	// drains it still, so that connections to it must live. It is set in
	// Plan.Ended only.
	Shared bool
}

// Idle returns the backends of a frontend that the Table has and that get no
// new connections: they are being killed or are unhealthy. Their weight is 0.
func (p *Plan) Idle(f vip.Frontend) (out []Backend) {
	row, ok := p.rows.Get(f)
	s, planned := p.Services.Get(f)
	if !ok || !planned {
		return nil
	}
	for _, b := range row.Backends {
		if !slices.ContainsFunc(s.Backends, func(t Backend) bool { return t.Addr == b.Addr }) {
			out = append(out, Backend{Addr: b.Addr, Inner: p.inner(b)})
		}
	}
	return out
}

// Draining returns the drains that have not ended, in no particular order. The
// caller must not change them.
func (p *Plan) Draining() []Drain { return p.drains }

// Resume returns a Plan without services that goes on with drains, those of
// Plan.Draining before a restart: the first Build is to start from it.
func Resume(drains []Drain) *Plan { return &Plan{drains: drains} }

// drain starts drains for backends that c takes away from the service, or whose
// task is being killed, and ends those of backends that are back.
func (p *Plan) drain(c model.Change[vip.Frontend, *vip.Service], now time.Time) {
	var was, is []vip.Backend
	var keep time.Duration
	if c.InOld {
		was, keep = c.Old.Backends, c.Old.Options.Drain
	}
	if c.InNew {
		is, keep = c.New.Backends, c.New.Options.Drain
	}
	if len(p.drains) > 0 && len(is) > 0 {
		p.drains = slices.DeleteFunc(slices.Clone(p.drains), func(d Drain) bool { return d.Frontend == c.Key && serves(is, d.Backend) })
	}
	if keep == 0 {
		return
	}
	for _, b := range was {
		if serves(is, b.Addr) || p.waits(c.Key, b.Addr) || b.State == vip.Draining && lists(is, b.Addr) {
			continue
		}
		// Clip, or the append would write into what the last Plan still uses.
		p.drains = append(slices.Clip(p.drains), Drain{Frontend: c.Key, Backend: b.Addr, Inner: p.inner(b), Until: now.Add(keep)})
	}
}

// waits reports whether that drain is going on.
func (p *Plan) waits(f vip.Frontend, addr netip.AddrPort) bool {
	return slices.ContainsFunc(p.drains, func(d Drain) bool { return d.Frontend == f && d.Backend == addr })
}

// find returns the backend at addr in list, which is sorted.
func find(list []vip.Backend, addr netip.AddrPort) (vip.Backend, bool) {
	i, found := slices.BinarySearchFunc(list, addr, func(b vip.Backend, a netip.AddrPort) int { return b.Addr.Compare(a) })
	if !found {
		return vip.Backend{}, false
	}
	return list[i], true
}

// serves reports whether list has a backend at addr that may keep its
// connections.
func serves(list []vip.Backend, addr netip.AddrPort) bool {
	b, ok := find(list, addr)
	return ok && b.State != vip.Draining
}

func lists(list []vip.Backend, addr netip.AddrPort) bool {
	_, ok := find(list, addr)
	return ok
}

// endDrains moves what has drained until now to Ended.
func (p *Plan) endDrains(now time.Time) {
	over := func(d Drain) bool { return !d.Until.After(now) }
	if !slices.ContainsFunc(p.drains, over) {
		return
	}
	type peer struct {
		proto model.Proto
		addr  netip.AddrPort
	}
	ended := map[peer][]int{}
	for _, d := range p.drains {
		if over(d) {
			at := peer{d.Frontend.Proto, d.Backend}
			ended[at] = append(ended[at], len(p.Ended))
			p.Ended = append(p.Ended, d)
		}
	}
	p.drains = slices.DeleteFunc(slices.Clone(p.drains), over)
	uses := func(f vip.Frontend, addr netip.AddrPort) {
		for _, i := range ended[peer{f.Proto, addr}] {
			p.Ended[i].Shared = p.Ended[i].Shared || f != p.Ended[i].Frontend
		}
	}
	for f, row := range p.rows.All() {
		for _, b := range row.Backends {
			uses(f, b.Addr)
		}
	}
	for _, d := range p.drains {
		uses(d.Frontend, d.Backend)
	}
}
