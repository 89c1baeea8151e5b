package dns

import (
	"iter"
	"net/netip"
	"strconv"
	"strings"

	"waggle/model"
	"waggle/vip"
)

// maxResourcePorts is how many of a task's agent ports get an SRV record: about
// as many as one answer can hold over TCP. A task may hold all 65535.
const maxResourcePorts = 1024

// maxNumberedPorts is how many ports of a task are to be had by their number.
const maxNumberedPorts = 32

// appNames are the parts of names that the tasks of an app share.
type appNames struct {
	raw    string // the name as written, in lower case
	folded string // the name as one label
	unique string // the name as one label with a hash, if folded lacks a part of it
	// The folded framework name with what stands behind it in the domain.
	framework                         string
	mesos, slave, container, instance string
	dcos                              string // "task.framework.", empty if not served
}

func (l *layout) app(a *model.App) appNames {
	framework := "." + l.frameworkName(a.Framework)
	n := appNames{
		raw:       strings.ToLower(a.Key.Name),
		folded:    l.label.label(a.Key.Name),
		framework: framework,
		mesos:     framework + l.mesos,
		slave:     framework + l.slave,
		container: framework + l.container,
		instance:  framework + l.instance,
	}
	if whole := l.label.whole(a.Key.Name); len(whole) > l.label.max && !l.cfg.Exact {
		n.unique = shorten(whole, l.label.max)
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
	add = l.guarded(add)
	p := placeOf(t)
	if l.dcos != "" {
		addAddrs(add, app.dcos+"agentip"+l.dcos, p.agent)
		addAddrs(add, app.dcos+"containerip"+l.dcos, p.own...)
		addAddrs(add, app.dcos+"autoip"+l.dcos, p.reached...)
	}
	suffix := taskSuffix(t.Key.ID, t.AgentID)
	one := withSuffix(app.folded, suffix)
	l.taskByName(app, app.folded, one, t, p, add)
	if discovered(t) && app.raw != app.folded {
		l.taskByName(app, app.raw, withSuffix(app.raw, suffix), t, p, add)
	}
	if app.unique != "" {
		l.taskByName(app, app.unique, withSuffix(app.unique, suffix), t, p, add)
	}
	for a := range p.unshared(t) {
		l.pointer(add, a, one+app.mesos)
	}
	if !l.cfg.Exact && !t.HostNetwork() {
		l.networks(app, one, t, add)
	}
}

// discovered reports whether t says by what name it wants to be found. Without
// a name its discovery information counts for nothing.
func discovered(t *model.Task) bool { return t.Discovery != nil && t.Discovery.Name != "" }

// addrs returns the addresses of t's names in the domain of mesos-dns.
func (l *layout) addrs(t *model.Task, p place) []netip.Addr {
	if len(l.cfg.IPSources) > 0 {
		return p.fromSources(l.cfg.IPSources, t)
	}
	return p.reached
}

// taskByName names t by one of its app's names and by what that is of t alone.
func (l *layout) taskByName(app appNames, name, one string, t *model.Task, p place, add addFunc) {
	addrs := l.addrs(t, p)
	addAddrs(add, name+app.mesos, addrs...)
	addAddrs(add, one+app.mesos, addrs...)
	addAddrs(add, name+app.slave, p.agent)
	addAddrs(add, one+app.slave, p.agent)

	srv := l.underscored(name)
	numbered := name == app.folded && l.numbersPorts(t)
	i := 0
	for port := range resourcePorts(t) {
		for _, proto := range [...]string{"._tcp", "._udp"} {
			v := l.service(one+app.slave, port)
			add(srv+proto+app.slave, v)
			if !discovered(t) {
				add(srv+proto+app.mesos, v)
				if numbered && i < maxNumberedPorts {
					add(numberedPort(i)+srv+proto+app.mesos, v)
				}
			}
		}
		i++
	}
	for p := range l.ports(app, one, t, p) {
		addAddrs(add, p.at.target, p.addrs...)
		add(srv+p.proto+app.mesos, p.at)
		if p.name != "" {
			add(p.name+srv+p.proto+app.mesos, p.at)
		}
		if numbered && p.index < maxNumberedPorts {
			add(numberedPort(p.index)+srv+p.proto+app.mesos, p.at)
		}
	}
}

// numberedPort is the part of a name that tells a port by its number, as the
// variables $PORT0, $PORT1 of Marathon do.
func numberedPort(i int) string { return "_port" + strconv.Itoa(i) + "." }

// numbersPorts reports whether t's ports have names by their number: not if one
// is called like that.
func (l *layout) numbersPorts(t *model.Task) bool {
	if l.cfg.Exact {
		return false
	}
	for _, p := range t.Ports {
		if number, ok := strings.CutPrefix(strings.ToLower(p.Name), "port"); ok && strings.Trim(number, "0123456789") == "" {
			return false
		}
	}
	return true
}

// underscored returns name as the first label of a service's name, cut if it
// has no room for the underscore.
func (l *layout) underscored(name string) string {
	if len(name) == maxLabel && !l.cfg.Exact && !strings.Contains(name, ".") {
		name = shorten(name, maxLabel-1)
	}
	return "_" + name
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
