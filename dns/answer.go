package dns

import (
	"net"
	"strings"

	"github.com/miekg/dns"
)

// reply returns the answer to a packet from z, nil if it deserves none. A nil z
// means that nothing is known yet. turn says which of several records comes
// first; a random one spreads clients that take the first.
func reply(z *Zone, packet []byte, tcp bool, turn uint32) *dns.Msg {
	q, rcode := parse(packet)
	switch {
	case q == nil:
		return nil
	case rcode != dns.RcodeSuccess:
		return refusal(q, rcode)
	}
	r, ok := newReply(q)
	switch asked := q.Question[0]; {
	case !ok:
		r.Rcode = dns.RcodeBadVers
	case z == nil:
		r.Rcode = dns.RcodeServerFailure
	case asked.Qclass != dns.ClassINET, asked.Qtype == dns.TypeAXFR, asked.Qtype == dns.TypeIXFR:
		r.Rcode = dns.RcodeRefused
	default:
		limit := room(q, tcp)
		a := answerer{Zone: z, r: r, asked: asked, turn: turn, most: limit/smallestRR + 1}
		a.answer()
		fit(r, limit, tcp)
	}
	return r
}

// answerer fills in the reply to one question.
type answerer struct {
	*Zone
	r     *dns.Msg
	asked dns.Question
	turn  uint32
	most  int // more records than this cannot fit
}

func (a *answerer) answer() {
	name := strings.ToLower(a.asked.Name)
	d, n := a.find(name)
	if d == nil {
		a.r.Rcode = dns.RcodeRefused
		return
	}
	a.r.Authoritative = true
	apex := name == d.apex
	switch {
	case n == nil:
		a.r.Rcode = dns.RcodeNameError
	case a.asked.Qtype == dns.TypeANY && (apex || len(n.values) > 0):
		// RFC 8482 section 4.2: the whole would only serve to flood others.
		a.r.Answer = []dns.RR{&dns.HINFO{Hdr: header(a.asked.Name, dns.TypeHINFO, d.ttl), Cpu: "RFC8482"}}
	case apex && a.asked.Qtype == dns.TypeSOA:
		a.r.Answer = []dns.RR{a.soa(d, d.ttl)}
	case apex && a.asked.Qtype == dns.TypeNS:
		a.r.Answer = []dns.RR{&dns.NS{Hdr: header(a.asked.Name, dns.TypeNS, d.ttl), Ns: a.layout.mname}}
		a.addressesOf(a.layout.mname)
	default:
		a.r.Answer = a.records(a.asked.Name, d, n.ofType(a.asked.Qtype))
		if a.asked.Qtype == dns.TypeSRV {
			a.targets()
		}
	}
	if len(a.r.Answer) == 0 {
		a.r.Ns = []dns.RR{a.soa(d, d.negative)}
	}
}

// targets adds the addresses of the SRV records in the answer.
func (a *answerer) targets() {
	done := map[string]bool{}
	for _, rr := range a.r.Answer {
		if target := rr.(*dns.SRV).Target; !done[target] {
			done[target] = true
			a.addressesOf(target)
		}
	}
}

func (a *answerer) addressesOf(name string) {
	d, n := a.find(name)
	if n == nil || len(a.r.Extra) > a.most {
		return
	}
	for _, t := range [...]uint16{dns.TypeA, dns.TypeAAAA} {
		a.r.Extra = append(a.r.Extra, a.records(name, d, n.ofType(t))...)
	}
}

// records returns as many of values as can fit, starting with the one whose
// turn it is.
func (a *answerer) records(name string, d *domain, values []counted) []dns.RR {
	out := make([]dns.RR, 0, min(len(values), a.most))
	for i := range cap(out) {
		v := values[(int(a.turn)+i)%len(values)].value
		hdr := header(name, v.rrtype(), d.ttl)
		switch hdr.Rrtype {
		case dns.TypeA:
			out = append(out, &dns.A{Hdr: hdr, A: net.IP(v.addr.AsSlice())})
		case dns.TypeAAAA:
			out = append(out, &dns.AAAA{Hdr: hdr, AAAA: net.IP(v.addr.AsSlice())})
		case dns.TypeSRV:
			out = append(out, &dns.SRV{Hdr: hdr, Weight: a.layout.cfg.SRVWeight, Port: v.port, Target: v.target})
		}
	}
	return out
}

// soa returns the SOA of d. Its owner is spelled as in the question, so that it
// compresses to a pointer whatever the letter case.
func (a *answerer) soa(d *domain, ttl uint32) dns.RR {
	cfg := a.layout.cfg
	owner := a.asked.Name[len(a.asked.Name)-len(d.apex):]
	return &dns.SOA{
		Hdr: header(owner, dns.TypeSOA, ttl), Ns: a.layout.mname, Mbox: a.layout.rname,
		Serial: a.serial, Refresh: seconds(cfg.SOARefresh), Retry: seconds(cfg.SOARetry),
		Expire: seconds(cfg.SOAExpire), Minttl: d.negative,
	}
}

func header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}
