package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

const (
	headerSize = 12
	minUDP     = 512 // what every client takes (RFC 1035 section 2.3.4)
	maxName    = 255
	maxTCP     = 65535
)

// The record types and flags that matter here.
const (
	typeCNAME, typeSOA, typeOPT, typeANY = 5, 6, 41, 255

	flagQR, flagTC, flagRD, flagRA, flagAD, flagCD = 1 << 15, 1 << 9, 1 << 8, 1 << 7, 1 << 5, 1 << 4

	doBit = 1 << 15 // in the flags of an OPT record
)

// The rcodes that matter here.
const (
	rcodeSuccess, rcodeFormErr, rcodeServFail, rcodeNXDomain, rcodeNotImp, rcodeRefused, rcodeBadVers = 0, 1, 2, 3, 4, 5, 16
)

var errMalformed = errors.New("malformed message")

// question is what decides the answer to a query. It aliases the query.
type question struct {
	id    uint16
	flags uint16
	name  []byte // wire form, in the asker's letter case
	qtype uint16
	class uint16
	raw   []byte // the question section

	edns bool
	do   bool
	size int // the longest answer the asker takes over UDP

	trace []byte // the content of its trace option
}

func (q *question) rd() bool { return q.flags&flagRD != 0 }
func (q *question) cd() bool { return q.flags&flagCD != 0 }

// parseQuery reads a query of one question and at most one OPT record. What it
// refuses the caller should have answered already.
func parseQuery(p []byte) (q question, err error) {
	if len(p) < headerSize || binary.BigEndian.Uint16(p[4:]) != 1 {
		return q, errMalformed
	}
	q.id, q.flags = binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
	if q.flags&(flagQR|0x7800) != 0 {
		return q, errMalformed
	}
	end, ok := spelledName(p, headerSize)
	if !ok || end+4 > len(p) {
		return q, errMalformed
	}
	q.name = p[headerSize:end]
	q.qtype, q.class = binary.BigEndian.Uint16(p[end:]), binary.BigEndian.Uint16(p[end+2:])
	q.raw = p[headerSize : end+4]
	q.size = minUDP
	records := int(binary.BigEndian.Uint16(p[6:])) + int(binary.BigEndian.Uint16(p[8:])) + int(binary.BigEndian.Uint16(p[10:]))
	for off := end + 4; records > 0; records-- {
		r, ok := readRecord(p, off)
		if !ok {
			return q, errMalformed
		}
		if r.rtype == typeOPT {
			q.edns, q.do = true, r.ttl(p)&doBit != 0
			q.size = max(minUDP, int(r.class))
			q.trace = findOption(p[r.data:r.end], optionTrace)
		}
		off = r.end
	}
	return q, nil
}

// limit is the longest answer that q's asker may be sent.
func (q *question) limit(tcp bool, maxUDP int) int {
	if tcp {
		return maxTCP
	}
	return min(q.size, maxUDP)
}

// maxKey is the longest key: a name and what of the question follows it.
const maxKey = maxName + 5

// appendKey appends what all questions have in common that one answer serves:
// the name in lower case, type, class, and whether DNSSEC data is wanted (DO)
// and unchecked data taken (CD).
func (q *question) appendKey(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, q.name...)
	fold(dst[at:])
	var bits byte
	if q.do {
		bits |= 1
	}
	if q.cd() {
		bits |= 2
	}
	return append(dst, byte(q.qtype>>8), byte(q.qtype), byte(q.class>>8), byte(q.class), bits)
}

// fold makes a wire name lower case. The octets that count labels are below 64
// and so no letters.
func fold(name []byte) {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			name[i] = c + 'a' - 'A'
		}
	}
}

// spelledName returns where the name at off ends, and false if it is not
// spelled out or too long.
func spelledName(p []byte, off int) (end int, ok bool) {
	for at := off; at < len(p); {
		n := int(p[at])
		at += 1 + n
		switch {
		case n > 63, at-off > maxName:
			return 0, false
		case n == 0:
			return at, true
		}
	}
	return 0, false
}

// skipName returns where the name at off ends, which may end in a pointer to
// what stands before it (RFC 1035 section 4.1.4).
func skipName(p []byte, off int) (end int, ok bool) {
	start := off
	for off < len(p) {
		switch n := int(p[off]); {
		case n == 0:
			return off + 1, true
		case n&0xc0 == 0xc0:
			if off+2 > len(p) {
				return 0, false
			}
			to := int(binary.BigEndian.Uint16(p[off:]) & 0x3fff)
			return off + 2, headerSize <= to && to < start
		case n > 63:
			return 0, false
		default:
			off += 1 + n
		}
	}
	return 0, false
}

// record is where the parts of a resource record are.
type record struct {
	start, fixed, data, end int
	rtype, class            uint16
}

func (r record) ttl(p []byte) uint32 { return binary.BigEndian.Uint32(p[r.fixed+4:]) }

func readRecord(p []byte, off int) (r record, ok bool) {
	fixed, ok := skipName(p, off)
	if !ok || fixed+10 > len(p) {
		return r, false
	}
	r = record{
		start: off, fixed: fixed, data: fixed + 10,
		rtype: binary.BigEndian.Uint16(p[fixed:]), class: binary.BigEndian.Uint16(p[fixed+2:]),
	}
	r.end = r.data + int(binary.BigEndian.Uint16(p[fixed+8:]))
	return r, r.end <= len(p)
}

// wireName returns the wire form of a name in lower case; "." is the root.
func wireName(text string) ([]byte, error) {
	var out []byte
	if text = strings.ToLower(strings.TrimSuffix(text, ".")); text != "" {
		for label := range strings.SplitSeq(text, ".") {
			if len(label) == 0 || len(label) > 63 {
				return nil, fmt.Errorf("%q has a label of %d characters", text, len(label))
			}
			out = append(append(out, byte(len(label))), label...)
		}
	}
	if out = append(out, 0); len(out) > maxName {
		return nil, fmt.Errorf("%q is longer than %d octets", text, maxName)
	}
	return out, nil
}

// appendOPT appends an OPT record (RFC 6891) with an extended error (RFC 8914)
// if ede is not negative.
func appendOPT(dst []byte, size int, do bool, ede int) []byte {
	var flags byte
	if do {
		flags = doBit >> 8
	}
	dst = append(dst, 0, 0, typeOPT, byte(size>>8), byte(size), 0, 0, flags, 0)
	if ede < 0 {
		return append(dst, 0, 0)
	}
	return append(dst, 0, 6, 0, optionEDE, 0, 2, byte(ede>>8), byte(ede))
}

// optionEDE is the EDNS option of an extended error, optionTrace one of our own
// (RFC 6891 section 9 leaves 65001 to 65534 to such) that says through whom a
// question has come.
const (
	optionEDE   = 15
	optionTrace = 65317
)

// findOption returns the content of the first EDNS option with a code, nil for
// none.
func findOption(options []byte, code uint16) []byte {
	for len(options) >= 4 {
		n := int(binary.BigEndian.Uint16(options[2:]))
		if 4+n > len(options) {
			break
		}
		if binary.BigEndian.Uint16(options) == code {
			return options[4 : 4+n]
		}
		options = options[4+n:]
	}
	return nil
}

// The extended errors we give (RFC 8914 section 4).
const (
	edeNone         = -1
	edeStale        = 3
	edeNoReachable  = 22
	edeNetworkError = 23
	edeOther        = 0
)

// failure returns an answer to the query q without records.
func failure(q *question, rcode int, ede, maxUDP int) []byte {
	out := appendHeader(make([]byte, 0, headerSize+len(q.raw)+17), q, uint16(rcode), [3]uint16{})
	out = append(out, q.raw...)
	if q.edns {
		out = appendOPT(out, maxUDP, q.do, ede)
		out[11] = 1
	}
	return out
}

// unreadable returns the answer to what is no query: a header alone, since
// nothing says where a question ends.
func unreadable(packet []byte) []byte {
	out := make([]byte, headerSize)
	copy(out[:2], packet)
	binary.BigEndian.PutUint16(out[2:], flagQR|rcodeFormErr)
	return out
}

// appendHeader appends the header of an answer to q: flags are those beside the
// ones that every answer has.
func appendHeader(dst []byte, q *question, flags uint16, counts [3]uint16) []byte {
	flags |= flagQR | flagRA | q.flags&(flagRD|flagCD)
	dst = append(dst, byte(q.id>>8), byte(q.id), byte(flags>>8), byte(flags), 0, 1)
	for _, n := range counts {
		dst = append(dst, byte(n>>8), byte(n))
	}
	return dst
}
