package model

import "net/netip"

// Port is one port of a task after discovery information, port mappings and
// resources were joined. At least one of Number and HostPort is set.
type Port struct {
	Name     string // "default" when discovery gives none; empty for a port discovery does not list
	Proto    Proto
	Number   uint16 // port on the task's own addresses; 0 when unknown
	HostPort uint16 // port on the agent that leads to it; 0 when none
	Network  string // the network whose addresses serve it; empty means all
	Labels   []Label
	// ServicePort is the port that Marathon keeps for load balancers: the same
	// for all tasks of an app. 0 when there is none or Mesos alone tells of it.
	ServicePort uint16
}

// Inner returns where p of t is reached on its agent alone, behind HostPort: the
// first of the task's addresses of the agent's family that is not the agent's,
// and Number. It is zero where there is none.
func (t *Task) Inner(p Port) netip.AddrPort {
	if p.HostPort == 0 || p.Number == 0 {
		return netip.AddrPort{}
	}
	agent := t.AgentAddr.Unmap()
	for _, a := range t.Addrs {
		addr := a.Addr.Unmap()
		if (p.Network == "" || a.Network == "" || a.Network == p.Network) && addr.Is4() == agent.Is4() && addr != agent && !addr.IsUnspecified() {
			return netip.AddrPortFrom(addr, p.Number)
		}
	}
	return netip.AddrPort{}
}

// Endpoints returns where p of t is reached: the agent's address and HostPort
// if it has one, else each of the task's addresses (those in p.Network if it
// names one) and Number. It returns nil while the address needed is unknown.
func (t *Task) Endpoints(p Port) []netip.AddrPort {
	if p.HostPort != 0 {
		if !t.AgentAddr.IsValid() {
			return nil
		}
		return []netip.AddrPort{netip.AddrPortFrom(t.AgentAddr, p.HostPort)}
	}
	var out []netip.AddrPort
	for _, a := range t.Addrs {
		if p.Network == "" || a.Network == "" || a.Network == p.Network {
			out = append(out, netip.AddrPortFrom(a.Addr, p.Number))
		}
	}
	return out
}
