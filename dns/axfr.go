package dns

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/miekg/dns"

	"waggle/dns/wire"
)

// transferSize is about how long one message of a zone transfer is: long enough
// to compress well, short enough for a client's memory.
const transferSize = 16 << 10

// asksTransfer returns the query in packet if that is for a whole zone. Whether
// it is well-formed else is for parse to say.
func asksTransfer(packet []byte) *dns.Msg {
	q, rcode := parse(packet)
	if q == nil || rcode != dns.RcodeSuccess || q.Question[0].Qclass != dns.ClassINET {
		return nil
	}
	if t := q.Question[0].Qtype; t != dns.TypeAXFR && t != dns.TypeIXFR {
		return nil
	}
	if opt := q.IsEdns0(); opt != nil && opt.Version() != 0 {
		return nil
	}
	return q
}

// transfer writes the zone that q asks for to out (RFC 5936), all of it from one
// Zone, and reports whether there is one: if not, nothing has been written. A
// request for what has changed (RFC 1995) is answered with the whole, unless the
// client has just that.
func transfer(z *Zone, q *dns.Msg, out io.Writer) (known bool, err error) {
	asked := q.Question[0]
	apex := strings.ToLower(asked.Name)
	d := z.layout.domainOf(apex)
	if d.apex != apex || d.of != "" || d.missing == wire.ForeignName {
		return false, nil
	}
	t := &transferrer{q: q, out: out}
	a := answerer{Zone: z, r: t.message(), asked: asked, most: 1 << 16}
	soa := a.soa(asked.Name, d, d.ttl)
	if asked.Qtype == dns.TypeIXFR && current(q, z.serial) {
		t.add(soa)
		return true, t.flush()
	}
	t.add(soa)
	t.add(d.ns(asked.Name))
	for _, r := range z.Records() {
		if z.layout.domainOf(r.Name) != d {
			continue
		}
		rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", r.Name, r.TTL, r.Type, r.Data))
		if err != nil {
			return true, fmt.Errorf("record %s %s: %w", r.Name, r.Type, err)
		}
		t.add(rr)
	}
	t.add(soa)
	return true, t.flush()
}

// current reports whether an IXFR query says that the client has serial or what
// comes after it (RFC 1982).
func current(q *dns.Msg, serial uint32) bool {
	if len(q.Ns) != 1 {
		return false
	}
	soa, ok := q.Ns[0].(*dns.SOA)
	return ok && int32(soa.Serial-serial) >= 0
}

// transferrer gathers records into messages. After an error it does nothing.
type transferrer struct {
	q    *dns.Msg
	out  io.Writer
	next *dns.Msg
	size int
	err  error
}

// message returns an empty message of the transfer. Only the first has the
// question.
func (t *transferrer) message() *dns.Msg {
	r, _ := newReply(t.q)
	r.Authoritative = true
	return r
}

func (t *transferrer) add(rr dns.RR) {
	if t.err != nil {
		return
	}
	if t.next == nil {
		t.next = t.message()
	}
	t.next.Answer = append(t.next.Answer, rr)
	if t.size += dns.Len(rr); t.size > transferSize {
		t.err = t.flush()
	}
}

func (t *transferrer) flush() error {
	if t.err != nil || t.next == nil {
		return t.err
	}
	raw, err := t.next.Pack()
	if err != nil {
		return fmt.Errorf("pack part of a zone: %w", err)
	}
	t.next, t.size = nil, 0
	return writeFrame(t.out, raw)
}

// writeFrame writes a message behind its length, in one write, so that they are
// not two packets.
func writeFrame(out io.Writer, message []byte) error {
	sized := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message)))
	_, err := out.Write(append(sized, message...))
	return err
}
