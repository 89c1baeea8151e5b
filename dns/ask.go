package dns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Reply is what a server answered, as people read it.
type Reply struct {
	Status        string // NOERROR, NXDOMAIN and so on
	Authoritative bool
	Records       []Record // the answer section
	Took          time.Duration
	TCP           bool // the answer had been cut over UDP
}

// Ask asks server once for the records of name, which may lack the final dot, of
// type kind, as in "A": over UDP, and over TCP where the answer was cut. It
// waits until ctx ends, five seconds at most. It is safe for concurrent use.
func Ask(ctx context.Context, server netip.AddrPort, name, kind string) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	rrtype, ok := dns.StringToType[strings.ToUpper(kind)]
	if !ok {
		return Reply{}, fmt.Errorf("%q is no type of record", kind)
	}
	if _, ok := dns.IsDomainName(name); !ok {
		return Reply{}, fmt.Errorf("%q is no name", name)
	}
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), rrtype)
	m.SetEdns0(maxUDP, false)
	start := time.Now()
	in, _, err := (&dns.Client{Net: "udp"}).ExchangeContext(ctx, m, server.String())
	cut := err == nil && in.Truncated
	if cut {
		in, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, m, server.String())
	}
	if err != nil {
		return Reply{}, fmt.Errorf("ask %s for %s %s: %w", server, name, kind, err)
	}
	r := Reply{Status: dns.RcodeToString[in.Rcode], Authoritative: in.Authoritative, Took: time.Since(start), TCP: cut}
	for _, rr := range in.Answer {
		h := rr.Header()
		r.Records = append(r.Records, Record{
			Name: h.Name, Type: dns.TypeToString[h.Rrtype], TTL: h.Ttl,
			Data: strings.TrimPrefix(rr.String(), h.String()),
		})
	}
	return r, nil
}
