package dns

import (
	"encoding/binary"
	"slices"
	"strings"

	"waggle/dns/wire"
)

// domain is one zone in the sense of RFC 1034: a tree of names with a SOA.
type domain struct {
	apex         string
	mname, rname string
	ttl, nsTTL   uint32
	// negative is how long "no such name" may be kept: RFC 2308 section 3.
	negative               uint32
	refresh, retry, expire uint32
	missing                wire.Missing
	// of is the apex of the domain that this one is another name of, or empty.
	of string
}

// isApex reports whether name, which is in d, is the top of a zone.
func (d *domain) isApex(name string) bool { return name == d.apex || d.missing == wire.ForeignName }

// owner returns the end of name, which is in d, that names the zone.
func (d *domain) owner(name string) string {
	if d.missing == wire.ForeignName {
		return name
	}
	return name[len(name)-len(d.apex):]
}

// The zones of DC/OS, below DCOSDomain and beside it. Those with other names of
// their own follow in dcosDomains.
var (
	dcosZones  = [...]string{"l4lb", "dcos", "component", "thisnode"}
	localZones = [...]string{"spartan", "localhost", "zk"}
)

// newDomains returns all domains, the longest name first.
func newDomains(cfg Config) []*domain {
	main := domain{
		apex: fqdn(cfg.Domain), mname: fqdn(cfg.SOAMname), rname: fqdn(mailbox(cfg.SOARname)),
		ttl: seconds(cfg.TTL), nsTTL: seconds(cfg.TTL), negative: min(seconds(cfg.TTL), seconds(cfg.SOAMinimum)),
		refresh: seconds(cfg.SOARefresh), retry: seconds(cfg.SOARetry), expire: seconds(cfg.SOAExpire),
	}
	out := []*domain{&main}
	// Reverse names and whatever else is given to names of no domain.
	single := main
	single.apex, single.missing = ".", wire.ForeignName
	if cfg.DCOSDomain != "" {
		out = append(out, dcosDomains(cfg, main)...)
		single.ttl = min(main.ttl, seconds(cfg.DCOSTTL))
		single.nsTTL, single.negative = single.ttl, min(single.ttl, main.negative)
	}
	out = append(out, &single)
	slices.SortStableFunc(out, func(a, b *domain) int { return len(b.apex) - len(a.apex) })
	return out
}

// dcosDomains returns the domains of DC/OS, with what it states in their SOAs.
// main is the one of mesos-dns' names, which are in one of DC/OS' too.
func dcosDomains(cfg Config, main domain) []*domain {
	const day, hour, minute = 86400, 3600, 60
	like := domain{
		mname: "ns.spartan.", rname: "support.mesosphere.com.", ttl: seconds(cfg.DCOSTTL), nsTTL: hour, negative: 1,
		refresh: minute, retry: 3 * minute, expire: day,
	}
	var out []*domain
	add := func(apex, of string, missing wire.Missing) {
		d := like
		d.apex, d.of, d.missing = apex, of, missing
		if apex != main.apex {
			out = append(out, &d)
		}
	}
	top := fqdn(cfg.DCOSDomain)
	add(top, "", wire.RefusedName)
	for _, zone := range dcosZones {
		add(zone+"."+top, "", wire.Denied)
	}
	for _, zone := range localZones {
		add(zone+".", "", wire.Denied)
	}
	add("mesos."+top, main.apex, wire.Denied)
	add("dclb."+top, "l4lb."+top, wire.Denied)
	for _, alias := range dcosAliases(cfg) {
		add(alias, top, wire.Denied)
	}
	return out
}

// dcosAliases returns the other names of DCOSDomain.
func dcosAliases(cfg Config) []string {
	var out []string
	if name, ok := strings.CutSuffix(fqdn(cfg.DCOSDomain), ".directory."); ok {
		out = append(out, name+".global.")
	}
	if cfg.CryptoID != "" {
		out = append(out, strings.ToLower(cfg.CryptoID)+".dcos.directory.")
	}
	return out
}

// domainOf returns the innermost domain that name is in, or nil. Each name of
// the domain of single names is one there only if there are records.
func (l *layout) domainOf(name string) *domain {
	for _, d := range l.domains {
		if d.missing == wire.ForeignName {
			return d
		}
		if rest, ok := strings.CutSuffix(name, d.apex); ok && endsLabel(rest) {
			return d
		}
	}
	return nil
}

// rename says that names below from are to be found below to.
type rename struct{ from, to string }

func (r rename) apply(name string) string {
	if rest, ok := strings.CutSuffix(name, r.from); ok && endsLabel(rest) {
		return rest + r.to
	}
	return name
}

// back is the reverse of apply.
func (r rename) back(name string) string { return rename{r.to, r.from}.apply(name) }

// real returns where the records of name are, the domain that is in, and what
// led there.
func (l *layout) real(name string) (string, *domain, []rename) {
	var steps []rename
	d := l.domainOf(name)
	for d != nil && d.of != "" {
		r := rename{d.apex, d.of}
		name, steps = r.apply(name), append(steps, r)
		d = l.domainOf(name)
	}
	return name, d, steps
}

// wireDomains returns the domains as package wire takes them, with the serial 0.
func (l *layout) wireDomains() []wire.Domain {
	var out []wire.Domain
	for _, d := range l.domains {
		soa := wire.AppendName(wire.AppendName(nil, d.mname), d.rname)
		for _, n := range [...]uint32{0, d.refresh, d.retry, d.expire, d.negative} {
			soa = binary.BigEndian.AppendUint32(soa, n)
		}
		w := wire.Domain{Apex: wireApex(d.apex), TTL: d.ttl, Negative: d.negative, SOA: soa, Missing: d.missing}
		if d.of != "" {
			w.Of = wireApex(d.of)
		}
		out = append(out, w)
	}
	return out
}

// domainsAt returns the domains with a serial. There is one for each change, so
// all SOAs are in one piece of memory.
func (l *layout) domainsAt(serial uint32) []wire.Domain {
	out := slices.Clone(l.wire)
	size := 0
	for i := range out {
		size += len(out[i].SOA)
	}
	all := make([]byte, 0, size)
	for i := range out {
		from := len(all)
		all = append(all, out[i].SOA...)
		out[i].SOA = all[from:len(all):len(all)]
		const behind = 5 * 4 // five numbers, of which the serial is the first
		binary.BigEndian.PutUint32(out[i].SOA[len(out[i].SOA)-behind:], serial)
	}
	return out
}

func wireApex(name string) []byte {
	if name == "." {
		return []byte{0}
	}
	return wire.AppendName(nil, name)
}

// endsLabel reports whether what stands before a domain is whole labels: a dot
// that is escaped is part of a label.
func endsLabel(rest string) bool {
	labels, ok := strings.CutSuffix(rest, ".")
	escapes := len(labels) - len(strings.TrimRight(labels, `\`))
	return rest == "" || ok && escapes%2 == 0
}
