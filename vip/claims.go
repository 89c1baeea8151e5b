package vip

import (
	"fmt"
	"net/netip"

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
	app    *model.App
	claims []claim // in the order of tasks, ports and labels
}

// appReader collects what the labels of one app ask for.
type appReader struct {
	cfg       Config
	app       *model.App
	framework string // folded
	shares    map[target]*share
	problems  []model.Problem
}

func readApp(cfg Config, app *model.App) *appReader {
	r := &appReader{cfg: cfg, app: app, framework: FoldName(app.Framework), shares: map[target]*share{}}
	for _, t := range app.Tasks {
		if t.State != model.Terminal {
			r.task(t)
		}
	}
	return r
}

func (r *appReader) task(t *model.Task) {
	ports, problems := Ports(t)
	r.problems = append(r.problems, problems...)
	for _, p := range ports {
		for i := range p.labels {
			if err := r.claim(t, p.Port, &p.labels[i]); err != nil {
				r.problems = append(r.problems, p.labels[i].problem(t.Key, err))
			}
		}
	}
}

func (l *label) problem(t model.TaskKey, err error) model.Problem {
	return model.Problem{Task: t.ID, Field: l.key, Value: l.value, Error: err.Error()}
}

// claim makes the endpoints of p backends of the VIP that l asks for.
func (r *appReader) claim(t *model.Task, p model.Port, l *label) error {
	to := target{addr: l.addr}
	if l.name != "" {
		if r.framework == "" {
			return fmt.Errorf("the framework's name %q has no ASCII letter or digit", r.app.Framework)
		}
		to.name = l.name + "." + r.framework
	}
	if t.State == model.Preparing {
		return nil
	}
	c := claim{label: l, proto: p.Proto, backend: Backend{
		Weight: l.weight, State: stateOf(t), Agent: t.AgentAddr, Task: t.Key,
	}}
	endpoints := t.Endpoints(p)
	served := false
	for _, e := range endpoints {
		e = netip.AddrPortFrom(e.Addr().Unmap(), e.Port())
		if r.cfg.accepts(l.addr, e.Addr()) {
			c.backend.Addr = e
			r.add(to, c)
			served = true
		}
	}
	if served {
		return nil
	}
	if l.addr.IsValid() && (l.addr.Is4() || r.cfg.IPv6) {
		r.add(to, c)
	}
	return r.cfg.whyNone(l.addr, endpoints)
}

func (r *appReader) add(to target, c claim) {
	s := r.shares[to]
	if s == nil {
		s = &share{app: r.app}
		r.shares[to] = s
	}
	s.claims = append(s.claims, c)
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
