package dns

import (
	"iter"
	"slices"
	"strings"

	"waggle/model"
	"waggle/vip"
)

// maxResourcePorts is how many of a task's agent ports get an SRV record: about
// as many as one answer can hold over TCP. A task may hold all 65535.
const maxResourcePorts = 1024

// appNames are the parts of names that the tasks of an app share.
type appNames struct {
	raw    string // the name as written, in lower case
	folded string // the name as one label
	// The folded framework name with what stands behind it in the domain.
	mesos, slave, container string
	dcos                    string // "task.framework.", empty if not served
}

func (l *layout) app(a *model.App) appNames {
	framework := "." + l.label.fragment(a.Framework)
	n := appNames{
		raw:       strings.ToLower(a.Key.Name),
		folded:    l.label.label(a.Key.Name),
		mesos:     framework + l.mesos,
		slave:     framework + l.slave,
		container: framework + l.container,
	}
	if l.dcos != "" {
		n.dcos = vip.FoldLabel(a.Key.Name) + "." + vip.FoldLabel(a.Framework) + "."
	}
	return n
}

// task names t, if it runs, by each name of its app. The names a task has by
// its discovery information are there as written too, with their dots.
func (l *layout) task(app appNames, t *model.Task, add addFunc) {
	if t.State != model.Running {
		return
	}
	p := placeOf(t)
	if l.dcos != "" {
		addAddrs(add, app.dcos+"agentip"+l.dcos, p.agent)
		addAddrs(add, app.dcos+"containerip"+l.dcos, p.own...)
		addAddrs(add, app.dcos+"autoip"+l.dcos, p.reached...)
	}
	l.taskByName(app, app.folded, t, p, add)
	if discovered(t) && app.raw != app.folded {
		l.taskByName(app, app.raw, t, p, add)
	}
}

// discovered reports whether t says by what name it wants to be found. Without
// a name its discovery information counts for nothing.
func discovered(t *model.Task) bool { return t.Discovery != nil && t.Discovery.Name != "" }

func (l *layout) taskByName(app appNames, name string, t *model.Task, p place, add addFunc) {
	one := canonical(name, t.Key.ID, t.AgentID)
	addrs := p.reached
	if len(l.cfg.IPSources) > 0 {
		addrs = p.fromSources(l.cfg.IPSources, t)
	}
	addAddrs(add, name+app.mesos, addrs...)
	addAddrs(add, one+app.mesos, addrs...)
	addAddrs(add, name+app.slave, p.agent)
	addAddrs(add, one+app.slave, p.agent)

	srv := "_" + name + "._"
	onAgent := one + app.slave
	for port := range resourcePorts(t) {
		for _, proto := range [...]string{"tcp", "udp"} {
			v := value{target: onAgent, port: port}
			add(srv+proto+app.slave, v)
			if !discovered(t) {
				add(srv+proto+app.mesos, v)
			}
		}
	}
	switch {
	case !discovered(t):
	case len(l.cfg.IPSources) > 0:
		l.writtenPorts(srv, one+app.mesos, app, t, add)
	default:
		l.joinedPorts(srv, one, app, t, p, add)
	}
}

// writtenPorts names the ports of t as mesos-dns does: each as it is written,
// at the task's one name, wherever that leads.
func (l *layout) writtenPorts(srv, target string, app appNames, t *model.Task, add addFunc) {
	for _, d := range t.Discovery.Ports {
		if d.Number < 0 || d.Number > 65535 {
			continue
		}
		v := value{target: target, port: uint16(d.Number)}
		protos := []string{l.label.label(d.Protocol)}
		if protos[0] == "" {
			protos = []string{"tcp", "udp"}
		}
		name := l.label.label(d.Name)
		for _, proto := range protos {
			add(srv+proto+app.mesos, v)
			if name != "" {
				add("_"+name+"."+srv+proto+app.mesos, v)
			}
		}
	}
}

// joinedPorts names the ports of t, each at a name whose addresses serve it.
func (l *layout) joinedPorts(srv, one string, app appNames, t *model.Task, p place, add addFunc) {
	for _, port := range t.Ports {
		addrs, number := p.serving(port, t)
		if len(addrs) == 0 {
			continue
		}
		v := value{target: one + app.mesos, port: number}
		if !slices.Equal(addrs, p.reached) {
			v.target = one + app.container
			if port.Network != "" {
				v.target = one + "." + l.label.label(port.Network) + app.container
			}
			addAddrs(add, v.target, addrs...)
		}
		proto := port.Proto.String()
		add(srv+proto+app.mesos, v)
		if name := l.label.label(port.Name); name != "" {
			add("_"+name+"."+srv+proto+app.mesos, v)
		}
	}
}

// resourcePorts yields the agent's ports that t was given.
func resourcePorts(t *model.Task) iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		left := maxResourcePorts
		for _, r := range t.Resources {
			for port := int(r.First); port <= int(r.Last); port++ {
				if left == 0 || !yield(uint16(port)) {
					return
				}
				left--
			}
		}
	}
}
