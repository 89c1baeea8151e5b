package dns

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"waggle/dns/guard"
	"waggle/dns/wire"
)

// Forwarder answers queries about names that no zone of ours has. Both methods
// are called from many goroutines and wait for nothing. Cached appends the answer
// to packet to dst if it has one. Resolve calls reply once, at once or later, and
// needs packet until then; reply does not wait for anything. It may leave what it
// sends upstream in out, which may be nil; so may reply in what it gets.
type Forwarder interface {
	Cached(dst, packet []byte, tcp bool) ([]byte, bool)
	Resolve(packet []byte, client netip.Addr, tcp bool, out *wire.Outbox, reply func(*wire.Outbox, []byte))
}

// foreign answers a usual query about a name that is not ours: from what is
// remembered, or with a refusal where nobody is asked.
func (r *responder) foreign(room, packet []byte) ([]byte, wire.Outcome) {
	f := r.s.cfg.Forward
	if f == nil {
		return r.query.Refuse(room, packet, dns.RcodeRefused), noZone(dns.RcodeRefused)
	}
	if out, ok := f.Cached(room[:0], packet, r.tally.proto == protoTCP); ok {
		return out, noZone(out[3] & 0xf)
	}
	return nil, wire.Outcome{Verdict: wire.Foreign, Domain: -1}
}

// forwards reports whether packet, which could not be answered at once, is for
// the Forwarder: a plain query about a name that no zone of ours has.
func (s *Server) forwards(packet []byte) bool {
	if s.cfg.Forward == nil {
		return false
	}
	// What panics here does so again in handle, where it costs one query.
	defer func() { _ = recover() }()
	z := s.zone()
	if z == nil {
		return false
	}
	var usual wire.Query
	if usual.Parse(packet); usual.Usual() {
		return z.foreign(wire.Text(usual.Name()))
	}
	q, rcode := parse(packet)
	if q == nil || rcode != dns.RcodeSuccess || len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		return false
	}
	if opt := q.IsEdns0(); opt != nil && opt.Version() != 0 || s.badCookie(packet) {
		return false
	}
	switch q.Question[0].Qtype {
	case dns.TypeAXFR, dns.TypeIXFR:
		return false
	}
	return z.foreign(strings.ToLower(q.Question[0].Name))
}

// badCookie reports whether packet has a cookie that no server takes.
func (s *Server) badCookie(packet []byte) bool {
	e, _ := findEDNS(packet)
	data, ok := e.option(optionCookie)
	return ok && s.gate.jar.Check(data, netip.Addr{}, time.Time{}) == guard.Malformed
}

// foreign reports whether no domain of z has name, which is in lower case.
func (z *Zone) foreign(name string) bool {
	d, _ := z.find(name)
	return d == nil
}

// forward has j answered by the Forwarder.
func (s *Server) forward(j job, t *tally) { s.forwardBy(nil, j, t) }

// forwardBy does so with questions that are left in out.
func (s *Server) forwardBy(out *wire.Outbox, j job, t *tally) {
	start := time.Now()
	s.cfg.Forward.Resolve(j.packet, j.client.Addr(), t.proto == protoTCP, out, func(out *wire.Outbox, reply []byte) {
		j.reply(out, s.forwarded(reply, j, start, t))
	})
}

// leadsAway returns the name of others that the last record of r leads to, where
// the client wants that looked up and we can.
func (s *Server) leadsAway(z *Zone, r *dns.Msg) string {
	if s.cfg.Forward == nil || !r.RecursionDesired || r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0 {
		return ""
	}
	last, ok := r.Answer[len(r.Answer)-1].(*dns.CNAME)
	switch t := asked(r).Qtype; {
	case !ok, t == dns.TypeCNAME, t == dns.TypeANY, !z.foreign(strings.ToLower(last.Target)):
		return ""
	}
	return last.Target
}

// follow asks for the name that the last record of r, the reply to j, leads to,
// adds to r what is said of it (RFC 1034 section 4.3.2) and calls done. Where
// nobody may be asked for it the record is all of the answer.
func (s *Server) follow(j job, r *dns.Msg, to string, t *tally, done func()) {
	q := new(dns.Msg).SetQuestion(to, asked(r).Qtype)
	q.CheckingDisabled = r.CheckingDisabled
	q.SetEdns0(maxUDP, r.IsEdns0() != nil && r.IsEdns0().Do())
	packet, err := q.Pack()
	if err != nil {
		done()
		return
	}
	// As by TCP, since it is cut for the client when it is put together.
	s.cfg.Forward.Resolve(packet, j.client.Addr(), true, nil, func(_ *wire.Outbox, reply []byte) {
		var more dns.Msg
		if err := more.Unpack(reply); err != nil {
			more.Rcode = dns.RcodeServerFailure
		}
		if more.Rcode != dns.RcodeRefused {
			r.Rcode = more.Rcode
			r.Ns = slices.DeleteFunc(more.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeSOA })
			r.Answer = append(r.Answer, more.Answer...)
			asked, _ := parse(j.packet)
			fit(r, room(asked, t.proto == protoTCP))
		}
		done()
	})
}

// await returns what answer, which is handle or forward, says to who asks over
// one TCP connection, and so waits for nobody but himself, until ctx ends.
func (s *Server) await(ctx context.Context, packet []byte, client netip.AddrPort, t *tally, answer func(job, *tally)) []byte {
	got := make(chan []byte, 1)
	answer(job{packet: packet, client: client, reply: func(_ *wire.Outbox, reply []byte) { got <- reply }}, t)
	select {
	case reply := <-got:
		return reply
	case <-ctx.Done():
		return nil
	}
}

// forwarded counts a reply of the Forwarder as all others are counted, and
// returns it as it may be sent.
func (s *Server) forwarded(reply []byte, j job, start time.Time, t *tally) []byte {
	now := time.Now()
	took, rcode := now.Sub(start), int(reply[3]&0xf)
	at := skipName(j.packet, headerSize)
	rrtype := binary.BigEndian.Uint16(j.packet[at:])
	t.answer(0, rrtype, rcode, 1)
	t.observe(took, 1)
	if s.queries.on() {
		s.queries.note(took, func() logged {
			return logged{
				client: j.client, proto: t.proto, name: wire.Text(j.packet[headerSize:at]), rrtype: rrtype, rcode: rcode,
				answers: int(binary.BigEndian.Uint16(reply[6:])), size: len(reply),
			}
		})
	}
	reply, proven := s.withOptions(reply, j, t.proto == protoTCP, now)
	return s.metered(reply, j.client.Addr(), rcode, proven, t)
}

// withOptions adds to a reply of the Forwarder what the options of the query ask
// for, as answerOptions does.
func (s *Server) withOptions(reply []byte, j job, tcp bool, now time.Time) (_ []byte, proven bool) {
	asked, ok := findEDNS(j.packet)
	if !ok || len(asked.options) == 0 {
		return reply, false
	}
	opt, ok := findEDNS(reply)
	if !ok {
		return reply, false
	}
	var more []byte
	if data, ok := asked.option(optionCookie); ok {
		proven = s.gate.jar.Check(data, j.client.Addr(), now) == guard.Proven
		more = appendOption(more, optionCookie, s.gate.jar.Append(nil, data, j.client.Addr(), now))
	}
	if _, ok := asked.option(optionKeepalive); ok && tcp {
		more = appendOption(more, optionKeepalive, keepaliveData(s.idle()))
	}
	if !tcp && len(reply)+len(more) > asked.limit() {
		return cut(reply), proven
	}
	size := reply[len(reply)-len(opt.options)-2:] // the OPT record is the last one
	binary.BigEndian.PutUint16(size, uint16(len(opt.options)+len(more)))
	return append(reply, more...), proven
}

func appendOption(b []byte, code uint16, data []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}
