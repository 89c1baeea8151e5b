package lb

import (
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
}

// DefaultConfig returns a Grace of 30 s, six times the TTL that DC/OS gives
// names of VIPs, and no Peername.
func DefaultConfig() Config {
	return Config{Grace: 30 * time.Second}
}

// retirement remembers that the service of a frontend left the Table.
type retirement struct {
	frontend vip.Frontend
	left     time.Time
}

// Build returns the Plan for t at the time now, made from prev by redoing only
// the rows that differ from those prev was built from. It is pure. A nil prev
// means that nothing was planned before; else prev must come from a Build with
// the same cfg.
func Build(prev *Plan, t *vip.Table, cfg Config, now time.Time) *Plan {
	if prev == nil {
		prev = &Plan{}
	}
	p := &Plan{rows: t.Services, retired: prev.retired, grace: cfg.Grace}
	services := prev.Services.Edit()
	for c := range model.Diff(prev.rows, t.Services) {
		old, _ := services.Get(c.Key)
		if c.InNew {
			services.Set(c.Key, unlessEqual(old, live(c.New, cfg)))
			continue
		}
		services.Set(c.Key, &Service{Frontend: c.Key, Peername: cfg.Peername, Retired: now})
		// Clip, or the append would write into what prev still uses.
		p.retired = append(slices.Clip(p.retired), retirement{c.Key, now})
	}
	p.retired = settle(services, p.retired, now.Add(-cfg.Grace))
	p.Services = services.Groups()
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

// NextRetirement returns when a retired service has had its grace, so that
// Build should be called again, and false if none waits.
func (p *Plan) NextRetirement() (time.Time, bool) {
	if len(p.retired) == 0 {
		return time.Time{}, false
	}
	return p.retired[0].left.Add(p.grace), true
}

// live returns the service of a row of the Table. Its backends are those that
// are up, or all of them if none is: one that is drained or judged unhealthy
// may still answer, and nobody else will.
func live(row *vip.Service, cfg Config) *Service {
	s := &Service{Frontend: row.Frontend, Peername: cfg.Peername}
	anyUp := slices.ContainsFunc(row.Backends, func(b vip.Backend) bool { return b.State == vip.Up })
	for _, b := range row.Backends {
		if b.State == vip.Up || !anyUp {
			s.Backends = append(s.Backends, Backend{Addr: b.Addr, Weight: b.Weight})
		}
	}
	return s
}

// unlessEqual returns old if it says the same as s, so that a row that changed
// in nothing that matters here (a task id, say) does not reach the kernel.
func unlessEqual(old, s *Service) *Service {
	if old != nil && old.Retired.IsZero() && old.Peername == s.Peername && slices.Equal(old.Backends, s.Backends) {
		return old
	}
	return s
}
