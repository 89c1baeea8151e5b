package dns

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"

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

	mesos     string // ".mesos."
	slave     string // ".slave.mesos."
	container string // ".container.mesos."
	dcos      string // ".dcos.thisdcos.directory.", empty if not served
	l4lb      string // ".l4lb.thisdcos.directory."
	mname     string
	rname     string
}

// domain is one zone in the sense of RFC 1034: a tree of names with a SOA.
type domain struct {
	apex string
	ttl  uint32
	// negative is how long "no such name" may be kept: RFC 2308 section 3.
	negative uint32
}

func newLayout(cfg Config) *layout {
	l := &layout{cfg: cfg, label: newLabeler(cfg.EnforceRFC952), mname: fqdn(cfg.SOAMname), rname: fqdn(mailbox(cfg.SOARname))}
	l.addDomain(cfg.Domain, seconds(cfg.TTL))
	l.mesos = "." + fqdn(cfg.Domain)
	l.slave = ".slave" + l.mesos
	l.container = ".container" + l.mesos
	if cfg.DCOSDomain != "" {
		l.addDomain(cfg.DCOSDomain, seconds(cfg.DCOSTTL))
		l.dcos = ".dcos." + fqdn(cfg.DCOSDomain)
		l.l4lb = ".l4lb." + fqdn(cfg.DCOSDomain)
	}
	slices.SortFunc(l.domains, func(a, b *domain) int { return len(b.apex) - len(a.apex) })
	return l
}

func (l *layout) addDomain(name string, ttl uint32) {
	negative := min(ttl, seconds(l.cfg.SOAMinimum))
	l.domains = append(l.domains, &domain{apex: fqdn(name), ttl: ttl, negative: negative})
}

// domainOf returns the domain that name is in, or nil.
func (l *layout) domainOf(name string) *domain {
	for _, d := range l.domains {
		if rest, ok := strings.CutSuffix(name, d.apex); ok && endsLabel(rest) {
			return d
		}
	}
	return nil
}

// wireDomains returns the domains as package wire takes them.
func (l *layout) wireDomains(serial uint32) []wire.Domain {
	var out []wire.Domain
	for _, d := range l.domains {
		soa := wire.AppendName(wire.AppendName(nil, l.mname), l.rname)
		for _, n := range [...]uint32{
			serial, seconds(l.cfg.SOARefresh), seconds(l.cfg.SOARetry), seconds(l.cfg.SOAExpire), d.negative,
		} {
			soa = binary.BigEndian.AppendUint32(soa, n)
		}
		out = append(out, wire.Domain{Apex: wire.AppendName(nil, d.apex), TTL: d.ttl, Negative: d.negative, SOA: soa})
	}
	return out
}

// endsLabel reports whether what stands before a domain is whole labels: a dot
// that is escaped is part of a label.
func endsLabel(rest string) bool {
	labels, ok := strings.CutSuffix(rest, ".")
	escapes := len(labels) - len(strings.TrimRight(labels, `\`))
	return rest == "" || ok && escapes%2 == 0
}

// nameserver names the server itself.
func (l *layout) nameserver(add addFunc) {
	if l.domainOf(l.mname) != nil {
		addAddrs(add, l.mname, l.cfg.NSAddrs...)
	}
}

// masters names the leading master and all of them. Masters are numbered in
// the order given, one number an address; a leader that is not listed comes
// last.
func (l *layout) masters(leader netip.AddrPort, masters []netip.AddrPort, add addFunc) {
	var numbered []netip.Addr
	if leader.IsValid() {
		name := "leader" + l.mesos
		addAddrs(add, name, leader.Addr())
		add("_leader._tcp"+l.mesos, value{target: name, port: leader.Port()})
		add("_leader._udp"+l.mesos, value{target: name, port: leader.Port()})
		if l.dcos != "" {
			addAddrs(add, "leader"+l.dcos, leader.Addr())
		}
		masters = append(slices.Clip(masters), leader)
	}
	for _, m := range masters {
		if a := m.Addr(); m.IsValid() && !slices.Contains(numbered, a) {
			addAddrs(add, "master"+strconv.Itoa(len(numbered))+l.mesos, a)
			addAddrs(add, "master"+l.mesos, a)
			if l.dcos != "" {
				addAddrs(add, "master"+l.dcos, a)
			}
			numbered = append(numbered, a)
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
		add("_slave._tcp"+l.mesos, value{target: name, port: a.Port})
	}
}

// framework names the scheduler of f. A framework that is called like one of
// the names above gets none: its tasks have theirs all the same.
func (l *layout) framework(f *model.Framework, add addFunc) {
	name := l.label.fragment(f.Name) + l.mesos
	if !f.Addr.IsValid() || l.reserved(name) {
		return
	}
	addAddrs(add, name, f.Addr)
	if f.Port != 0 {
		add("_framework._tcp."+name, value{target: name, port: f.Port})
	}
}

// reserved reports whether name is one of the cluster's own, or of a master
// that there might be.
func (l *layout) reserved(name string) bool {
	if name == l.mname {
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

// service names the address of a virtual service.
func (l *layout) service(s *vip.Service, add addFunc) {
	if s.Name != "" && l.dcos != "" {
		addAddrs(add, s.Name+l.l4lb, s.Frontend.Addr.Addr())
	}
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
