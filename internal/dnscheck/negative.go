package dnscheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

func emptyName(qtype uint16) func(Names) []byte {
	return func(n Names) []byte { return ask(wire(n.Empty), qtype) }
}

// soaFields returns serial and minimum of a SOA record.
func soaFields(r Record) (serial, minimum uint32, err error) {
	if r.Type != typeSOA || len(r.Data) < 22 {
		return 0, 0, errors.New("no SOA record")
	}
	d := r.Data
	return binary.BigEndian.Uint32(d[len(d)-20:]), binary.BigEndian.Uint32(d[len(d)-4:]), nil
}

// negativeTTL wants the SOA of a negative answer to live no longer than its
// minimum.
func negativeTTL(_ []byte, r *Message) error {
	if len(r.Authority) != 1 {
		return errors.New("no SOA")
	}
	_, minimum, err := soaFields(r.Authority[0])
	if err == nil && r.Authority[0].TTL > minimum {
		err = fmt.Errorf("TTL %d is above the minimum %d", r.Authority[0].TTL, minimum)
	}
	return err
}

func negativeChecks() []Check {
	return []Check{
		{ID: "nxdomain", RFC: "2308 2.1", Says: "a missing name is NXDOMAIN with one SOA", query: missing(typeA), want: isNXDomain},
		{ID: "nxdomain-aaaa", RFC: "2308 2.1", Says: "a missing name is NXDOMAIN whatever the type", query: missing(typeAAAA), want: isNXDomain},
		{ID: "nxdomain-srv", RFC: "2308 2.1", Says: "a missing service is NXDOMAIN", query: below(typeSRV, "_none", "_tcp"), want: isNXDomain},
		{ID: "nxdomain-soa", RFC: "2308 2.1", Says: "the SOA of a missing name is NXDOMAIN", query: missing(typeSOA), want: isNXDomain},
		{ID: "nxdomain-type", RFC: "8906 3.1.2", Says: "an unknown type of a missing name is NXDOMAIN", query: missing(65280), want: isNXDomain},
		{ID: "nxdomain-ttl", RFC: "2308 3", Says: "the SOA with NXDOMAIN lives no longer than its minimum", query: missing(typeA), want: negativeTTL},
		{ID: "nodata-ttl", RFC: "2308 3", Says: "the SOA with NODATA lives no longer than its minimum", query: host(typeAAAA), want: negativeTTL},
		{ID: "nxdomain-additional", RFC: "2308 2.1", Says: "NXDOMAIN has nothing in the additional section", query: missing(typeA),
			want: func(_ []byte, r *Message) error {
				if len(r.Additional) > 0 {
					return fmt.Errorf("%d additional records", len(r.Additional))
				}
				return nil
			}},
		{ID: "nxdomain-size", RFC: "1035 2.3.4", Says: "NXDOMAIN fits 512 octets for the longest name", query: longest, want: all(isNXDomain, atMost(512))},
		{ID: "empty", RFC: "8020 3, 4592 2.2.2", Says: "an empty non-terminal is NODATA", query: emptyName(typeA), want: isNoData},
		{ID: "empty-srv", RFC: "8020 3", Says: "an empty non-terminal is NODATA for SRV", query: emptyName(typeSRV), want: isNoData},
		{ID: "empty-txt", RFC: "8020 3", Says: "an empty non-terminal is NODATA for TXT", query: emptyName(typeTXT), want: isNoData},
		{ID: "empty-case", RFC: "8020 3, 4343", Says: "an empty non-terminal is found in capitals", want: isNoData,
			query: func(n Names) []byte { return ask(wire(strings.ToUpper(n.Empty)), typeA) }},
		{ID: "below-leaf", RFC: "8020 2", Says: "below a leaf is NXDOMAIN", want: isNXDomain,
			query: func(n Names) []byte { return ask(wire("x."+n.Host), typeA) }},
		{ID: "below-missing", RFC: "8020 2", Says: "below a missing name is NXDOMAIN", want: isNXDomain,
			query: func(n Names) []byte { return ask(wire("a.b.c."+n.Missing), typeA) }},
		{ID: "asterisk", RFC: "4592 2.1.1", Says: "an asterisk that is not in the zone is NXDOMAIN", query: below(typeA, "*"), want: isNXDomain},
		{ID: "asterisk-inside", RFC: "4592 2.1.1", Says: "an asterisk within a name is an ordinary label", query: below(typeA, "a", "*", "b"), want: isNXDomain},
		{ID: "negative-serial", RFC: "2308 3", Says: "the SOA of a negative answer is that of the apex", session: sameSerial},
	}
}

// sameSerial compares the SOA of a negative answer with that of the apex.
func sameSerial(p *Peer, over Transport) error {
	var serials [2]uint32
	for i, q := range [][]byte{apex(typeSOA)(p.Names), missing(typeA)(p.Names)} {
		raw, err := exchange(p, over, q, answered)
		if err != nil {
			return err
		}
		r, err := Parse(raw)
		if err != nil {
			return err
		}
		soa := append(r.Answer, r.Authority...)
		if len(soa) == 0 {
			return errors.New("no SOA")
		}
		if serials[i], _, err = soaFields(soa[0]); err != nil {
			return err
		}
	}
	if serials[0] != serials[1] {
		return fmt.Errorf("serial %d at the apex, %d in a negative answer", serials[0], serials[1])
	}
	return nil
}

func apexChecks() []Check {
	return []Check{
		{ID: "apex-soa", RFC: "1034 4.3.2", Says: "the SOA of the apex is in the answer section", query: apex(typeSOA),
			want: all(rcode(noError), bits(aa, tc), answers(typeSOA, 1), echoed)},
		{ID: "apex-soa-case", RFC: "4343", Says: "the apex in capitals has the same SOA", want: all(rcode(noError), bits(aa, tc), answers(typeSOA, 1), echoed),
			query: func(n Names) []byte { return ask(wire(strings.ToUpper(n.Apex)), typeSOA) }},
		{ID: "apex-soa-fields", RFC: "1035 3.3.13", Says: "the SOA has two names and five numbers", query: apex(typeSOA), want: soaShape},
		{ID: "apex-ns", RFC: "1034 4.2.1", Says: "the apex has NS records, in the answer section", query: apex(typeNS),
			want: all(rcode(noError), bits(aa, tc), theirOwn(typeNS), func(_ []byte, r *Message) error {
				if len(r.Answer) == 0 {
					return errors.New("no NS record")
				}
				return nil
			})},
		{ID: "apex-a", RFC: "2308 2.2", Says: "the apex without an address is NODATA", query: apex(typeA), want: isNoData},
		{ID: "apex-ds", RFC: "4035 3.1.4.1", Says: "the DS of the apex, which belongs to the parent, is NODATA or refused", query: apex(typeDS),
			want: either(isNoData, all(rcode(refused), noRecords))},
		{ID: "apex-type", RFC: "8906 3.1.2", Says: "an unknown type at the apex is NODATA", query: apex(65280), want: isNoData},
	}
}

func soaShape(_ []byte, r *Message) error {
	if len(r.Answer) != 1 {
		return errors.New("no SOA")
	}
	soa := r.Answer[0]
	_, at, err := readName(r.Raw, soa.at)
	if err == nil {
		_, at, err = readName(r.Raw, at)
	}
	if err != nil {
		return err
	}
	if at+20 != soa.at+len(soa.Data) {
		return fmt.Errorf("%d octets behind the names", soa.at+len(soa.Data)-at)
	}
	return nil
}
