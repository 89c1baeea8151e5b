package dns

import (
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
		a := answerer{Zone: z, r: r, asked: asked, tcp: tcp, turn: turn, most: limit/smallestRR + 1}
		a.answer()
		fit(r, limit)
	}
	return r
}

// answerer fills in the reply to one question.
type answerer struct {
	*Zone
	r     *dns.Msg
	asked dns.Question
	tcp   bool
	turn  uint32
	most  int // more records than this cannot fit
}

// maxChain is how many CNAME records are followed for one question. More are
// taken for a loop.
const maxChain = 16

func (a *answerer) answer() {
	owner := a.asked.Name
	for range maxChain {
		next := a.answerAt(owner)
		if next == "" {
			return
		}
		owner = next
	}
	a.r.Answer, a.r.Rcode = nil, dns.RcodeServerFailure
}

// answerAt answers from what is at owner, and returns where a CNAME record leads
// on to. One that leads to somebody else's name is all of the answer.
func (a *answerer) answerAt(owner string) (next string) {
	name := strings.ToLower(owner)
	d, n := a.find(name)
	if d == nil || n == nil && !a.ours(name) {
		if len(a.r.Answer) == 0 {
			a.r.Rcode = dns.RcodeRefused
		}
		return ""
	}
	a.r.Authoritative = true
	var found []dns.RR
	switch t := a.asked.Qtype; {
	case n == nil:
		a.r.Rcode = dns.RcodeNameError
	case t == dns.TypeANY:
		found = a.all(owner, d, n)
	case t == dns.TypeSOA && d.isApex(name), t == dns.TypeNS && d.isApex(name):
		found = a.top(owner, d, t)
	default:
		if found = a.records(owner, d, n, t); len(found) == 0 {
			if found = a.records(owner, d, n, dns.TypeCNAME); len(found) > 0 {
				next = found[0].(*dns.CNAME).Target
			}
		}
		if t == dns.TypeSRV {
			a.targets(found)
		}
	}
	a.r.Answer = append(a.r.Answer, found...)
	if len(found) == 0 {
		a.r.Ns = []dns.RR{a.soa(owner, d, d.negative)}
	}
	return next
}

// all answers a question for ANY: with everything, or where that is much to
// send to who may not have asked, with a hint (RFC 8482 sections 4.2 and 4.4).
func (a *answerer) all(owner string, d *domain, n *node) []dns.RR {
	var found []dns.RR
	if d.isApex(strings.ToLower(owner)) {
		found = append(a.top(owner, d, dns.TypeSOA), a.top(owner, d, dns.TypeNS)...)
	}
	if len(n.records) > a.most {
		n = &node{records: n.records[:a.most], renames: n.renames}
	}
	for _, r := range n.records {
		found = append(found, n.rr(owner, r, d.ttl))
	}
	if len(found) == 0 || a.tcp {
		return found
	}
	whole := dns.Msg{Compress: true, Question: a.r.Question, Answer: found, Extra: a.r.Extra}
	if whole.Len() > minUDP {
		return []dns.RR{&dns.HINFO{Hdr: header(owner, dns.TypeHINFO, d.ttl), Cpu: "RFC8482"}}
	}
	return found
}

// top answers with what d has at its top beside what was added.
func (a *answerer) top(owner string, d *domain, rrtype uint16) []dns.RR {
	if rrtype == dns.TypeSOA {
		return []dns.RR{a.soa(owner, d, d.ttl)}
	}
	if a.asked.Qtype == dns.TypeNS {
		a.addressesOf(d.mname)
	}
	return []dns.RR{d.ns(owner)}
}

// targets adds the addresses of the SRV records in found.
func (a *answerer) targets(found []dns.RR) {
	done := map[string]bool{}
	for _, rr := range found {
		if srv, ok := rr.(*dns.SRV); ok && !done[srv.Target] {
			done[srv.Target] = true
			a.addressesOf(srv.Target)
		}
	}
}

func (a *answerer) addressesOf(name string) {
	d, n := a.find(name)
	if n == nil || len(a.r.Extra) > a.most {
		return
	}
	for _, t := range [...]uint16{dns.TypeA, dns.TypeAAAA} {
		a.r.Extra = append(a.r.Extra, a.records(name, d, n, t)...)
	}
}

// records returns as many records of a type as can fit, starting with the one
// whose turn it is.
func (a *answerer) records(name string, d *domain, n *node, rrtype uint16) []dns.RR {
	records := n.ofType(rrtype)
	out := make([]dns.RR, 0, min(len(records), a.most))
	for i := range cap(out) {
		out = append(out, n.rr(name, records[(int(a.turn)+i)%len(records)], d.ttl))
	}
	return out
}

// soa returns the SOA of d. Its owner is spelled as in name, which is in d, so
// that it compresses to a pointer whatever the letter case.
func (a *answerer) soa(name string, d *domain, ttl uint32) dns.RR {
	return &dns.SOA{
		Hdr: header(d.owner(name), dns.TypeSOA, ttl), Ns: d.mname, Mbox: d.rname,
		Serial: a.serial, Refresh: d.refresh, Retry: d.retry, Expire: d.expire, Minttl: d.negative,
	}
}

func (d *domain) ns(owner string) dns.RR {
	return &dns.NS{Hdr: header(owner, dns.TypeNS, d.nsTTL), Ns: d.mname}
}

func header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}
