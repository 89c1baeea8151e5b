package dnscheck

import (
	"bytes"
	"fmt"
	"slices"
)

// all is every one of wants, told in order.
func all(wants ...want) want {
	return func(query []byte, r *Message) error {
		for _, w := range wants {
			if err := w(query, r); err != nil {
				return err
			}
		}
		return nil
	}
}

// rcode wants one of codes.
func rcode(codes ...int) want {
	return func(_ []byte, r *Message) error {
		if !slices.Contains(codes, r.rcode()) {
			return fmt.Errorf("rcode is %d, not one of %d", r.rcode(), codes)
		}
		return nil
	}
}

// bits wants header bits to be set and others to be clear.
func bits(on, off uint16) want {
	return func(_ []byte, r *Message) error {
		if r.Flags&on != on || r.Flags&off != 0 {
			return fmt.Errorf("flags are %#04x: %#04x should be set, %#04x clear", r.Flags, on, off)
		}
		return nil
	}
}

// answers wants n records of one type in the answer section, for the name asked.
func answers(qtype uint16, n int) want {
	return func(query []byte, r *Message) error {
		if len(r.Answer) != n {
			return fmt.Errorf("%d answers, not %d", len(r.Answer), n)
		}
		return theirOwn(qtype)(query, r)
	}
}

// theirOwn wants every answer to be of one type and the name asked.
func theirOwn(qtype uint16) want {
	return func(query []byte, r *Message) error {
		asked, _, err := readName(query, headerSize)
		if err != nil {
			return err
		}
		for _, a := range r.Answer {
			switch {
			case a.Type != qtype || a.Class != classIN:
				return fmt.Errorf("an answer of type %d class %d", a.Type, a.Class)
			case !sameName(a.Owner, asked):
				return fmt.Errorf("an answer about %s", text(a.Owner))
			case qtype == typeA && len(a.Data) != 4:
				return fmt.Errorf("an address of %d octets", len(a.Data))
			}
		}
		return nil
	}
}

// noAnswers wants an empty answer section.
func noAnswers(_ []byte, r *Message) error {
	if len(r.Answer) > 0 {
		return fmt.Errorf("%d answers", len(r.Answer))
	}
	return nil
}

// noData wants no records at all but OPT.
func noRecords(_ []byte, r *Message) error {
	if len(r.Answer)+len(r.Authority)+len(r.Additional)-len(r.opt()) > 0 {
		return fmt.Errorf("%d, %d and %d records", len(r.Answer), len(r.Authority), len(r.Additional))
	}
	return nil
}

// oneSOA wants the authority section to be one SOA of a zone the name is in.
func oneSOA(query []byte, r *Message) error {
	if len(r.Authority) != 1 || r.Authority[0].Type != typeSOA {
		return fmt.Errorf("%d records in the authority section instead of one SOA", len(r.Authority))
	}
	asked, _, err := readName(query, headerSize)
	if err != nil {
		return err
	}
	if !within(asked, r.Authority[0].Owner) {
		return fmt.Errorf("the SOA of %s", text(r.Authority[0].Owner))
	}
	return nil
}

// echoed wants the question back, octet by octet.
func echoed(query []byte, r *Message) error {
	_, end, err := readName(query, headerSize)
	if err != nil {
		return err
	}
	end += 4
	if len(r.Raw) < end || !bytes.Equal(query[headerSize:end], r.Raw[headerSize:end]) || len(r.Question) != 1 {
		return fmt.Errorf("question %x is not echoed", query[headerSize:end])
	}
	return nil
}

// atMost wants a reply of no more octets.
func atMost(n int) want {
	return func(_ []byte, r *Message) error {
		if len(r.Raw) > n {
			return fmt.Errorf("%d octets, more than %d", len(r.Raw), n)
		}
		return nil
	}
}

// hasOPT wants exactly one OPT record, version 0, at the root, with the flags
// given.
func hasOPT(flags uint32) want {
	return func(_ []byte, r *Message) error {
		o := r.opt()
		switch {
		case len(o) != 1:
			return fmt.Errorf("%d OPT records", len(o))
		case len(o[0].Owner) != 1:
			return fmt.Errorf("OPT of %s", text(o[0].Owner))
		case o[0].TTL&0x00ffffff != flags:
			return fmt.Errorf("OPT with version and flags %#x, not %#x", o[0].TTL&0x00ffffff, flags)
		case o[0].Class < 512:
			return fmt.Errorf("OPT with size %d", o[0].Class)
		}
		return nil
	}
}

// noOPT wants no OPT record.
func noOPT(_ []byte, r *Message) error {
	if len(r.opt()) > 0 {
		return fmt.Errorf("an OPT record that nobody asked for")
	}
	return nil
}

// without wants an option not to be in the reply.
func without(code uint16) want {
	return func(_ []byte, r *Message) error {
		if data, ok := r.option(code); ok {
			return fmt.Errorf("option %d with %x", code, data)
		}
		return nil
	}
}

// either wants one of several to hold.
func either(wants ...want) want {
	return func(query []byte, r *Message) error {
		var err error
		for _, w := range wants {
			if err = w(query, r); err == nil {
				return nil
			}
		}
		return err
	}
}

// saneRRsets wants one TTL in each RRset, below 2^31, and no record twice.
func saneRRsets(_ []byte, r *Message) error {
	type set struct {
		owner string
		typ   uint16
	}
	ttls, seen := map[set]uint32{}, map[string]bool{}
	for _, rr := range slices.Concat(r.Answer, r.Authority) {
		s := set{string(lower(rr.Owner)), rr.Type}
		if ttl, ok := ttls[s]; ok && ttl != rr.TTL {
			return fmt.Errorf("TTLs %d and %d in one RRset", ttl, rr.TTL)
		}
		ttls[s] = rr.TTL
		if rr.TTL >= 1<<31 {
			return fmt.Errorf("a TTL of %d", rr.TTL)
		}
		whole := fmt.Sprintf("%x %d %x", s.owner, s.typ, rr.Data)
		if seen[whole] {
			return fmt.Errorf("a record twice")
		}
		seen[whole] = true
	}
	return nil
}

// The usual replies.

func isAnswer(query []byte, r *Message) error {
	return all(rcode(noError), bits(aa, tc), answers(typeA, 1), echoed)(query, r)
}

func isAnswerOPT(query []byte, r *Message) error {
	return all(isAnswer, hasOPT(0))(query, r)
}

func isNoData(query []byte, r *Message) error {
	return all(rcode(noError), bits(aa, tc), noAnswers, oneSOA, echoed)(query, r)
}

func isNXDomain(query []byte, r *Message) error {
	return all(rcode(nxDomain), bits(aa, tc), noAnswers, oneSOA, echoed)(query, r)
}

func isFormErr(query []byte, r *Message) error {
	return all(rcode(formErr), noRecords)(query, r)
}
