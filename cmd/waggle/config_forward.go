package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"waggle/dns/forward"
	"waggle/internal/hostnet"
)

// forwardConfig is who is asked for names that are not ours.
type forwardConfig struct {
	On        bool          `yaml:"on" help:"answer names that are not ours, by asking upstreams; otherwise they are refused"`
	Upstreams []string      `yaml:"upstreams" help:"DNS servers to ask: address, address:port, or tls://address#name; none means those of /etc/resolv.conf that are not us"`
	Zones     []string      `yaml:"zones" help:"other servers for a name and what is below it, zone=upstream, once for each upstream"`
	Local     []string      `yaml:"local" help:"names that are never asked for outside, with all below them"`
	Timeout   time.Duration `yaml:"timeout" help:"how long a question may take in all"`
	Stale     time.Duration `yaml:"stale" help:"how long an answer that has expired is kept for when no upstream answers; 0 for not at all"`
	CacheMB   uint16        `yaml:"cache_mb" help:"memory for answers, in MiB"`
	MissingMB uint16        `yaml:"missing_mb" help:"memory for negative answers, in MiB"`
	InFlight  uint16        `yaml:"in_flight" help:"questions that may wait for upstreams, shared fairly by clients"`
}

func defaultForwardConfig() forwardConfig {
	c := forward.DefaultConfig()
	return forwardConfig{
		On: true, Upstreams: []string{}, Zones: []string{}, Local: []string{}, Timeout: c.Timeout, Stale: c.StaleFor,
		CacheMB: uint16(c.AnswerBytes >> 20), MissingMB: uint16(c.NegativeBytes >> 20), InFlight: uint16(c.InFlight),
	}
}

// forwarder returns the configuration of the resolver. What cannot be read is
// told to bad, by key. Of resolv.conf it takes the servers that own does not
// claim.
func (c fileConfig) forwarder(own func(netip.AddrPort) bool, bad func(key, format string, args ...any)) forward.Config {
	f, d := c.DNS.Forward, forward.DefaultConfig()
	d.Timeout, d.StaleFor, d.InFlight = f.Timeout, f.Stale, int(f.InFlight)
	d.AnswerBytes, d.NegativeBytes = int(f.CacheMB)<<20, int(f.MissingMB)<<20
	d.Zones = map[string][]forward.Upstream{}
	add := func(key, text string, to []forward.Upstream) []forward.Upstream {
		u, err := forward.ParseUpstream(text)
		switch {
		case err != nil:
			bad(key, "%v", err)
		case own(u.Addr):
			bad(key, "%s is this server itself", text)
		default:
			return append(to, u)
		}
		return to
	}
	for _, text := range f.Upstreams {
		d.Upstreams = add("dns.forward.upstreams", text, d.Upstreams)
	}
	for _, text := range f.Zones {
		zone, upstream, ok := strings.Cut(text, "=")
		if !ok {
			bad("dns.forward.zones", "%q is not zone=upstream", text)
			continue
		}
		d.Zones[zone] = add("dns.forward.zones", upstream, d.Zones[zone])
	}
	if len(f.Upstreams) == 0 {
		servers, err := hostnet.Upstreams(hostnet.ResolvConf, own)
		if err != nil {
			bad("dns.forward.upstreams", "%v", err)
		}
		for _, s := range servers {
			d.Upstreams = append(d.Upstreams, forward.Upstream{Addr: s})
		}
	}
	d.Local = append(c.neverOutside(), f.Local...)
	if err := d.Check(); err != nil {
		bad("dns.forward", "%v", err)
	}
	return d
}

// neverOutside are the names that only we could have, whether we have them or
// not: the domains, and the reverse names of VIPs.
func (c fileConfig) neverOutside() []string {
	out := []string{c.DNS.Domain, reverse(netip.MustParsePrefix("198.51.100.0/24"))}
	if c.DNS.DCOSDomain != "" {
		out = append(out, c.DNS.DCOSDomain)
	}
	list := hostnet.Prefixes(c.VIP.First4, c.VIP.Last4)
	if c.VIP.IPv6 {
		list = append(list, hostnet.Prefixes(c.VIP.First6, c.VIP.Last6)...)
	}
	for _, p := range list {
		if p.Bits()%8 == 0 && p.Addr().Is4() || p.Bits()%4 == 0 && p.Addr().Is6() {
			out = append(out, reverse(p))
		}
	}
	return out
}

// reverse returns the name below which the reverse names of p are; p ends
// between octets (RFC 1035 section 3.5) or, for IPv6, digits (RFC 3596).
func reverse(p netip.Prefix) string {
	var b strings.Builder
	if p.Addr().Is4() {
		a := p.Addr().As4()
		for i := p.Bits()/8 - 1; i >= 0; i-- {
			fmt.Fprintf(&b, "%d.", a[i])
		}
		return b.String() + "in-addr.arpa"
	}
	a := p.Addr().As16()
	for i := p.Bits()/4 - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "%x.", a[i/2]>>(4*(1-i%2))&0xf)
	}
	return b.String() + "ip6.arpa"
}
