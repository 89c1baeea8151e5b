package dns

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"waggle/dns/guard"
)

// Options of EDNS that are answered (RFC 7873, RFC 7828); all others are
// ignored.
const (
	optionCookie    = 10
	optionKeepalive = 11
)

// edns is what the OPT record of a query says.
type edns0 struct {
	size    uint16 // as advertised
	options []byte // codes, lengths and data, part of the query
}

// findEDNS returns what the first OPT record of packet says. It is for queries
// that were read without an error, but reads any octets without harm.
func findEDNS(packet []byte) (e edns0, ok bool) {
	if len(packet) < headerSize {
		return e, false
	}
	at := headerSize
	for range binary.BigEndian.Uint16(packet[4:]) {
		if at = skipName(packet, at) + 4; at > len(packet) {
			return e, false
		}
	}
	before := int(binary.BigEndian.Uint16(packet[6:])) + int(binary.BigEndian.Uint16(packet[8:]))
	for i := range before + int(binary.BigEndian.Uint16(packet[10:])) {
		fixed, end, ok := skipRecord(packet, at)
		if !ok {
			return e, false
		}
		if i >= before && binary.BigEndian.Uint16(packet[fixed:]) == dns.TypeOPT {
			return edns0{size: binary.BigEndian.Uint16(packet[fixed+2:]), options: packet[fixed+10 : end]}, true
		}
		at = end
	}
	return e, false
}

// skipRecord returns where what follows the owner of the record at an offset begins
// (type, class, TTL and size, ten octets) and where the record ends.
func skipRecord(packet []byte, at int) (fixed, end int, ok bool) {
	if fixed = skipName(packet, at); fixed+10 > len(packet) {
		return 0, 0, false
	}
	end = fixed + 10 + int(binary.BigEndian.Uint16(packet[fixed+8:]))
	return fixed, end, end <= len(packet)
}

// skipName returns where the name at an offset ends, or something behind the end
// of the packet.
func skipName(packet []byte, at int) int {
	for at < len(packet) {
		switch n := int(packet[at]); {
		case n == 0:
			return at + 1
		case n >= 0xc0:
			return at + 2
		default:
			at += 1 + n
		}
	}
	return at + 1
}

// option returns the data of the first option with a code.
func (e edns0) option(code uint16) (data []byte, ok bool) {
	for o := e.options; len(o) >= 4; {
		end := 4 + int(binary.BigEndian.Uint16(o[2:]))
		if end > len(o) {
			break
		}
		if binary.BigEndian.Uint16(o) == code {
			return o[4:end], true
		}
		o = o[end:]
	}
	return nil, false
}

// limit is how long a reply over UDP may be.
func (e edns0) limit() int { return min(max(int(e.size), minUDP), maxUDP) }

// keepalive is the option that tells a client for how long its connection may
// be idle.
func keepalive(idle time.Duration) dns.EDNS0 {
	return &dns.EDNS0_LOCAL{Code: optionKeepalive, Data: keepaliveData(idle)}
}

// keepaliveData is the time in units of 100 ms.
func keepaliveData(idle time.Duration) []byte {
	return binary.BigEndian.AppendUint16(nil, uint16(min(idle/(100*time.Millisecond), 1<<16-1)))
}

// cookieReply returns the reply to who asks for a cookie only.
func cookieReply(packet []byte) *dns.Msg {
	var q dns.Msg
	if q.Unpack(packet[:headerSize]) != nil {
		return nil
	}
	r := refusal(&q, dns.RcodeSuccess)
	return r.SetEdns0(maxUDP, false)
}

// answerOptions adds to r what the options of the query ask for.
func (s *Server) answerOptions(packet []byte, r *dns.Msg, client netip.Addr, tcp bool, now time.Time) (_ *dns.Msg, proven bool) {
	opt := r.IsEdns0()
	e, ok := findEDNS(packet)
	if opt == nil || !ok || len(e.options) == 0 {
		return r, false
	}
	if data, ok := e.option(optionCookie); ok {
		state := s.gate.jar.Check(data, client, now)
		if state == guard.Malformed {
			return refusal(r, dns.RcodeFormatError).SetEdns0(maxUDP, opt.Do()), false // RFC 7873 section 5.2.2
		}
		proven = state == guard.Proven
		opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: optionCookie, Data: s.gate.jar.Append(nil, data, client, now)})
	}
	if _, ok := e.option(optionKeepalive); ok && tcp {
		opt.Option = append(opt.Option, keepalive(s.idle()))
	}
	if !tcp && len(opt.Option) > 0 {
		fit(r, e.limit())
	}
	return r, proven
}

// cookieAge is how long a made-up secret is used. It lasts a day more for proof.
const cookieAge = 24 * time.Hour

func (s *Server) rollCookies(ctx context.Context) error {
	if len(s.cfg.CookieSecrets) > 0 {
		return nil
	}
	tick := time.NewTicker(cookieAge)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			s.gate.jar.Roll()
		}
	}
}
