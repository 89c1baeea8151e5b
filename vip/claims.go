package vip

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"waggle/model"
)

// target is what VIP labels ask for by their left side: a folded
// "name.framework", or an address. All its ports and protocols are one unit.
type target struct {
	name string
	addr netip.Addr
}

// claim is one backend of one VIP, asked for by one label. Without an address
// the backend is only the wish for a VIP given by address: it is served without
// backends, so that connections are refused at once instead of getting lost.
type claim struct {
	*label
	proto   model.Proto
	backend Backend
}

// family returns an address of the family that c is served in.
func (c *claim) family() netip.Addr {
	if c.addr.IsValid() {
		return c.addr
	}
	return c.backend.Addr.Addr()
}

// share is what one app claims of one target. It is never empty.
type share struct {
	app       model.AppKey
	framework string  // its name
	claims    []claim // sorted by compareClaims, which makes a change of one cheap
}

// edit is how the claims of an app on one target change.
type edit struct {
	gone, come []claim
}

// appReader collects what the labels of an app's tasks ask for.
type appReader struct {
	cfg       Config
	framework string              // as written
	folded    string              // the same, folded
	found     func(target, claim) // takes what is read of a task
	problems  []model.Problem     // of the task that is read
}

func newAppReader(cfg Config, framework string) appReader {
	return appReader{cfg: cfg, framework: framework, folded: FoldName(framework)}
}

// read calls found for each claim of t, and returns what is wrong with its
// labels.
func (r *appReader) read(t *model.Task, found func(target, claim)) []model.Problem {
	r.found, r.problems = found, nil
	if t == nil || t.State == model.Terminal {
		return nil
	}
	ports, problems := Ports(t)
	r.problems = problems
	for _, p := range ports {
		for i := range p.labels {
			if err := r.claim(t, p, &p.labels[i]); err != nil {
				r.problems = append(r.problems, p.labels[i].problem(t.Key, err))
			}
		}
	}
	return r.problems
}

// apply returns claims, which is sorted, with what is gone left out and what has
// come put in.
func (e *edit) apply(claims []claim) []claim {
	gone, come := e.gone, e.come
	slices.SortFunc(gone, compareClaims)
	slices.SortFunc(come, compareClaims)
	out := make([]claim, 0, len(claims)+len(come))
	for len(gone) > 0 || len(come) > 0 {
		first := len(come) == 0 || len(gone) > 0 && compareClaims(gone[0], come[0]) <= 0
		next := &come
		if first {
			next = &gone
		}
		n, found := slices.BinarySearchFunc(claims, (*next)[0], compareClaims)
		out, claims = append(out, claims[:n]...), claims[n:]
		switch {
		case !first:
			out = append(out, come[0])
		case found:
			claims = claims[1:]
		}
		*next = (*next)[1:]
	}
	return append(out, claims...)
}

// compareClaims orders the claims of one target as compareOffers does, and
// beyond that so that none is equal to a different one.
func compareClaims(a, b claim) int {
	if v4 := a.family().Is4(); v4 != b.family().Is4() {
		if v4 {
			return -1
		}
		return 1
	}
	if a.port != b.port || a.proto != b.proto {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.proto, b.proto))
	}
	if c := compareBackends(&a.backend, &b.backend); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.value, b.value))
}

// changedTasks yields the tasks that differ between two versions of an app,
// either of which may be nil, in the order of their ids. What a task is called
// depends on its framework's name, so another name changes them all.
func changedTasks(old, next *model.App) iter.Seq2[*model.Task, *model.Task] {
	var gone, come []*model.Task
	if old != nil {
		gone = old.Tasks
	}
	if next != nil {
		come = next.Tasks
	}
	same := old != nil && next != nil && old.Framework == next.Framework
	return func(yield func(was, is *model.Task) bool) {
		for more := true; more && (len(gone) > 0 || len(come) > 0); {
			switch {
			case len(come) == 0 || len(gone) > 0 && gone[0].Key.ID < come[0].Key.ID:
				more = yield(gone[0], nil)
				gone = gone[1:]
			case len(gone) == 0 || come[0].Key.ID < gone[0].Key.ID:
				more = yield(nil, come[0])
				come = come[1:]
			default:
				more = same && gone[0] == come[0] || yield(gone[0], come[0])
				gone, come = gone[1:], come[1:]
			}
		}
	}
}

func (l *label) problem(t model.TaskKey, err error) model.Problem {
	return model.Problem{Task: t.ID, Field: l.key, Value: l.value, Error: err.Error()}
}

// claim makes the endpoints of p backends of the VIP that l asks for.
func (r *appReader) claim(t *model.Task, p Port, l *label) error {
	to := target{addr: l.addr}
	if l.name != "" {
		if r.folded == "" {
			return fmt.Errorf("the framework's name %q has no ASCII letter or digit", r.framework)
		}
		to.name = l.name + "." + r.folded
	}
	if t.State == model.Preparing {
		return nil
	}
	c := claim{label: l, proto: p.Proto, backend: Backend{
		Weight: l.weight, State: stateOf(t), Agent: t.AgentAddr, Inner: t.Inner(p.Port), Shared: p.shared(), Task: t.Key,
	}}
	endpoints := r.cfg.endpoints(t, p.Port)
	served := false
	for _, e := range endpoints {
		e = netip.AddrPortFrom(e.Addr().Unmap(), e.Port())
		if r.cfg.accepts(l.addr, e.Addr()) {
			c.backend.Addr = e
			r.found(to, c)
			served = true
		}
	}
	if served {
		return nil
	}
	if l.addr.IsValid() && (l.addr.Is4() || r.cfg.IPv6) {
		r.found(to, c)
	}
	return r.cfg.whyNone(l.addr, endpoints)
}

// stateOf returns how the backends of a task that runs or is being killed may
// be used.
func stateOf(t *model.Task) State {
	switch {
	case t.State == model.Killing:
		return Draining
	case t.Health == model.Unhealthy:
		return Unhealthy
	}
	return Up
}
