package dns

import (
	"context"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"waggle/dns/wire"
)

// Forwarder answers queries about names that no zone of ours has. Both methods
// are called from many goroutines. Cached appends the answer to packet to dst if
// it can without waiting. Resolve calls reply once, at once or later, and needs
// packet only until it returns; reply does not wait for anything.
type Forwarder interface {
	Cached(dst, packet []byte, tcp bool) ([]byte, bool)
	Resolve(packet []byte, client netip.Addr, tcp bool, reply func([]byte))
}

// foreign answers a usual query about a name that is not ours: from what is
// remembered, with a refusal where nobody is asked, or nil for later.
func (r *responder) foreign(room, packet []byte) (reply []byte, rcode, zone int) {
	f := r.s.cfg.Forward
	if f == nil {
		return r.query.Refuse(room, packet, dns.RcodeRefused), dns.RcodeRefused, 0
	}
	if out, ok := f.Cached(room[:0], packet, r.tally.proto == protoTCP); ok {
		return out, int(out[3] & 0xf), 0
	}
	return nil, 0, 0
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
	if opt := q.IsEdns0(); opt != nil && opt.Version() != 0 {
		return false
	}
	switch q.Question[0].Qtype {
	case dns.TypeAXFR, dns.TypeIXFR:
		return false
	}
	return z.foreign(strings.ToLower(q.Question[0].Name))
}

// foreign reports whether no domain of z has name, which is in lower case.
func (z *Zone) foreign(name string) bool {
	d, _ := z.find(name)
	return d == nil
}

// forward answers packet by the Forwarder and waits for it, until ctx ends: who
// asks over one TCP connection waits for nobody but himself.
func (s *Server) forward(ctx context.Context, packet []byte, client netip.Addr) []byte {
	got := make(chan []byte, 1)
	s.cfg.Forward.Resolve(packet, client, true, func(reply []byte) { got <- reply })
	select {
	case reply := <-got:
		return reply
	case <-ctx.Done():
		return nil
	}
}
