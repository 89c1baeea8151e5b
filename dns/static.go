package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// staticRecords reads cfg.Records. Its error says all that is wrong with them,
// each with the record as it is written; the others are returned.
func staticRecords(cfg Config) (out []given, err error) {
	var errs []error
	s := statics{domains: newDomains(cfg), cfg: cfg, owners: map[string]string{}, aliases: map[string]string{}}
	for _, line := range cfg.Records {
		g, err := s.read(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("record %q: %w", line, err))
			continue
		}
		out = append(out, g)
	}
	return out, errors.Join(errs...)
}

// statics reads the records of a configuration one after the other.
type statics struct {
	cfg     Config
	domains []*domain
	owners  map[string]string // the first record of each name
	aliases map[string]string // the CNAME record of each name that has one
}

func (s *statics) read(line string) (given, error) {
	if strings.ContainsAny(line, "\n$") {
		return given{}, errors.New("is not of the form: name type data")
	}
	zp := dns.NewZoneParser(strings.NewReader(line), ".", "")
	zp.SetDefaultTTL(unsaid)
	rr, ok := zp.Next()
	switch err := zp.Err(); {
	case err != nil:
		return given{}, errors.New(strings.TrimPrefix(err.Error(), "dns: "))
	case !ok:
		return given{}, errors.New("is empty")
	case rr.Header().Ttl != unsaid:
		return given{}, errors.New("has a TTL: it is that of the zone")
	case rr.Header().Class != dns.ClassINET:
		return given{}, errors.New("is not of class IN")
	}
	name := strings.ToLower(rr.Header().Name)
	v, err := valueOf(rr)
	if err == nil {
		err = s.check(name, v, line)
	}
	return given{name, v}, err
}

// unsaid is a TTL that nobody writes.
const unsaid = 1<<31 - 7

// valueOf takes rr apart.
func valueOf(rr dns.RR) (v value, err error) {
	target := func(name string) string { return strings.ToLower(name) }
	switch rr := rr.(type) {
	case *dns.A:
		a, ok := netip.AddrFromSlice(rr.A)
		if !ok {
			return v, errors.New("has no address")
		}
		return value{addr: a.Unmap()}, nil
	case *dns.AAAA:
		a, ok := netip.AddrFromSlice(rr.AAAA)
		if !ok || a.Is4In6() {
			return v, errors.New("has no IPv6 address")
		}
		return value{addr: a}, nil
	case *dns.SRV:
		v = value{target: target(rr.Target), port: rr.Port, priority: rr.Priority, weight: rr.Weight}
	case *dns.CNAME:
		v = value{rrtype: dns.TypeCNAME, target: target(rr.Target)}
	case *dns.PTR:
		v = value{rrtype: dns.TypePTR, target: target(rr.Ptr)}
	case *dns.TXT:
		return textOf(rr)
	default:
		return v, fmt.Errorf("is of type %s, not A, AAAA, CNAME, PTR, SRV or TXT", dns.TypeToString[rr.Header().Rrtype])
	}
	if !askable(v.target) {
		return v, fmt.Errorf("leads to %q, which nobody can ask for", v.target)
	}
	return v, nil
}

// maxText keeps a TXT record within one answer over TCP.
const maxText = 32 << 10

func textOf(rr *dns.TXT) (value, error) {
	packed := make([]byte, dns.Len(rr))
	end, err := dns.PackRR(rr, packed, 0, nil, false)
	if err != nil {
		return value{}, err
	}
	_, at, err := dns.UnpackDomainName(packed, 0)
	if err != nil {
		return value{}, err
	}
	const fixed = 2 + 2 + 4 + 2 // type, class, TTL and length
	text := packed[at+fixed : end]
	if len(text) > maxText {
		return value{}, fmt.Errorf("has %d octets of text, more than %d", len(text), maxText)
	}
	return value{rrtype: dns.TypeTXT, text: string(text)}, nil
}

// check says why a record cannot be there.
func (s *statics) check(name string, v value, line string) error {
	d := s.domainOf(name)
	switch {
	case !askable(name):
		return errors.New("has a name that nobody can ask for")
	case d.of != "":
		return fmt.Errorf("is in %s, whose names are those of %s", d.apex, d.of)
	case v.rrtype == dns.TypeCNAME && name == d.apex:
		return fmt.Errorf("would make the zone %s another name (RFC 1912 section 2.4)", d.apex)
	}
	if why := s.cfg.system(name); why != "" {
		return errors.New("is a name of " + why)
	}
	if other, ok := s.aliases[name]; ok {
		return fmt.Errorf("stands beside the CNAME record %q (RFC 1034 section 3.6.2)", other)
	}
	if v.rrtype == dns.TypeCNAME {
		if other, ok := s.owners[name]; ok {
			return fmt.Errorf("is a CNAME record beside %q (RFC 1034 section 3.6.2)", other)
		}
		s.aliases[name] = line
	}
	if _, ok := s.owners[name]; !ok {
		s.owners[name] = line
	}
	return nil
}

func (s *statics) domainOf(name string) *domain {
	l := layout{domains: s.domains}
	return l.domainOf(name)
}

// clusterServices are the services of the cluster itself, in Domain.
var clusterServices = []string{"_leader._tcp", "_leader._udp", "_slave._tcp"}

// system says whose name is, if it is one of the cluster's own, which may not
// be given to something else.
func (c Config) system(name string) string {
	l := layout{cfg: c, mesos: "." + fqdn(c.Domain)}
	rest, inMesos := strings.CutSuffix(name, l.mesos)
	switch {
	case name == fqdn(c.SOAMname), name == "ns.spartan.":
		return "this server"
	case name == "ready.spartan.", name == "localhost.", strings.HasSuffix(name, ".zk."):
		return "DC/OS"
	case inMesos && l.reserved(name), inMesos && slices.Contains(clusterServices, rest), c.DCOSDomain != "" && (name == "leader.dcos."+fqdn(c.DCOSDomain) || name == "master.dcos."+fqdn(c.DCOSDomain)):
		return "the masters or agents"
	case inMesos && strings.HasSuffix(rest, ".agent") && !c.Exact:
		return "an agent"
	}
	return ""
}
