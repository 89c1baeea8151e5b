package lb

import (
	"net/netip"
	"slices"
	"time"

	"waggle/model"
	"waggle/vip"
)

// Config says how a Table becomes a Plan.
type Config struct {
	// Grace is how long a service that left the Table goes on refusing
	// connections. It must be longer than anyone may still use the name:
	//
	//	Grace > TTL of VIP names + time a client takes from its query to connect
	//
	// Longer costs one kernel entry for each service that left; shorter lets a
	// client with an old name run into a time-out instead of a refusal.
	Grace time.Duration
	// Peername lets getpeername(2) show the VIP, for every service.
	Peername bool
	// Node are the addresses of this machine, for services that prefer backends
	// of their own agent. Near are the agents in its fault domain, for those
	// that prefer their own zone; nil while unknown. Unlike the rest it may be
	// another one from Build to Build.
	Node []netip.Addr
	Near *Neighbours
	// Inner says for backends of this machine, one with an address in Node, where
	// a port of the machine leads. Who translates addresses itself needs that:
	// the machine's own translation does not look at a connection twice.
	Inner bool
	// Exclude are the clients for whom nothing is balanced.
	Exclude []Client
	// Ejected are those that get no new connections for now; nil is none. It
	// may change too.
	Ejected *Ejections
}

// DefaultConfig returns a Grace of 30 s, six times the TTL that DC/OS gives
// names of VIPs, no Peername, and a node without addresses.
func DefaultConfig() Config {
	return Config{Grace: 30 * time.Second}
}

// inner returns what Backend.Inner is.
func (c Config) inner(b vip.Backend) netip.AddrPort {
	if c.Inner && slices.Contains(c.Node, b.Agent) {
		return b.Inner
	}
	return netip.AddrPort{}
}

// Neighbours are the addresses of agents in one fault domain. It is immutable.
type Neighbours struct {
	Addrs map[netip.Addr]bool
}

// retirement remembers that the service of a frontend left the Table.
type retirement struct {
	frontend vip.Frontend
	left     time.Time
}

// Build returns the Plan for t at the time now, made from prev by redoing only
// the rows that differ from those prev was built from. It is pure. A nil prev
// means that nothing was planned before; else prev must come from a Build with
// the same cfg but for Near and Ejected.
func Build(prev *Plan, t *vip.Table, cfg Config, now time.Time) *Plan {
	if prev == nil {
		prev = &Plan{near: cfg.Near}
	}
	p := &Plan{rows: t.Services, retired: prev.retired, drains: prev.drains, grace: cfg.Grace, near: cfg.Near, ejected: cfg.Ejected, inner: cfg.inner, Exclude: cfg.Exclude}
	services := prev.Services.Edit()
	for c := range model.Diff(prev.rows, t.Services) {
		old, _ := services.Get(c.Key)
		p.drain(c, now)
		if c.InNew {
			services.Set(c.Key, unlessEqual(old, live(c.New, cfg)))
			continue
		}
		services.Set(c.Key, &Service{Frontend: c.Key, Peername: cfg.Peername, Retired: now})
		// Clip, or the append would write into what prev still uses.
		p.retired = append(slices.Clip(p.retired), retirement{c.Key, now})
	}
	again := func(f vip.Frontend, row *vip.Service) {
		old, _ := services.Get(f)
		services.Set(f, unlessEqual(old, live(row, cfg)))
	}
	if prev.near != cfg.Near {
		for f, row := range t.Services.All() {
			if row.Options.Locality != vip.Anywhere {
				again(f, row)
			}
		}
	}
	if prev.ejected != cfg.Ejected {
		for _, e := range []*Ejections{prev.ejected, cfg.Ejected} {
			for f := range e.All() {
				if row, ok := t.Services.Get(f); ok {
					again(f, row)
				}
			}
		}
	}
	p.retired = settle(services, p.retired, now.Add(-cfg.Grace))
	p.Services = services.Groups()
	p.endDrains(now)
	return p
}

// settle removes the services that left before the time given, and returns the
// retirements still to come. The first of these is always one that counts:
// those of services that have come back are dropped when they get there.
func settle(services *model.Editor[vip.Frontend, *Service], queue []retirement, before time.Time) []retirement {
	for len(queue) > 0 {
		first := queue[0]
		s, ok := services.Get(first.frontend)
		if stands := ok && s.Retired.Equal(first.left); stands {
			if first.left.After(before) {
				break
			}
			services.Delete(first.frontend)
		}
		queue = queue[1:]
	}
	return queue
}

// Due returns when Build should be called again although the Table is the same:
// a retired service has had its grace, or a drain ends. It returns false if
// nothing waits.
func (p *Plan) Due() (time.Time, bool) {
	var due time.Time
	if len(p.retired) > 0 {
		due = p.retired[0].left.Add(p.grace)
	}
	for _, d := range p.drains {
		if due.IsZero() || d.Until.Before(due) {
			due = d.Until
		}
	}
	return due, !due.IsZero()
}

// live returns the service of a row of the Table.
func live(row *vip.Service, cfg Config) *Service {
	o := row.Options
	return &Service{
		Frontend: row.Frontend, Backends: takers(row, cfg), Peername: cfg.Peername,
		Choice: o.Choice, Affinity: o.Affinity, Allow: o.Allow,
		Remember: o.Drain > 0 && slices.ContainsFunc(row.Backends, func(b vip.Backend) bool { return b.Shared }),
	}
}

// takers returns the backends that take new connections: of those that are up,
// or of all if none is, those with a weight, or all alike if none has one, and of
// these the nearest. Those who are ejected are left out while they are no more than
// a third of the service. One that is drained or judged unhealthy may still answer
// when nobody else will.
func takers(row *vip.Service, cfg Config) []Backend {
	prefer := row.Options.Locality
	list := unlessNone(row.Backends, func(b vip.Backend) bool { return b.State == vip.Up })
	list = unlessNone(list, func(b vip.Backend) bool { return b.Weight > 0 })
	if cfg.Ejected.count(row) <= mostOut(len(row.Backends)) {
		list = unlessNone(list, func(b vip.Backend) bool { return !cfg.Ejected.has(row.Frontend, b.Addr) })
	}
	near := list
	if prefer >= vip.SameZone && cfg.Near != nil {
		near = unlessNone(list, func(b vip.Backend) bool { return cfg.Near.Addrs[b.Agent] })
	}
	if prefer == vip.SameAgent {
		near = unlessNone(near, func(b vip.Backend) bool { return slices.Contains(cfg.Node, b.Agent) })
	}
	var out []Backend
	for _, b := range near {
		out = append(out, Backend{Addr: b.Addr, Weight: max(1, b.Weight), Inner: cfg.inner(b)})
	}
	return out
}

// unlessNone returns those of list that fit, or list if none does.
func unlessNone(list []vip.Backend, fits func(vip.Backend) bool) []vip.Backend {
	n := 0
	for _, b := range list {
		if fits(b) {
			n++
		}
	}
	if n == 0 || n == len(list) {
		return list
	}
	out := make([]vip.Backend, 0, n)
	for _, b := range list {
		if fits(b) {
			out = append(out, b)
		}
	}
	return out
}

// unlessEqual returns old if it says the same as s, so that a row that changed
// in nothing that matters here (a task id, say) does not reach the kernel.
func unlessEqual(old, s *Service) *Service {
	if old != nil && old.Retired.IsZero() && old.Peername == s.Peername && old.Remember == s.Remember && old.Choice == s.Choice &&
		old.Affinity == s.Affinity && slices.Equal(old.Allow, s.Allow) && slices.Equal(old.Backends, s.Backends) {
		return old
	}
	return s
}
