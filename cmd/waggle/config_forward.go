package main

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"waggle/dns"
	"waggle/dns/forward"
	"waggle/internal/hostnet"
)

// forwardConfig is who is asked for names that are not ours.
type forwardConfig struct {
	On        bool          `yaml:"on" help:"answer names that are not ours, by asking upstreams; otherwise they are refused"`
	Upstreams []string      `yaml:"upstreams" help:"DNS servers to ask: address, address:port, or tls://address#name; none means those of /etc/resolv.conf that are not us"`
	Zones     []string      `yaml:"zones" help:"other servers for a name and what is below it, zone=upstream, once for each upstream"`
	Local     []string      `yaml:"local" help:"names that are never asked for outside, with all below them"`
	CAFile    string        `yaml:"ca_file" help:"file in PEM form with the authorities that the certificates of tls:// servers must come from; empty means the system's"`
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
	d.Eager = dns.Loop(c.DNS.Loop).Raw()
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

// roots are the authorities that certificates of upstreams must come from, nil
// for the system's. What cannot be read is told to bad.
func (f forwardConfig) roots(bad func(key, format string, args ...any)) *x509.CertPool {
	if f.CAFile == "" {
		return nil
	}
	text, err := os.ReadFile(f.CAFile)
	if err != nil {
		bad("dns.forward.ca_file", "%v", err)
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		bad("dns.forward.ca_file", "%s has no certificate in PEM form", f.CAFile)
	}
	return pool
}

// neverOutside are the names that only we could have, whether we have them or
// not: the domains, and the reverse names of VIPs.
func (c fileConfig) neverOutside() []string {
	out := append([]string{c.DNS.Domain}, reverse(netip.MustParsePrefix("198.51.100.0/24"))...)
	if c.DNS.DCOSDomain != "" {
		out = append(out, c.DNS.DCOSDomain)
	}
	if c.DNS.CryptoID != "" {
		out = append(out, c.DNS.CryptoID+".dcos.directory")
	}
	list := hostnet.Prefixes(c.VIP.First4, c.VIP.Last4)
	if c.VIP.IPv6 {
		list = append(list, hostnet.Prefixes(c.VIP.First6, c.VIP.Last6)...)
	}
	for _, p := range list {
		out = append(out, reverse(p)...)
	}
	return out
}

// reverse returns the names below which the reverse names of p are: one if p
// ends between octets (RFC 1035 section 3.5) or, for IPv6, digits (RFC 3596),
// else one for each part of it that does.
func reverse(p netip.Prefix) (names []string) {
	step, root := 8, "in-addr.arpa"
	if p.Addr().Is6() {
		step, root = 4, "ip6.arpa"
	}
	octets := p.Masked().Addr().AsSlice()
	labels := (p.Bits() + step - 1) / step
	for part := range 1 << (labels*step - p.Bits()) {
		var b strings.Builder
		for i := labels - 1; i >= 0; i-- {
			at := i * step
			digit := int(octets[at/8]) >> (8 - step - at%8) & (1<<step - 1)
			if i == labels-1 {
				digit += part
			}
			if step == 8 {
				fmt.Fprintf(&b, "%d.", digit)
			} else {
				fmt.Fprintf(&b, "%x.", digit)
			}
		}
		names = append(names, b.String()+root)
	}
	return names
}
