package dnscheck

import (
	"bytes"
	"fmt"
	"strings"
)

// mixed spells a name with every other letter in capitals.
func mixed(name string) string {
	out := []byte(name)
	for i := range out {
		if i%2 == 0 {
			out[i] = bytes.ToUpper(out[i : i+1])[0]
		}
	}
	return string(out)
}

// longest asks for a name of 255 octets in the zone.
func longest(n Names) []byte {
	zone := wire(n.Apex)
	var name []byte
	for left := 255 - len(zone); left > 0; {
		label := min(63, left-1)
		if left-1-label == 1 { // which would leave room for an empty label only
			label--
		}
		name = append(append(name, byte(label)), bytes.Repeat([]byte{'x'}, label)...)
		left -= 1 + label
	}
	return ask(append(name, zone...), typeA)
}

func deepest(n Names) []byte {
	zone := wire(n.Apex)
	return ask(append(bytes.Repeat([]byte{1, 'a'}, (255-len(zone))/2), zone...), typeA)
}

func nameChecks() []Check {
	nx := func(id, rfc, says string, query func(Names) []byte) Check {
		return Check{ID: id, RFC: rfc, Says: says, query: query, want: isNXDomain}
	}
	return []Check{
		{ID: "case-upper", RFC: "4343 3", Says: "a name in capitals is found, and echoed so", want: isAnswer,
			query: func(n Names) []byte { return ask(wire(strings.ToUpper(n.Host)), typeA) }},
		{ID: "case-mixed", RFC: "4343 3", Says: "a name in mixed case is found, and echoed so", want: isAnswer,
			query: func(n Names) []byte { return ask(wire(mixed(n.Host)), typeA) }},
		{ID: "case-srv", RFC: "4343 3", Says: "a service in mixed case is found, and echoed so", want: all(rcode(noError), answers(typeSRV, 1), echoed),
			query: func(n Names) []byte { return ask(wire(mixed(n.Service)), typeSRV) }},
		{ID: "case-missing", RFC: "4343 3", Says: "a missing name in mixed case is echoed so", want: isNXDomain,
			query: func(n Names) []byte { return ask(wire(mixed(n.Missing)), typeA) }},
		nx("label-63", "1035 2.3.4", "a label of 63 octets", below(typeA, strings.Repeat("a", 63))),
		nx("name-255", "1035 2.3.4", "a name of 255 octets", longest),
		nx("labels-many", "1035 2.3.4", "a name of as many labels as fit", deepest),
		nx("octet-nul", "2181 11", "a label with a NUL", below(typeA, "a\x00b")),
		nx("octet-dot", "2181 11", "a label with a dot in it is one label", below(typeA, "a.b")),
		nx("octet-space", "2181 11", "a label with a space and a backslash", below(typeA, `a \b`)),
		nx("octet-ff", "2181 11", "a label of octets 255", below(typeA, "\xff\xff")),
		nx("octet-high", "4343 3", "octets above 127 are not folded, and echoed", below(typeA, "\xc9\xe9\xdf")),
		nx("octet-nearby", "4343 3", "the octets beside the letters are not folded", below(typeA, "@[`{")),
		{ID: "octet-folded", RFC: "4343 3", Says: "an octet that differs from a letter by 32 only is no letter", want: isNXDomain,
			query: func(n Names) []byte {
				name := wire(n.Host)
				name[1] |= 0x80
				return ask(name, typeA)
			}},
		{ID: "boundary", RFC: "1034 3.1", Says: "a name that only ends in the letters of the zone is not in it", want: notOurs,
			query: func(n Names) []byte { return ask(wire("x"+n.Apex), typeA) }},
		{ID: "boundary-dot", RFC: "1034 3.1, 2181 11", Says: "a label that ends in a dot and the zone's letters is not in the zone", want: notOurs,
			query: func(n Names) []byte { return ask(wireLabels("x."+strings.TrimSuffix(n.Apex, ".")), typeA) }},
		{ID: "outside", RFC: "1034 4.3.1, 8906", Says: "a name outside the zone is refused", query: fixed(wire("www.example.org."), typeA), want: notOurs},
		{ID: "outside-soa", RFC: "1034 4.3.1", Says: "the SOA of another zone is refused", query: fixed(wire("example.org."), typeSOA), want: notOurs},
		{ID: "root", RFC: "1034 4.3.1", Says: "the root's NS are refused", query: fixed(wire("."), typeNS), want: notOurs},
		{ID: "root-a", RFC: "1034 4.3.1", Says: "the root's address is refused", query: fixed(wire("."), typeA), want: notOurs},
	}
}

var notOurs = all(rcode(refused), bits(0, aa), noRecords, echoed)

func recordChecks() []Check {
	return []Check{
		{ID: "rrset-ttl", RFC: "2181 5.2, 8", Says: "one TTL in an RRset, below 2^31, no record twice", query: big(edns(1232)), want: saneRRsets},
		{ID: "rrset-srv", RFC: "2181 5.2", Says: "one TTL in an RRset of services, no record twice", want: saneRRsets,
			query: func(n Names) []byte { return ask(wire(n.BigService), typeSRV, edns(1232)) }},
		{ID: "rrset-owner", RFC: "1035 4.1.3", Says: "all records of a large set are of the name asked", query: big(), want: theirOwn(typeA)},
		{ID: "ttl-steady", RFC: "1034 3.6", Says: "an authoritative server does not count TTLs down", session: steadyTTL},
	}
}

func steadyTTL(p *Peer, over Transport) error {
	var ttls []uint32
	for range 3 {
		raw, err := exchange(p, over, host(typeA)(p.Names), answered)
		if err != nil {
			return err
		}
		r, err := Parse(raw)
		if err != nil {
			return err
		}
		if len(r.Answer) != 1 {
			return fmt.Errorf("%d answers", len(r.Answer))
		}
		ttls = append(ttls, r.Answer[0].TTL)
	}
	if ttls[0] != ttls[1] || ttls[1] != ttls[2] {
		return fmt.Errorf("TTLs %d", ttls)
	}
	return nil
}

func serviceChecks() []Check {
	return []Check{
		{ID: "srv", RFC: "2782", Says: "a service: priority, weight, port and a whole target", query: service(),
			want: all(rcode(noError), bits(aa, tc), answers(typeSRV, 1), echoed, srvTarget(func(raw, target []byte, r *Message) error {
				if !bytes.Equal(raw, target) {
					return fmt.Errorf("target %x is compressed", raw)
				}
				return nil
			}))},
		{ID: "srv-additional", RFC: "2782", Says: "a service comes with the address of its target", query: service(),
			want: srvTarget(func(_, target []byte, r *Message) error {
				for _, a := range r.Additional {
					if a.Type == typeA && sameName(a.Owner, target) {
						return nil
					}
				}
				return fmt.Errorf("no address of %s", text(target))
			})},
		{ID: "srv-a", RFC: "2308 2.2", Says: "the address of a service name is NODATA", want: isNoData,
			query: func(n Names) []byte { return ask(wire(n.Service), typeA) }},
		{ID: "srv-opt", RFC: "6891 6.1.1", Says: "a service with EDNS has one OPT beside the addresses", query: service(edns(1232)),
			want: all(rcode(noError), answers(typeSRV, 1), hasOPT(0))},
		{ID: "srv-big", RFC: "2181 9", Says: "services that do not fit 512 octets are cut", only: UDP,
			query: func(n Names) []byte { return ask(wire(n.BigService), typeSRV) }, want: all(bits(tc|aa, 0), atMost(512), theirOwn(typeSRV))},
		{ID: "srv-big-tcp", RFC: "7766 5", Says: "a large set of services is whole over TCP", only: TCP,
			query: func(n Names) []byte { return ask(wire(n.BigService), typeSRV) }, want: all(bits(aa, tc), theirOwn(typeSRV), atLeast(200))},
	}
}

// srvTarget gives is the target of the one SRV record, as it is in the message
// and spelled out.
func srvTarget(is func(raw, target []byte, r *Message) error) want {
	return func(_ []byte, r *Message) error {
		if len(r.Answer) != 1 || len(r.Answer[0].Data) < 7 {
			return fmt.Errorf("%d answers", len(r.Answer))
		}
		target, _, err := readName(r.Raw, r.Answer[0].at+6)
		if err != nil {
			return err
		}
		return is(r.Answer[0].Data[6:], target, r)
	}
}

func atLeast(n int) want {
	return func(_ []byte, r *Message) error {
		if len(r.Answer) < n {
			return fmt.Errorf("%d answers, less than %d", len(r.Answer), n)
		}
		return nil
	}
}

func anyChecks() []Check {
	some := either(all(rcode(noError), atLeast(1)), all(rcode(noError), bits(tc, 0)), all(rcode(refused, notImp), noAnswers))
	return []Check{
		{ID: "any", RFC: "8482 4", Says: "ANY of a name: something, or a refusal", query: host(typeANY), want: all(some, echoed)},
		{ID: "any-small", RFC: "8482 4", Says: "ANY of a large set over UDP is small or cut", only: UDP, query: big(edns(4096), asANY), want: all(some, atMost(512))},
		{ID: "any-missing", RFC: "8482 4", Says: "ANY of a missing name is NXDOMAIN, or a refusal", query: missing(typeANY),
			want: either(isNXDomain, all(rcode(refused, notImp), noAnswers))},
		{ID: "any-empty", RFC: "8482 4, 8020", Says: "ANY of an empty non-terminal is NODATA, or a refusal", query: emptyName(typeANY),
			want: either(isNoData, all(rcode(refused, notImp), noAnswers), all(rcode(noError), atLeast(1)))},
		{ID: "any-apex", RFC: "8482 4", Says: "ANY of the apex: something, or a refusal", query: apex(typeANY), want: some},
	}
}

// asANY turns a query about A into one about ANY.
func asANY(q []byte) []byte {
	_, at, err := readName(q, headerSize)
	if err == nil {
		q[at+1] = typeANY
	}
	return q
}
