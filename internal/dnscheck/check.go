// Package dnscheck holds what every correct authoritative DNS server does, as
// checks that are put to a server from outside: raw bytes over UDP and TCP, and
// dig and kdig as their users call them. It knows no server and uses no DNS
// library, so that it shares no misreading of the RFCs with one.
package dnscheck

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Names are what a server must serve for the checks. All are full names with
// the final dot, in lower case and without escapes; the server answers for the
// zone Apex and nothing else that the checks ask about.
type Names struct {
	Apex       string // a zone with SOA and NS
	Host       string // exactly one A record, nothing else, nothing below it
	Service    string // exactly one SRV record, whose target is in the zone with one A record
	Big        string // at least 200 A records
	BigService string // at least 200 SRV records
	Empty      string // no records, but names below it
	Missing    string // does not exist, with a parent that does
}

// Peer is a server under test.
type Peer struct {
	Addr  netip.AddrPort // answers UDP and TCP
	Names Names
	// Friend is an address of this machine that may transfer the zone; asking
	// from any other is refused. Invalid leaves out the checks of transfers.
	Friend netip.Addr
	// Idle is the longest that the server keeps an idle TCP connection; zero
	// leaves out the check that waits for it.
	Idle time.Duration
}

// Transport is what a query goes over.
type Transport string

// The transports, with the names that the net package has for them.
const (
	UDP Transport = "udp"
	TCP Transport = "tcp"
)

// silence says whether a query may or must stay without a reply.
type silence int

const (
	answered silence = iota
	maybeSilent
	silent
)

// want says what is wrong with the reply r to query.
type want func(query []byte, r *Message) error

// Check is one rule and how to see that a server keeps it. It has either a
// query with what must be true of its reply, or a session.
type Check struct {
	ID   string
	RFC  string // number and section, or several
	Says string // what is sent and what is expected, in a sentence

	query   func(Names) []byte
	want    want
	silence silence
	only    Transport // empty for both

	session func(p *Peer, over Transport) error
}

// Transports returns what the check is to be run over.
func (c Check) Transports() []Transport {
	if c.only != "" {
		return []Transport{c.only}
	}
	return []Transport{UDP, TCP}
}

// Run puts the check to p and returns what is wrong, or nil.
func (c Check) Run(p *Peer, over Transport) error {
	if c.session != nil {
		return c.session(p, over)
	}
	query := c.query(p.Names)
	raw, err := exchange(p, over, query, c.silence)
	switch {
	case err != nil:
		return err
	case raw == nil:
		return nil
	case c.silence == silent:
		return fmt.Errorf("answered with %x", raw)
	}
	r, err := Parse(raw)
	if err != nil {
		return fmt.Errorf("reply %x: %w", raw, err)
	}
	if err := sameExchange(query, r); err != nil {
		return err
	}
	if err := c.want(query, r); err != nil {
		return fmt.Errorf("%w; reply %x", err, raw)
	}
	return nil
}

// sameExchange checks what is true of every reply.
func sameExchange(query []byte, r *Message) error {
	flags := be16(query[2:])
	switch {
	case r.ID != be16(query):
		return fmt.Errorf("id is %#x, not %#x", r.ID, be16(query))
	case r.Flags&qr == 0:
		return fmt.Errorf("QR is clear")
	case r.Flags>>11&15 != flags>>11&15:
		return fmt.Errorf("opcode is %d, not %d", r.Flags>>11&15, flags>>11&15)
	}
	return nil
}

// Checks returns all checks that p can be put to, each with an ID of its own.
func Checks(p *Peer) []Check {
	all := slices.Concat(headerChecks(), opcodeChecks(), classChecks(), typeChecks(), negativeChecks(), apexChecks(),
		nameChecks(), recordChecks(), serviceChecks(), anyChecks(), ednsChecks(), ednsErrorChecks(), optionChecks(),
		cookieChecks(), questionChecks(), malformedChecks(), sizeChecks(), streamChecks(), floodChecks(), toolChecks())
	if p.Friend.IsValid() {
		all = append(all, transferChecks()...)
	}
	if p.Idle > 0 {
		all = append(all, idleCheck())
	}
	return all
}
