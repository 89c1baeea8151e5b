package dnscheck

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// noSuccess wants an error and nothing that could pass for data.
var noSuccess = all(rcode(formErr, servFail, notImp, refused), noRecords)

func questionChecks() []Check {
	second := func(q []byte) []byte { return append(count(0, 2)(q), q[headerSize:]...) }
	return []Check{
		{ID: "qdcount-2", RFC: "9619 4", Says: "two questions are FORMERR", query: host(typeA, second), want: isFormErr},
		{ID: "qdcount-0", RFC: "9619 4", Says: "no question is an error or silence", silence: maybeSilent, want: noSuccess,
			query: func(Names) []byte { return []byte{0x12, 0x34, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0} }},
		{ID: "qdcount-0-edns", RFC: "9619 4", Says: "no question but an OPT is an error or silence", silence: maybeSilent, want: rcode(formErr, servFail, notImp, refused),
			query: func(Names) []byte { return edns(1232)([]byte{0x12, 0x34, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}) }},
		{ID: "qdcount-0-cookie", RFC: "7873 5.4", Says: "no question but a cookie: an empty answer, or an error or silence", silence: maybeSilent, want: noAnswers,
			query: func(Names) []byte {
				return edns(1232, option(optCookie, []byte("abcdefgh")...))([]byte{0x12, 0x34, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
			}},
		{ID: "qdcount-65535", RFC: "9619 4", Says: "65535 questions, one of which is there, are FORMERR or silence", silence: maybeSilent, query: host(typeA, count(0, 65535)), want: noSuccess},
		{ID: "qr", RFC: "1035 4.1.1, 5625", Says: "a packet with QR set gets no reply", query: host(typeA, set(qr)), silence: silent},
		{ID: "qr-missing", RFC: "1035 4.1.1", Says: "a response about a missing name gets no reply", query: missing(typeA, set(qr)), silence: silent},
		{ID: "qr-refused", RFC: "1035 4.1.1", Says: "a response with an error gets no reply", query: host(typeA, set(qr|refused)), silence: silent},
	}
}

func malformedChecks() []Check {
	broken := func(id, says string, query func(Names) []byte) Check {
		return Check{ID: id, RFC: "1035 4.1, 8906", Says: says + " is an error or silence", query: query, silence: maybeSilent, want: noSuccess}
	}
	raw := func(name ...byte) func(Names) []byte { return fixed(name, typeA) }
	checks := []Check{
		broken("pointer-self", "a name that points to itself", raw(0xc0, 12)),
		broken("pointer-forward", "a name that points forward", func(n Names) []byte { return ask([]byte{0xc0, 18}, typeA, trailing(wire(n.Host)...)) }),
		broken("pointer-header", "a name that points into the header", raw(0xc0, 0)),
		broken("pointer-end", "a name that ends in a pointer to itself", raw(1, 'a', 0xc0, 12)),
		broken("pointer-past", "a name that points past the end", raw(0xff, 0xff)),
		broken("pointer-cut", "a name that is half a pointer", func(Names) []byte { return []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0} }),
		broken("label-type-40", "label type 0x40", raw(0x41, 'a', 0)),
		broken("label-type-80", "label type 0x80", raw(0x81, 'a', 0)),
		broken("label-past", "a label that runs past the end", func(Names) []byte { return []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63, 'a', 'b'} }),
		broken("name-256", "a name of 256 octets", func(n Names) []byte {
			long := longest(n)
			long[headerSize]++
			return slices.Insert(long, headerSize+1, 'x')
		}),
		broken("name-1000", "a name of 1000 octets", fixed(append(bytes.Repeat([]byte{3, 'a', 'b', 'c'}, 250), 0), typeA)),
		broken("ancount-lie", "an answer that is not there", host(typeA, count(1, 1))),
		broken("nscount-lie", "an authority record that is not there", host(typeA, count(2, 1))),
		broken("arcount-lie", "an additional record that is not there", host(typeA, count(3, 1))),
		broken("arcount-65535", "65535 additional records that are not there", host(typeA, edns(1232), count(3, 65535))),
		broken("header-only", "a header that claims a question", func(Names) []byte { return []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0} }),
		broken("opt-past-end", "an OPT that claims more data than there is", host(typeA, edns(1232), func(q []byte) []byte { q[len(q)-1] = 200; return q })),
	}
	return append(checks,
		Check{ID: "trailing", RFC: "1035 4.1", Says: "octets behind the message: an answer, an error or silence", silence: maybeSilent,
			query: host(typeA, trailing(1, 2, 3)), want: either(isAnswer, rcode(formErr))},
		Check{ID: "tsig-unknown", RFC: "8945 5.2", Says: "a signature by an unknown key is no success, or not looked at", silence: maybeSilent,
			query: host(typeA, record(3, wire("key."), 250, 255, 0, slices.Concat(wire("hmac-sha256."), make([]byte, 16))...)),
			want:  either(rcode(notAuth, formErr, refused), isAnswer)},
		Check{ID: "cut", RFC: "1035 4.1", Says: "a query cut at any length is no success", only: UDP, session: cutAnywhere},
		Check{ID: "short", RFC: "1035 4.1", Says: "datagrams of 0 to 11 octets are no success", only: UDP, session: shortPackets},
		Check{ID: "mutated", RFC: "1035 4.1", Says: "2000 mutated queries do not hurt", only: UDP, session: mutated},
		Check{ID: "noise", RFC: "1035 4.1", Says: "datagrams of noise do not hurt", only: UDP, session: noise},
	)
}

func cutAnywhere(p *Peer, _ Transport) error {
	whole := host(typeA, edns(1232, option(65001, 1, 2)))(p.Names)
	for n := headerSize; n < len(whole); n++ {
		if err := noSuccessFrom(p, whole[:n]); err != nil {
			return fmt.Errorf("cut to %d octets: %w", n, err)
		}
	}
	return nil
}

func shortPackets(p *Peer, _ Transport) error {
	whole := host(typeA)(p.Names)
	for n := range headerSize {
		if err := noSuccessFrom(p, whole[:n]); err != nil {
			return fmt.Errorf("%d octets: %w", n, err)
		}
	}
	return nil
}

func noSuccessFrom(p *Peer, query []byte) error {
	raw, err := sendUDP(p, query)
	if err != nil || raw == nil {
		return err
	}
	// What answers so little may be as short, but must not be a success.
	if len(raw) >= 4 && raw[3]&15 == noError {
		return fmt.Errorf("answered with %x", raw)
	}
	return nil
}

// send sends datagrams without waiting for replies, then sees that the server
// still answers.
func send(p *Peer, packets int, next func(*rand.Rand) []byte) error {
	conn, err := dial(p, UDP)
	if err != nil {
		return err
	}
	defer conn.Close()
	rng := rand.New(rand.NewPCG(3, 4))
	for range packets {
		if _, err := conn.Write(next(rng)); err != nil {
			return err
		}
	}
	return p.alive()
}

func mutated(p *Peer, _ Transport) error {
	good := host(typeA, edns(1232, option(optCookie, []byte("abcdefgh")...)))(p.Names)
	return send(p, 2000, func(rng *rand.Rand) []byte {
		bad := slices.Clone(good)
		for range 1 + rng.IntN(4) {
			bad[rng.IntN(len(bad))] = byte(rng.Uint32())
		}
		return bad
	})
}

func noise(p *Peer, _ Transport) error {
	return send(p, 500, func(rng *rand.Rand) []byte {
		out := make([]byte, rng.IntN(1400))
		for i := range out {
			out[i] = byte(rng.Uint32())
		}
		return out
	})
}

func sizeChecks() []Check {
	whole := all(rcode(noError), bits(aa, tc), theirOwn(typeA), atLeast(200))
	cut := func(n int) want { return all(rcode(noError), bits(aa|tc, 0), theirOwn(typeA), echoed, atMost(n)) }
	return []Check{
		{ID: "tc-512", RFC: "1035 4.2.1, 2181 9", Says: "a large set without EDNS is cut to 512 octets", only: UDP, query: big(), want: all(cut(512), noOPT)},
		{ID: "tc-edns-512", RFC: "6891 6.2.5", Says: "a large set for a size of 512 is cut, with OPT", only: UDP, query: big(edns(512)), want: all(cut(512), hasOPT(0))},
		{ID: "tc-100", RFC: "6891 6.2.3", Says: "a large set for a size of 100 is cut to 512 octets", only: UDP, query: big(edns(100)), want: all(cut(512), hasOPT(0))},
		{ID: "tc-1232", RFC: "6891 6.2.5", Says: "a large set for a size of 1232 is cut, with OPT", only: UDP, query: big(edns(1232)), want: all(cut(1232), hasOPT(0))},
		{ID: "tc-4096", RFC: "6891 6.2.5", Says: "a large set for a size of 4096 is whole or cut, never longer", only: UDP, query: big(edns(4096)),
			want: all(either(whole, cut(4096)), atMost(4096), hasOPT(0))},
		{ID: "tc-65535", RFC: "6891 6.2.5", Says: "a large set for a size of 65535 is whole or cut", only: UDP, query: big(edns(65535)), want: either(whole, cut(65535))},
		{ID: "tc-do", RFC: "3225 3", Says: "a cut answer copies DO", only: UDP, query: big(ednsTTL(512, ednsDO)), want: all(cut(512), hasOPT(ednsDO))},
		{ID: "tc-case", RFC: "4343", Says: "a cut answer echoes the question's case", only: UDP, want: cut(512),
			query: func(n Names) []byte { return ask(wire(mixed(n.Big)), typeA) }},
		{ID: "tc-retry", RFC: "7766 5, 2181 9", Says: "a large set is whole over TCP", only: TCP, query: big(), want: all(whole, echoed)},
		{ID: "tc-retry-edns", RFC: "6891 6.2.5", Says: "the size for UDP does not limit TCP", only: TCP, query: big(edns(512)), want: all(whole, hasOPT(0))},
		{ID: "tc-negative", RFC: "2308 2.1", Says: "NXDOMAIN with OPT for the longest name fits 512 octets", want: all(isNXDomain, atMost(512)),
			query: func(n Names) []byte { return edns(512)(longest(n)) }},
		{ID: "large-query", RFC: "6891 6.2.5", Says: "a query of 1200 octets is answered", query: host(typeA, edns(1232, option(12, make([]byte, 1100)...))), want: isAnswerOPT},
		{ID: "large-query-tcp", RFC: "7766 8", Says: "a query of 60000 octets is answered over TCP, or the connection closed", only: TCP, silence: maybeSilent,
			query: host(typeA, edns(1232, option(12, []byte(strings.Repeat("\x00", 60000))...))), want: either(isAnswerOPT, rcode(formErr))},
	}
}
