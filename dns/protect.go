package dns

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"waggle/dns/guard"
)

// gate is what stands between clients and answers. Its methods allocate nothing
// and are safe for concurrent use.
type gate struct {
	rules atomic.Pointer[rules]
	jar   *guard.Jar
	conns *guard.Connections
}

// rules are what SetAccess replaces.
type rules struct {
	allow    *guard.Networks // nil for everybody
	transfer *guard.Networks
	unmetred *guard.Networks
	limiter  *guard.Limiter
}

func newGate(cfg ServerConfig) *gate {
	g := &gate{
		jar:   guard.NewJar(cfg.CookieSecrets...),
		conns: guard.NewConnections(cfg.Connections, cfg.ConnectionsEach),
	}
	g.rules.Store(newRules(cfg))
	return g
}

func newRules(cfg ServerConfig) *rules {
	r := &rules{
		transfer: guard.NewNetworks(cfg.Transfer...),
		unmetred: guard.NewNetworks(cfg.Unlimited...),
		limiter:  guard.NewLimiter(cfg.Limit),
	}
	if cfg.Allow != nil {
		r.allow = guard.NewNetworks(cfg.Allow...)
	}
	return r
}

// SetAccess replaces who is answered and how fast, by Allow, Transfer, Limit and
// Unlimited of cfg; the rest of cfg is NewServer's only. Networks have their whole
// burst again.
func (s *Server) SetAccess(cfg ServerConfig) { s.gate.rules.Store(newRules(cfg)) }

// admits reports whether client is answered at all.
func (g *gate) admits(client netip.Addr) bool {
	allow := g.rules.Load().allow
	return allow == nil || allow.Contains(client)
}

// transfers reports whether client may have whole zones.
func (g *gate) transfers(client netip.Addr) bool { return g.rules.Load().transfer.Contains(client) }

// free reports whether client gets as many replies as it asks for.
func (g *gate) free(client netip.Addr) bool {
	r := g.rules.Load()
	return r.limiter == nil || r.unmetred.Contains(client)
}

// verdict says what becomes of a reply over UDP. A client whose cookie proves
// its address is not held back: nobody else can make it get replies.
func (g *gate) verdict(client netip.Addr, rcode int, proven bool) guard.Verdict {
	if proven || g.free(client) {
		return guard.Send
	}
	kind := guard.Error
	switch rcode {
	case dns.RcodeSuccess:
		kind = guard.Answer
	case dns.RcodeNameError:
		kind = guard.NoSuchName
	}
	return g.rules.Load().limiter.Check(client, kind, time.Now())
}

// deny puts the reply to a query from who may not ask into out: its header with
// REFUSED. It returns nil for what is no query.
func deny(out, packet []byte) []byte {
	if len(packet) < headerSize || packet[2]&0x80 != 0 {
		return nil
	}
	const opcodeAndRD = 0x79
	return append(out[:0], packet[0], packet[1], packet[2]&opcodeAndRD|0x80, dns.RcodeRefused, 0, 0, 0, 0, 0, 0, 0, 0)
}

// cut makes a reply say, in place, that it is to be had over TCP: header and
// question with TC, so that it is no longer than the query was.
func cut(reply []byte) []byte {
	end := headerSize
	if binary.BigEndian.Uint16(reply[4:]) == 1 {
		end = skipName(reply, end) + 4
	}
	if end > len(reply) {
		return nil
	}
	reply[2] |= flagTC
	clear(reply[6:headerSize])
	return reply[:end]
}

// onlyCookie reports whether packet asks nothing but for a cookie (RFC 7873
// section 5.4).
func onlyCookie(packet []byte) bool {
	if len(packet) < headerSize || packet[2]&0xf8 != 0 || binary.BigEndian.Uint64(packet[4:]) != 1 {
		return false
	}
	e, ok := findEDNS(packet)
	if !ok {
		return false
	}
	_, ok = e.option(optionCookie)
	return ok
}

// metered returns a reply as it may be sent now: whole, cut or not at all. Over
// TCP the client's address is its own.
func (s *Server) metered(reply []byte, client netip.Addr, rcode int, proven bool, t *tally) []byte {
	if reply == nil || t.proto == protoTCP {
		return reply
	}
	switch s.gate.verdict(client, rcode, proven) {
	case guard.Cut:
		t.note(cutShort)
		return cut(reply)
	case guard.Drop:
		t.note(dropped)
		return nil
	}
	return reply
}
