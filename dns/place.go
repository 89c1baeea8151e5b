package dns

import (
	"iter"
	"net/netip"
	"slices"

	"waggle/model"
)

// place says at which addresses a task is. What it rests on is written down in
// docs/decisions/0007-dns-names-and-address-choice.md.
type place struct {
	agent netip.Addr
	own   []netip.Addr
	// reached are the addresses that go with the task's ports: the agent's if
	// the agent publishes any of them, else the task's own, else the agent's.
	reached []netip.Addr
}

func placeOf(t *model.Task) place {
	p := place{agent: t.AgentAddr}
	for _, a := range t.Addrs {
		p.own = append(p.own, a.Addr)
	}
	p.reached = p.own
	if p.agent.IsValid() && (len(p.own) == 0 || published(t)) {
		p.reached = []netip.Addr{p.agent}
	}
	return p
}

func published(t *model.Task) bool {
	return slices.ContainsFunc(t.Ports, func(p model.Port) bool { return p.HostPort != 0 }) ||
		slices.ContainsFunc(t.Mappings, func(m model.PortMapping) bool { return m.HostPort != 0 })
}

// serving returns where port of t is reached, nothing if that is not known.
func (p place) serving(port model.Port, t *model.Task) (addrs []netip.Addr, number uint16) {
	if len(p.own) == 0 && port.HostPort == 0 {
		// A task that reports no address shares its agent's.
		return p.reached, port.Number
	}
	for _, e := range t.Endpoints(port) {
		addrs, number = append(addrs, e.Addr()), e.Port()
	}
	return addrs, number
}

// unshared yields the addresses that only t has: not the agent's, nor those on a
// bridge within the agent, of which another agent may have the same.
func (p place) unshared(t *model.Task) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		bridged := published(t)
		for _, a := range t.Addrs {
			switch {
			case a.Addr == p.agent:
			case bridged && (a.Network == "" || a.Network == "bridge" || a.Network == "mesos-bridge"):
			case !yield(a.Addr):
				return
			}
		}
	}
}

// fromSources returns the addresses of the first source that has any.
func (p place) fromSources(sources []IPSource, t *model.Task) []netip.Addr {
	for _, src := range sources {
		var addrs []netip.Addr
		switch {
		case src == IPSourceHost && p.agent.IsValid():
			addrs = []netip.Addr{p.agent}
		case src == IPSourceNetInfo && !t.AddrsKept:
			addrs = p.own
		case src == IPSourceDocker && t.LabelAddrs != nil:
			addrs = t.LabelAddrs.Docker
		case src == IPSourceMesos && t.LabelAddrs != nil:
			addrs = t.LabelAddrs.Mesos
		}
		if len(addrs) > 0 {
			return addrs
		}
	}
	return nil
}
