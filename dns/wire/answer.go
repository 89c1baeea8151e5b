package wire

import (
	"bytes"
	"encoding/binary"
)

// Rcodes that an Index answers with (RFC 1035 section 4.1.1).
const (
	NoError  = 0
	NXDomain = 3
	Refused  = 5
)

// Outcome says what became of a Query.
type Outcome struct {
	// Verdict says whether there is a reply. The rest is about one.
	Verdict Verdict
	Domain  int8 // number of the domain that answered, -1 for none
	Rcode   uint8
	// Truncated says that the reply lacks records that were asked for.
	Truncated bool
}

// Verdict says who is to answer a Query.
type Verdict uint8

const (
	// Slow means that the question is ours but needs more than copying.
	Slow Verdict = iota
	// Answered means that there is a reply.
	Answered
	// Foreign means that the name is in none of the domains.
	Foreign
)

// The fields of the header's two octets of flags.
const (
	flagQR  = 0x80
	flagAA  = 0x04
	flagTC  = 0x02
	flagsRD = 0x01
	flagsCD = 0x10
)

const (
	offFlags      = 2
	offAnswers    = 6
	offAuthority  = 8
	offAdditional = 10
)

// Compression pointers (RFC 1035 section 4.1.4), and the one to the name asked for.
const (
	pointer    = 0xc000
	maxPointer = 0x3fff
	toQuestion = pointer | headerSize
)

// recordFixed is what a record has beside its data if its owner is a pointer.
const recordFixed = 2 + 2 + 2 + 4 + 2

// maxTargets is how many services are answered here with the addresses of their
// targets: as many as ever fit into a reply over UDP. More come over TCP only.
const maxTargets = MaxUDP / (recordFixed + 7)

// Answer puts the reply to packet, which Parse took apart into q, into out from
// its beginning on and returns it with what became of it. The reply is never
// longer than limit, which is at least MinUDP; with that much room in out
// nothing is allocated. turn says which of several records comes first; if they
// do not all fit, they are those from there on, so that with a random turn each
// is as likely to be in the reply as any other.
func (x *Index) Answer(out, packet []byte, q *Query, limit int, turn uint32) ([]byte, Outcome) {
	name, e := q.Name(), q.found
	if q.in != x {
		e = x.lookup(x.hash(name), name)
	}
	a := answer{x: x, q: q, out: out[:0], limit: limit, turn: turn}
	if q.EDNS {
		a.limit -= optSize
	}
	if e == nil {
		return a.none(packet, name)
	}
	a.domain = e.domain()
	return a.found(packet, name, e)
}

// found answers from what is at name, or is so by another name.
func (a *answer) found(packet, name []byte, e entry) ([]byte, Outcome) {
	if s, ok := e.set(a.q.Type); ok {
		if a.x.domains[a.domain].Of != nil && s.rrtype != typeA && s.rrtype != typeAAAA {
			return a.out, Outcome{} // its data may have the other name in it
		}
		return a.records(packet, &s)
	}
	if _, ok := e.set(typeCNAME); ok {
		return a.out, Outcome{}
	}
	return a.nothing(packet, name, NoError)
}

// Refuse puts a reply to packet into out that has no records but rcode, as
// Answer does. It is for names that are not ours.
func (q *Query) Refuse(out, packet []byte, rcode uint8) []byte {
	a := answer{q: q, out: out[:0], limit: MinUDP, domain: -1}
	a.begin(packet, 0, rcode)
	a.opt()
	return a.out
}

// answer is a reply in the making. limit leaves room for the OPT record.
type answer struct {
	x          *Index
	q          *Query
	out        []byte
	limit      int
	turn       uint32
	domain     int
	additional uint16
}

// begin writes the header and the question as received. Of the flags RD and CD
// are copied (RFC 1035, RFC 4035 section 3.1.6).
func (a *answer) begin(packet []byte, flags, rcode uint8) {
	question := headerSize + a.q.nameSize + 4
	a.out = append(a.out, packet[:question]...)
	h := a.out[:headerSize:headerSize]
	h[offFlags] = flagQR | flags | packet[offFlags]&flagsRD
	h[offFlags+1] = packet[offFlags+1]&flagsCD | rcode
	binary.BigEndian.PutUint64(h[4:], 1<<48)
}

func (a *answer) setCount(off int, n uint16) { binary.BigEndian.PutUint16(a.out[off:], n) }

// opt ends the reply, with an OPT record if the query has one. Of its flags DO
// is copied (RFC 3225).
func (a *answer) opt() {
	if a.q.EDNS {
		const root, do = 0, 0x80
		a.additional++
		flags := byte(0)
		if a.q.DO {
			flags = do
		}
		a.out = append(a.out, root, 0, typeOPT, MaxUDP>>8, MaxUDP&0xff, 0, 0, flags, 0, 0, 0)
	}
	if a.additional > 0 {
		a.setCount(offAdditional, a.additional)
	}
}

func (a *answer) done(rcode uint8) ([]byte, Outcome) {
	a.opt()
	return a.out, Outcome{Verdict: Answered, Domain: int8(a.domain), Rcode: rcode, Truncated: a.out[offFlags]&flagTC != 0}
}

// record appends a record of class IN.
func (a *answer) record(owner, rrtype uint16, ttl uint32, data []byte) {
	a.out = binary.BigEndian.AppendUint16(a.out, owner)
	a.out = binary.BigEndian.AppendUint32(a.out, uint32(rrtype)<<16|classIN)
	a.out = binary.BigEndian.AppendUint32(a.out, ttl)
	a.out = binary.BigEndian.AppendUint16(a.out, uint16(len(data)))
	a.out = append(a.out, data...)
}

// none answers about a name that is not in the Index: there by another name,
// foreign, the top of a domain, or not there.
func (a *answer) none(packet, name []byte) ([]byte, Outcome) {
	a.domain = a.x.domainOf(name)
	real, in := name, a.domain
	if in >= 0 && a.x.domains[in].Of != nil {
		var room [maxName + 1]byte
		real, in = a.x.real(room[:0], name, in)
		if e := a.x.lookup(a.x.hash(real), real); e != nil {
			return a.found(packet, name, e)
		}
	}
	if in < 0 || a.x.domains[in].Missing == ForeignName {
		return a.out, Outcome{Verdict: Foreign, Domain: -1}
	}
	switch d := &a.x.domains[in]; {
	case len(real) == len(d.Apex):
		return a.nothing(packet, name, NoError)
	case d.Missing == RefusedName:
		return a.q.Refuse(a.out, packet, Refused), Outcome{Verdict: Answered, Domain: int8(a.domain), Rcode: Refused}
	}
	return a.nothing(packet, name, NXDomain)
}

// nothing answers that there is no record, with the domain's SOA for how long
// (RFC 2308). What a domain has at its top beside what was added comes here too.
func (a *answer) nothing(packet, name []byte, rcode uint8) ([]byte, Outcome) {
	d := &a.x.domains[a.domain]
	above := len(name) - d.apexSize(name)
	if above == 0 {
		switch a.q.Type {
		case typeSOA:
			a.begin(packet, flagAA, NoError)
			a.record(toQuestion, typeSOA, d.TTL, d.SOA)
			a.setCount(offAnswers, 1)
			return a.done(NoError)
		case typeNS:
			return a.out, Outcome{}
		}
	}
	a.begin(packet, flagAA, rcode)
	// The question ends with the apex, so a pointer into it is the owner.
	a.record(toQuestion+uint16(above), typeSOA, d.Negative, d.SOA)
	a.setCount(offAuthority, 1)
	return a.done(rcode)
}

// records answers with the records of s, as many as fit.
func (a *answer) records(packet []byte, s *set) ([]byte, Outcome) {
	services := s.rrtype == typeSRV
	if services && s.n > maxTargets && a.limit > MaxUDP {
		return a.out, Outcome{}
	}
	a.begin(packet, flagAA, NoError)
	ttl := a.x.domains[a.domain].TTL
	var targets targets
	fit := 0
	for i := a.first(s.n); fit < s.n; fit++ {
		data := s.record(i)
		if len(a.out)+recordFixed+len(data) > a.limit {
			break
		}
		a.record(toQuestion, s.rrtype, ttl, data)
		if services && fit < maxTargets {
			targets.at[fit] = uint16(len(a.out) - len(data) + 6)
		}
		if i++; i == s.n {
			i = 0
		}
	}
	a.setCount(offAnswers, uint16(fit))
	switch {
	case fit < s.n:
		a.out[offFlags] |= flagTC
	case services:
		targets.n = fit
		a.addresses(&targets)
	}
	return a.done(NoError)
}

// first returns which of n records comes first: each as often as any other.
func (a *answer) first(n int) int { return int(uint64(a.turn) * uint64(n) >> 32) }

// targets says where in a reply the targets of its services begin.
type targets struct {
	n  int
	at [maxTargets]uint16
}

// addresses adds the addresses of all targets, each target once, until one does
// not fit: they are a courtesy whose loss says nothing (RFC 2181 section 9).
func (a *answer) addresses(t *targets) {
	var hashes [maxTargets]uint64
	for i, at := range t.at[:t.n] {
		if at > maxPointer {
			return
		}
		name := a.nameAt(at)
		hashes[i] = a.x.hash(name)
		if a.seen(t, hashes[:i], hashes[i], name) {
			continue
		}
		e := a.x.lookup(hashes[i], name)
		if e == nil {
			continue
		}
		for _, rrtype := range [...]uint16{typeA, typeAAAA} {
			if s, ok := e.set(rrtype); ok && !a.addressesAt(pointer|at, &s, a.x.domains[e.domain()].TTL) {
				return
			}
		}
	}
}

// addressesAt adds the addresses in s and reports whether all of them fit.
func (a *answer) addressesAt(owner uint16, s *set, ttl uint32) bool {
	i := a.first(s.n)
	for range s.n {
		if len(a.out)+recordFixed+s.each > a.limit {
			return false
		}
		a.record(owner, s.rrtype, ttl, s.record(i))
		a.additional++
		if i++; i == s.n {
			i = 0
		}
	}
	return true
}

// seen reports whether one of the targets before has the name too.
func (a *answer) seen(t *targets, before []uint64, hash uint64, name []byte) bool {
	for i, h := range before {
		if h == hash && bytes.Equal(a.nameAt(t.at[i]), name) {
			return true
		}
	}
	return false
}

// nameAt returns the name, without pointers, at a place in the reply.
func (a *answer) nameAt(at uint16) []byte {
	end := int(at)
	for a.out[end] != 0 {
		end += 1 + int(a.out[end])
	}
	return a.out[at : end+1]
}
