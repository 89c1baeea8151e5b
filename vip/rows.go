package vip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"waggle/model"
)

// offer is a claim with the place where it is served.
type offer struct {
	*claim
	framework string
	frontend  Frontend
}

// rows returns the services of t, sorted by frontend, and what is wrong with
// them. A service that is equal to one e has is that one.
func (b *builder) rows(t target, e *entry) ([]*Service, []model.Problem) {
	offers := e.offers()
	problems := mixedSpellings(t, offers)
	served, lost := b.locate(t, offers)
	problems = append(problems, lost...)
	slices.SortFunc(served, compareOffers)
	var rows []*Service
	for len(served) > 0 {
		n := slices.IndexFunc(served, func(o offer) bool { return o.frontend != served[0].frontend })
		if n < 0 {
			n = len(served)
		}
		rows = append(rows, b.newService(t, served[:n]).orSame(e.rows))
		served = served[n:]
	}
	return rows, problems
}

// locate returns the offers that can be served, with their frontends, in the
// place of offers, and for each family that cannot be a problem of its first
// offer.
func (b *builder) locate(t target, offers []offer) (served []offer, problems []model.Problem) {
	served = offers[:0]
	var v4, v6 home
	for _, o := range offers {
		h, a := &v6, b.v6
		if o.family().Is4() {
			h, a = &v4, b.v4
		}
		if !h.known {
			h.known = true
			h.at, h.err = a.address(t)
		}
		switch {
		case h.err == nil:
			o.frontend = Frontend{Addr: netip.AddrPortFrom(h.at, o.port), Proto: o.proto}
			served = append(served, o)
		case h.first.claim == nil || compareSources(o, h.first) < 0:
			h.first = o
		}
	}
	for _, h := range []*home{&v4, &v6} {
		if h.err != nil {
			problems = append(problems, h.first.problem(h.first.backend.Task, h.err))
		}
	}
	return served, problems
}

// home is where a target is served in one family.
type home struct {
	known bool
	at    netip.Addr
	err   error // why it is served nowhere
	first offer // of those that are not served for it
}

// address returns where t is served in the allocator's family, and an error if
// it cannot be.
func (a *allocator) address(t target) (netip.Addr, error) {
	if t.name == "" {
		if name, taken := a.slots.Get(t.addr); taken {
			return netip.Addr{}, fmt.Errorf("the address is that of the named VIP %s", name)
		}
		return t.addr, nil
	}
	at, ok := a.names.Get(t.name)
	if !ok {
		return at, fmt.Errorf("lower names than %s have all addresses of %s-%s", t.name, a.pool.first, a.pool.last)
	}
	return at, nil
}

func (e *entry) offers() []offer {
	n := 0
	for _, s := range e.shares {
		n += len(s.claims)
	}
	out := make([]offer, 0, n)
	for _, s := range e.shares {
		for i := range s.claims {
			out = append(out, offer{claim: &s.claims[i], framework: s.framework})
		}
	}
	return out
}

// newService makes one row of offers for one frontend, in the order of
// compareOffers. The first offer of an address is its backend: claims of one
// address never add up.
func (b *builder) newService(t target, offers []offer) *Service {
	s := &Service{Frontend: offers[0].frontend, Name: t.name, Backends: make([]Backend, 0, len(offers))}
	if t.name != "" {
		s.Label, s.Framework = offers[0].left, offers[0].framework
	}
	var said Options
	for _, o := range offers {
		if o.options != nil {
			said = said.join(*o.options)
		}
		s.Label, s.Framework = min(s.Label, o.left), min(s.Framework, o.framework)
		if n := len(s.Backends); o.backend.Addr.IsValid() && (n == 0 || s.Backends[n-1].Addr != o.backend.Addr) {
			s.Backends = append(s.Backends, o.backend)
		}
	}
	s.Options = b.cfg.options(t, said)
	return s
}

// orSame returns the service of rows that is equal to s, or s.
func (s *Service) orSame(rows []*Service) *Service {
	old := findRow(rows, s.Frontend)
	if old != nil && old.Name == s.Name && old.Label == s.Label && old.Framework == s.Framework &&
		old.Options.Equal(s.Options) && slices.Equal(old.Backends, s.Backends) {
		return old
	}
	return s
}

func findRow(rows []*Service, f Frontend) *Service {
	for _, s := range rows {
		if s.Frontend == f {
			return s
		}
	}
	return nil
}

// mixedSpellings reports labels that differ in more than a leading slash or the
// case of letters and yet fold to one name: they may not have been meant to
// share it. One label of each spelling but the lowest is named.
func mixedSpellings(t target, offers []offer) []model.Problem {
	same := func(o offer) bool { return o.left == offers[0].left && o.framework == offers[0].framework }
	if t.name == "" || !slices.ContainsFunc(offers, func(o offer) bool { return !same(o) }) {
		return nil
	}
	slices.SortFunc(offers, func(a, b offer) int {
		return cmp.Or(strings.Compare(a.spelling(), b.spelling()), compareSources(a, b))
	})
	var out []model.Problem
	first := offers[0]
	for i, o := range offers[1:] {
		if o.spelling() != offers[i].spelling() {
			out = append(out, o.problem(o.backend.Task, fmt.Errorf("folds to %s as %q of task %s (framework %s) does: both are one VIP",
				t.name, first.value, first.backend.Task.ID, first.framework)))
		}
	}
	return out
}

// spelling returns what tells labels apart to the eye.
func (o offer) spelling() string {
	return strings.ToLower(strings.TrimPrefix(o.left, "/") + "." + o.framework)
}

// compareSources orders offers by where they come from.
func compareSources(a, b offer) int {
	return cmp.Or(compareTasks(a.backend.Task, b.backend.Task), strings.Compare(a.key, b.key), strings.Compare(a.value, b.value))
}

// compareOffers orders offers by frontend and address, and those of one address
// so that the one to be believed comes first.
func compareOffers(a, b offer) int {
	if a.frontend != b.frontend {
		return cmp.Or(a.frontend.Addr.Compare(b.frontend.Addr), cmp.Compare(a.frontend.Proto, b.frontend.Proto))
	}
	return compareBackends(&a.backend, &b.backend)
}

// compareBackends orders by address, and the backends of one address so that
// the one to be believed comes first. Nothing is worked out before it is needed:
// this is most of what a large service costs.
func compareBackends(a, b *Backend) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	return cmp.Or(
		cmp.Compare(a.State.rank(), b.State.rank()),
		cmp.Compare(b.Weight, a.Weight),
		compareTasks(a.Task, b.Task),
	)
}

// rank orders states from the best: a task that runs, ill as it may be, is
// likelier to hold its address than one that is being killed.
func (s State) rank() int { return [...]int{Up: 0, Unhealthy: 1, Draining: 2}[s] }

func compareTasks(a, b model.TaskKey) int {
	return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.FrameworkID, b.FrameworkID))
}

func compareApps(a, b model.AppKey) int {
	return cmp.Or(strings.Compare(a.FrameworkID, b.FrameworkID), strings.Compare(a.Name, b.Name))
}
