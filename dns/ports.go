package dns

import (
	"iter"
	"net/netip"
	"slices"

	"waggle/model"
)

// namedPort is one port of a task as its names have it.
type namedPort struct {
	name  string // "_http.", or empty
	proto string // "._tcp"
	index int    // of the port in the task's list; one of two protocols counts once
	at    value
	addrs []netip.Addr // those of at.target, if the task's names are at others
}

// ports yields the ports that t's discovery information lists, for names of one,
// the first labels of its canonical name.
func (l *layout) ports(app appNames, one string, t *model.Task, p place) iter.Seq[namedPort] {
	switch {
	case !discovered(t):
		return func(func(namedPort) bool) {}
	case len(l.cfg.IPSources) > 0:
		return l.writtenPorts(one+app.mesos, t)
	}
	return l.joinedPorts(app, one, t, p)
}

// writtenPorts yields the ports of t as mesos-dns does: each as it is written,
// at the task's one name, wherever that leads.
func (l *layout) writtenPorts(target string, t *model.Task) iter.Seq[namedPort] {
	return func(yield func(namedPort) bool) {
		index := -1
		for i, d := range t.Discovery.Ports {
			if i == 0 || d.Number != t.Discovery.Ports[i-1].Number || d.Name != t.Discovery.Ports[i-1].Name {
				index++
			}
			if d.Number < 0 || d.Number > 65535 {
				continue
			}
			protos := []string{"._" + l.label.label(d.Protocol)}
			if protos[0] == "._" {
				protos = []string{"._tcp", "._udp"}
			}
			for _, proto := range protos {
				if !yield(namedPort{l.portName(d.Name), proto, index, l.service(target, uint16(d.Number)), nil}) {
					return
				}
			}
		}
	}
}

// joinedPorts yields the ports of t, each at a name whose addresses serve it.
func (l *layout) joinedPorts(app appNames, one string, t *model.Task, p place) iter.Seq[namedPort] {
	return func(yield func(namedPort) bool) {
		index := -1
		for i, port := range t.Ports {
			if i == 0 || port.Number != t.Ports[i-1].Number || port.HostPort != t.Ports[i-1].HostPort || port.Name != t.Ports[i-1].Name {
				index++
			}
			addrs, number := p.serving(port, t)
			if len(addrs) == 0 {
				continue
			}
			n := namedPort{l.portName(port.Name), "._" + port.Proto.String(), index, l.service(one+app.mesos, number), nil}
			if !slices.Equal(addrs, p.reached) {
				n.addrs, n.at.target = addrs, one+app.container
				if network := l.label.label(port.Network); network != "" {
					n.at.target = l.inNetwork(one, app, network)
				}
			}
			if !yield(n) {
				return
			}
		}
	}
}

func (l *layout) portName(name string) string {
	if label := l.label.label(name); label != "" {
		return l.underscored(label) + "."
	}
	return ""
}

// networks names the addresses of t in each network that has a name.
func (l *layout) networks(app appNames, one string, t *model.Task, add addFunc) {
	for _, a := range t.Addrs {
		if network := l.label.label(a.Network); network != "" {
			addAddrs(add, l.inNetwork(app.folded, app, network), a.Addr)
			addAddrs(add, l.inNetwork(one, app, network), a.Addr)
		}
	}
}

func (l *layout) inNetwork(name string, app appNames, network string) string {
	return name + app.framework + "." + network + l.network
}
