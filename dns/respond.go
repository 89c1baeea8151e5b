package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/dns/wire"
)

// responder answers for one reader. It holds what is used again from one query
// to the next, so that the usual ones allocate nothing.
type responder struct {
	s     *Server
	proto string
	query wire.Query
}

// answer returns the reply to packet, put into room, nil for none, or says that
// it takes more than copying and is to be answered later.
func (r *responder) answer(room, packet []byte, client netip.AddrPort) (reply []byte, later bool) {
	defer func() {
		if p := recover(); p != nil {
			reply, later = r.s.panicked(p, packet), false
		}
	}()
	if !r.query.Parse(packet) {
		return nil, true
	}
	turn := rand.Uint32()
	start, timed := r.clock(turn)
	zone := r.s.zone()
	if zone == nil {
		return r.refuse(room, packet, dns.RcodeServerFailure), false
	}
	limit := r.query.Size
	if r.proto == protoTCP {
		limit = dns.MaxMsgSize
	}
	reply, outcome := zone.index.Answer(room, packet, &r.query, limit, turn)
	switch outcome.Verdict {
	case wire.Slow:
		return nil, true
	case wire.Foreign:
		return r.refuse(room, packet, dns.RcodeRefused), false
	}
	r.s.metrics.quick(r.proto, r.query.Type, int(outcome.Rcode))
	if timed {
		r.s.metrics.seconds.WithLabelValues(r.proto).Observe(time.Since(start).Seconds())
	}
	return reply, false
}

// sampled is of how many UDP queries that are answered at once one is timed:
// looking at the clock takes as long as half an answer.
const sampled = 64

func (r *responder) clock(turn uint32) (start time.Time, timed bool) {
	if r.proto == protoUDP && turn%sampled != 0 {
		return time.Time{}, false
	}
	return time.Now(), true
}

func (r *responder) refuse(room, packet []byte, rcode int) []byte {
	r.s.metrics.quick(r.proto, r.query.Type, rcode)
	return r.query.Refuse(room, packet, uint8(rcode))
}

// job is a packet that is answered later.
type job struct {
	packet []byte
	client netip.AddrPort
	reply  func([]byte)
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

// work answers jobs until ctx ends.
func (s *Server) work(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-s.jobs:
			if out := s.handle(j.packet, protoUDP); out != nil {
				j.reply(out)
			}
		}
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
