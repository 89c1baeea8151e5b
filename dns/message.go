package dns

import (
	"encoding/binary"
	"sort"

	"github.com/miekg/dns"
)

const headerSize = 12

// The size of a UDP answer: what fits the smallest IPv6 path, for a client that
// says that it takes as much, else what RFC 1035 allows.
const (
	maxUDP = 1232
	minUDP = dns.MinMsgSize
)

// smallestRR is the shortest record we answer with: a compressed owner, the
// fixed fields and an IPv4 address.
const smallestRR = 2 + 10 + 4

// parse reads a query. A nil message means that the packet deserves no reply;
// an rcode other than success, that it gets that and only the message's header
// was read.
//
// The library reads on where a message ends too early or lies about what it
// holds, and takes a question that is a pointer; all of that is refused here.
func parse(packet []byte) (q *dns.Msg, rcode int) {
	q = new(dns.Msg)
	if len(packet) < headerSize || q.Unpack(packet[:headerSize]) != nil || q.Response {
		return nil, 0
	}
	if q.Opcode != dns.OpcodeQuery {
		return q, dns.RcodeNotImplemented
	}
	header := q.MsgHdr
	if !plainQuestion(packet) || q.Unpack(packet) != nil || !holds(q, packet) {
		return &dns.Msg{MsgHdr: header}, dns.RcodeFormatError
	}
	opts := 0
	for _, rr := range q.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			opts++
		}
	}
	if opts > 1 {
		return q, dns.RcodeFormatError
	}
	return q, dns.RcodeSuccess
}

// plainQuestion reports whether packet has one question with a name that is
// spelled out.
func plainQuestion(packet []byte) bool {
	if binary.BigEndian.Uint16(packet[4:]) != 1 {
		return false
	}
	for off := headerSize; off < len(packet); off += 1 + int(packet[off]) {
		switch n := packet[off]; {
		case n == 0:
			return true
		case n > maxLabel:
			return false
		}
	}
	return false
}

// holds reports whether q has as many records as the header of packet says.
func holds(q *dns.Msg, packet []byte) bool {
	for i, n := range []int{len(q.Question), len(q.Answer), len(q.Ns), len(q.Extra)} {
		if int(binary.BigEndian.Uint16(packet[4+2*i:])) != n {
			return false
		}
	}
	return true
}

// refusal returns a reply to q that is a header only.
func refusal(q *dns.Msg, rcode int) *dns.Msg {
	return &dns.Msg{MsgHdr: dns.MsgHdr{
		Id: q.Id, Response: true, Opcode: q.Opcode, RecursionDesired: q.RecursionDesired, Rcode: rcode,
	}}
}

// newReply returns an empty reply to q, with an OPT record if q has one, and
// whether q's version of EDNS is one we speak. Of the flags in it only DO is
// copied (RFC 3225), and options that we do not know are not answered.
func newReply(q *dns.Msg) (r *dns.Msg, ok bool) {
	r = new(dns.Msg).SetReply(q)
	r.Compress = true
	asked := q.IsEdns0()
	if asked == nil {
		return r, true
	}
	r.SetEdns0(maxUDP, asked.Do())
	return r, asked.Version() == 0
}

// room returns how long a reply to q may be.
func room(q *dns.Msg, tcp bool) int {
	if tcp {
		return dns.MaxMsgSize
	}
	if opt := q.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), minUDP), maxUDP)
	}
	return minUDP
}

// fit cuts r to limit: first the additional records, which are a courtesy and
// whose loss says nothing, then the answers. An OPT record, which is the first
// of the additional ones, stays. An answer that is cut says so over TCP too (RFC
// 2181 section 9), where nothing larger is to be had.
func fit(r *dns.Msg, limit int) {
	if r.Len() <= limit {
		return
	}
	answer, extra := r.Answer, r.Extra
	opt := 0
	if r.IsEdns0() != nil {
		opt = 1
	}
	r.Extra = extra[:opt]
	r.Answer = answer[:most(len(answer), func(n int) bool {
		r.Answer = answer[:n]
		return r.Len() <= limit
	})]
	if len(r.Answer) < len(answer) {
		r.Truncated = true
		return
	}
	r.Extra = extra[:opt+most(len(extra)-opt, func(n int) bool {
		r.Extra = extra[:opt+n]
		return r.Len() <= limit
	})]
}

// most returns the largest of 0 to n for which fits holds.
func most(n int, fits func(int) bool) int {
	return sort.Search(n, func(i int) bool { return !fits(i + 1) })
}
