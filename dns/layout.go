package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"waggle/dns/wire"
	"waggle/model"
	"waggle/vip"
)

// layout is a Config worked out: it says which names each thing of a cluster
// has. Its methods are pure, so what a thing gave to the names can be worked
// out again when it goes.
type layout struct {
	cfg     Config
	label   labeler
	domains []*domain // the longest name first
	wire    []wire.Domain
	fixed   []given         // what names have whatever runs
	taken   map[string]bool // names that no app, framework or service can have
	idle    atomic.Pointer[builder]

	mesos     string // ".mesos."
	slave     string // ".slave.mesos."
	container string // ".container.mesos."
	network   string // ".network.mesos."
	instance  string // ".instance.mesos."
	agents    string // ".agent.mesos."
	dcos      string // ".dcos.thisdcos.directory.", empty if not served
	l4lb      string // ".l4lb.thisdcos.directory."
	mname     string
}

// newLayout works out cfg, which has passed Check.
func newLayout(cfg Config) *layout {
	l := &layout{cfg: cfg, label: newLabeler(cfg.EnforceRFC952), mname: fqdn(cfg.SOAMname), domains: newDomains(cfg)}
	l.wire = l.wireDomains()
	l.mesos = "." + fqdn(cfg.Domain)
	l.slave, l.container, l.network = ".slave"+l.mesos, ".container"+l.mesos, ".network"+l.mesos
	l.instance, l.agents = ".instance"+l.mesos, ".agent"+l.mesos
	if cfg.DCOSDomain != "" {
		l.dcos = ".dcos." + fqdn(cfg.DCOSDomain)
		l.l4lb = ".l4lb." + fqdn(cfg.DCOSDomain)
	}
	l.fix()
	return l
}

// masters names the leading master and all of them. Masters are numbered in
// the order given, one number an address; a leader that is not listed comes
// last.
func (l *layout) masters(leader netip.AddrPort, masters []netip.AddrPort, add addFunc) {
	var numbered []netip.Addr
	if leader.IsValid() {
		name := "leader" + l.mesos
		addAddrs(add, name, leader.Addr())
		add("_leader._tcp"+l.mesos, l.service(name, leader.Port()))
		add("_leader._udp"+l.mesos, l.service(name, leader.Port()))
		if l.dcos != "" {
			addAddrs(add, "leader"+l.dcos, leader.Addr())
		}
		masters = append(slices.Clip(masters), leader)
	}
	for _, m := range masters {
		if a := m.Addr(); m.IsValid() && !slices.Contains(numbered, a) {
			name := "master" + strconv.Itoa(len(numbered)) + l.mesos
			addAddrs(add, name, a)
			addAddrs(add, "master"+l.mesos, a)
			if l.dcos != "" {
				addAddrs(add, "master"+l.dcos, a)
			}
			l.pointer(add, a, name)
			numbered = append(numbered, a)
		}
	}
	// As many as the most masters DC/OS has, who all run ZooKeeper.
	const zks = 5
	for i := range zks {
		if l.dcos != "" && len(numbered) > 0 {
			addAddrs(add, "zk-"+strconv.Itoa(i+1)+".zk.", numbered[i%len(numbered)])
		}
	}
}

func (l *layout) agent(a *model.Agent, add addFunc) {
	if !a.Addr.IsValid() {
		return
	}
	name := "slave" + l.mesos
	addAddrs(add, name, a.Addr)
	if a.Port != 0 {
		add("_slave._tcp"+l.mesos, l.service(name, a.Port))
	}
	if l.cfg.Exact {
		l.pointer(add, a.Addr, name)
		return
	}
	names := l.agentNames(a)
	for _, n := range names {
		addAddrs(add, n, a.Addr)
	}
	if len(names) > 0 {
		l.pointer(add, a.Addr, names[0])
	}
}

// agentNames returns the names of an agent: by its id, by its host's name in
// one label, and as that is written.
func (l *layout) agentNames(a *model.Agent) (names []string) {
	host := strings.ToLower(a.Hostname)
	if _, err := netip.ParseAddr(host); err == nil {
		host = strings.NewReplacer(":", "-", ".", "-").Replace(host)
	}
	for _, n := range [...]string{fullLabel(a.ID), fullLabel(host), host} {
		if n += l.agents; askable(n) && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// framework names the scheduler of f. A framework that is called like one of
// the names above gets none: its tasks have theirs all the same.
func (l *layout) framework(f *model.Framework, add addFunc) {
	name := l.frameworkName(f.Name) + l.mesos
	if !f.Addr.IsValid() || l.reserved(name) {
		return
	}
	add = l.guarded(add)
	addAddrs(add, name, f.Addr)
	l.pointer(add, f.Addr, name)
	if f.Port != 0 {
		add("_framework._tcp."+name, l.service(name, f.Port))
	}
}

// frameworkName folds the name of a framework. One that would put its tasks
// among names of another kind is told apart by a hash.
func (l *layout) frameworkName(name string) string {
	n := l.label.fragment(name)
	if l.cfg.Exact {
		return n
	}
	switch n[strings.LastIndexByte(n, '.')+1:] {
	case "agent", "container", "instance", "network":
		n += "-" + shortHash(name)
	}
	// The longest names of tasks: _port._tcp.127.task.framework.instance.<Domain>,
	// port and task as long as a label may be.
	return shorten(n, maxName-len(l.container)-2*(maxLabel+1)-len("_tcp.127."))
}

// reserved reports whether name is one of the cluster's own, or of a master
// that there might be.
func (l *layout) reserved(name string) bool {
	if l.taken[name] {
		return true
	}
	switch first := strings.TrimSuffix(name, l.mesos); first {
	case "leader", "slave":
		return true
	default:
		number, ok := strings.CutPrefix(first, "master")
		return ok && strings.Trim(number, "0123456789") == ""
	}
}

// virtual names the address of a virtual service.
func (l *layout) virtual(s *vip.Service, add addFunc) {
	if s.Name != "" && l.dcos != "" {
		add = l.guarded(add)
		name := shorten(s.Name, maxName-len(l.l4lb)) + l.l4lb
		addAddrs(add, name, s.Frontend.Addr.Addr())
		l.pointer(add, s.Frontend.Addr.Addr(), name)
	}
}

// guarded leaves out of add what would take over a name of the configuration.
func (l *layout) guarded(add addFunc) addFunc {
	return func(name string, v value) {
		if !l.taken[name] {
			add(name, v)
		}
	}
}

// service returns a SRV record's value.
func (l *layout) service(target string, port uint16) value {
	return value{target: target, port: port, weight: l.cfg.SRVWeight}
}

// addAddrs adds the valid ones of addrs to name.
func addAddrs(add addFunc, name string, addrs ...netip.Addr) {
	for _, a := range addrs {
		// A zone such as in fe80::1%eth0 means nothing to who asks.
		if a = a.Unmap().WithZone(""); a.IsValid() {
			add(name, value{addr: a})
		}
	}
}
