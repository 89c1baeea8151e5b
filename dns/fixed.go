package dns

import (
	"net/netip"

	"github.com/miekg/dns"

	"waggle/dns/wire"
)

// fix works out the names that do not depend on what runs: of this server, of
// this machine, those DC/OS has on each, and the configured ones. What is
// configured stands in for a record of the same name.
func (l *layout) fix() {
	l.taken = map[string]bool{}
	static, _ := staticRecords(l.cfg) // Check has told what is wrong
	for _, s := range static {
		l.taken[s.name] = true
	}
	add := func(name string, v value) { l.fixed = append(l.fixed, given{name, v}) }
	l.ownNames(l.guarded(add))
	l.taken[l.mname] = true
	for _, s := range static {
		add(s.name, s.value)
		l.pointer(add, s.addr, s.name)
	}
}

func (l *layout) ownNames(add addFunc) {
	if l.domainOf(l.mname).missing != wire.ForeignName {
		l.nameserver(add, l.mname)
	}
	if l.dcos == "" {
		return
	}
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	top := fqdn(l.cfg.DCOSDomain)
	addAddrs(add, "localhost.", local, netip.IPv6Loopback())
	addAddrs(add, "ready.spartan.", local)
	l.nameserver(add, "ns.spartan.")
	addAddrs(add, "thisnode."+top, l.cfg.NodeAddrs...)
	addAddrs(add, "public.thisnode."+top, l.cfg.PublicAddrs...)
	add("registry.component."+top, value{rrtype: dns.TypeCNAME, target: "master" + l.dcos})
}

// nameserver gives the server's addresses to name.
func (l *layout) nameserver(add addFunc, name string) {
	addAddrs(add, name, l.cfg.NSAddrs...)
	for _, a := range l.cfg.NSAddrs {
		l.pointer(add, a, name)
	}
}

// given says what fix has worked out.
func (l *layout) given(add addFunc) {
	for _, g := range l.fixed {
		add(g.name, g.value)
	}
}
