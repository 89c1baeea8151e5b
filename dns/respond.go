package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/dns/wire"
)

// responder answers for one reader. It holds what is used again from one query
// to the next, so that the usual ones allocate nothing.
type responder struct {
	s       *Server
	tally   *tally
	query   *wire.Query  // the one being answered
	outcome wire.Outcome // what has become of it; Slow unless it was answered by copying
	queries []wire.Query
}

func newResponder(s *Server, t *tally, batch int) *responder {
	return &responder{s: s, tally: t, queries: make([]wire.Query, batch)}
}

// prepare takes the packets that sock has received apart and looks their names
// up, all at once.
func (r *responder) prepare(sock *wire.Socket, n int) {
	for i := range n {
		r.queries[i].Parse(sock.Packet(i))
	}
	if n > 1 {
		r.find(r.queries[:n])
	}
}

func (r *responder) find(queries []wire.Query) {
	// What panics here does so again in answer, where it costs one query.
	defer func() { _ = recover() }()
	if z := r.s.zone(); z != nil {
		z.index.Find(queries)
	}
}

// answerNow is answer for one packet by itself.
func (r *responder) answerNow(room, packet []byte, client netip.AddrPort) (reply []byte, by wire.Verdict) {
	r.queries[0].Parse(packet)
	return r.answer(0, room, packet, client)
}

// answer returns the reply to packet, which has been parsed into query i, put
// into room, nil for none, or says that it takes more than copying (Slow) or is
// for the Forwarder (Foreign).
func (r *responder) answer(i int, room, packet []byte, client netip.AddrPort) (reply []byte, by wire.Verdict) {
	r.query, r.outcome = &r.queries[i], wire.Outcome{}
	defer func() {
		if p := recover(); p != nil {
			reply, by = r.s.panicked(p, packet), wire.Answered
		}
	}()
	if !r.s.gate.admits(client.Addr()) {
		r.tally.note(denied)
		return r.s.metered(deny(room, packet), client.Addr(), dns.RcodeRefused, false, r.tally), wire.Answered
	}
	if !r.query.Usual() {
		return nil, wire.Slow
	}
	turn := rand.Uint32()
	start, timed := r.clock(turn)
	reply, out := r.look(room, packet, turn)
	if out.Verdict != wire.Answered {
		return nil, out.Verdict
	}
	r.outcome = out
	rcode := int(out.Rcode)
	r.tally.answer(1+int(out.Domain), r.query.Type, rcode, 1)
	if timed {
		r.note(time.Since(start), reply, rcode, client)
	}
	return r.s.metered(r.s.offering(reply), client.Addr(), rcode, false, r.tally), wire.Answered
}

// look returns the reply to the query in packet if that takes no more than
// copying, and what became of it.
func (r *responder) look(room, packet []byte, turn uint32) ([]byte, wire.Outcome) {
	z := r.s.zone()
	if z == nil {
		return r.query.Refuse(room, packet, dns.RcodeServerFailure), noZone(dns.RcodeServerFailure)
	}
	limit := r.query.Size
	if r.tally.proto == protoTCP {
		limit = dns.MaxMsgSize
	}
	reply, outcome := z.index.Answer(room, packet, r.query, limit, turn)
	if outcome.Verdict == wire.Foreign {
		return r.foreign(room, packet)
	}
	return reply, outcome
}

// noZone is the outcome of a query about no zone of ours that has a reply.
func noZone(rcode uint8) wire.Outcome {
	return wire.Outcome{Verdict: wire.Answered, Domain: -1, Rcode: rcode}
}

// note takes the time of one query down.
func (r *responder) note(took time.Duration, reply []byte, rcode int, client netip.AddrPort) {
	r.tally.observe(took, 1)
	if !r.s.queries.on() {
		return
	}
	r.s.queries.note(took, func() logged {
		return logged{
			client: client, proto: r.tally.proto, name: wire.Text(r.query.Name()), rrtype: r.query.Type, rcode: rcode,
			answers: int(binary.BigEndian.Uint16(reply[6:])), size: len(reply),
		}
	})
}

// sampled is of how many UDP queries that are answered at once one is timed,
// unless they are logged: looking at the clock takes as long as half an answer.
const sampled = 64

func (r *responder) clock(turn uint32) (start time.Time, timed bool) {
	if r.tally.proto == protoUDP && turn%sampled != 0 && !r.s.queries.on() {
		return time.Time{}, false
	}
	return time.Now(), true
}

// handle answers j, whose packet takes more than copying, with one call of
// j.reply: at once or, where a CNAME record leads to somebody else's name, once
// that has been asked for.
func (s *Server) handle(j job, t *tally) {
	defer s.rescue(j)
	start, z := time.Now(), s.zone()
	r := unusual(z, j.packet, t.proto == protoTCP)
	if r == nil {
		t.note(ignored)
		j.reply(nil, nil)
		return
	}
	if to := s.leadsAway(z, r); to != "" {
		s.follow(j, r, to, t, func() {
			defer s.rescue(j)
			j.reply(nil, s.finish(j, z, r, start, t))
		})
		return
	}
	j.reply(nil, s.finish(j, z, r, start, t))
}

// finish counts the reply r to j and returns it ready to send, nil for none.
func (s *Server) finish(j job, z *Zone, r *dns.Msg, start time.Time, t *tally) []byte {
	r, proven := s.answerOptions(j.packet, r, j.client.Addr(), t.proto == protoTCP, start)
	out, err := r.Pack()
	if err != nil {
		s.log.Error("answer cannot be packed", zap.String("proto", t.proto), zap.Error(err))
		r = refusal(r, dns.RcodeServerFailure)
		out, _ = r.Pack()
	}
	took := time.Since(start)
	t.answer(zoneNumber(z, r), asked(r).Qtype, r.Rcode, 1)
	t.observe(took, 1)
	if s.queries.on() {
		s.queries.note(took, func() logged {
			return logged{
				client: j.client, proto: t.proto, name: asked(r).Name, rrtype: asked(r).Qtype, rcode: r.Rcode,
				answers: len(r.Answer), size: len(out),
			}
		})
	}
	return s.metered(s.offering(out), j.client.Addr(), r.Rcode, proven, t)
}

// offering says in a reply, in place, that we answer for others too, if we do:
// RA is about a server, not about one answer (RFC 1035 section 4.1.1).
func (s *Server) offering(reply []byte) []byte {
	const flagRA = 0x80
	if s.cfg.Forward != nil {
		reply[3] |= flagRA
	}
	return reply
}

// asked returns the question of a message, an empty one for none.
func asked(m *dns.Msg) dns.Question {
	if len(m.Question) == 0 {
		return dns.Question{}
	}
	return m.Question[0]
}

// unusual returns the reply to packet without what its options ask for.
func unusual(z *Zone, packet []byte, tcp bool) *dns.Msg {
	if onlyCookie(packet) {
		return cookieReply(packet)
	}
	return reply(z, packet, tcp, rand.Uint32())
}

// zoneNumber returns by which number the zone of a message is counted.
func zoneNumber(z *Zone, m *dns.Msg) int {
	if z == nil || len(m.Question) == 0 {
		return 0
	}
	d, _ := z.find(strings.ToLower(m.Question[0].Name))
	return 1 + slices.Index(z.layout.domains, d)
}

// job is a packet that is answered later. reply takes nil for no reply, waits for
// nothing, and may leave the reply in an Outbox if it is given one.
type job struct {
	packet []byte
	client netip.AddrPort
	reply  func(*wire.Outbox, []byte)
}

// jobsWaiting is how many packets may wait for being answered later. It bounds
// what a flood of unusual queries costs the usual ones: nothing.
const jobsWaiting = 1024

// later has j answered by and by, or not at all if there is too much to do.
func (s *Server) later(j job) {
	select {
	case s.jobs <- j:
	default:
		s.metrics.dropped.Inc()
	}
}

// work answers jobs until there will be no more.
func (s *Server) work(t *tally) {
	for j := range s.jobs {
		if s.forwards(j.packet) {
			s.forward(j, t)
		} else {
			s.handle(j, t)
		}
	}
}

// rescue is deferred by what answers j.
func (s *Server) rescue(j job) {
	if p := recover(); p != nil {
		j.reply(nil, s.panicked(p, j.packet))
	}
}

// panicked makes what went wrong with one query its own affair: SERVFAIL.
func (s *Server) panicked(p any, packet []byte) []byte {
	s.metrics.panics.Inc()
	s.log.Error("panic while answering", zap.Any("panic", p), zap.Binary("query", packet), zap.Stack("stack"))
	q, _ := parse(packet)
	if q == nil {
		return nil
	}
	out, _ := refusal(q, dns.RcodeServerFailure).Pack()
	return out
}
