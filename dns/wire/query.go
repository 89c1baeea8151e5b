package wire

import "encoding/binary"

// Sizes of RFC 1035 sections 2.3.4 and 4.1.1, in octets.
const (
	headerSize = 12
	maxLabel   = 63
	maxName    = 255
	optSize    = 11 // an OPT record without options, RFC 6891 section 6.1.2
)

// MinUDP is the longest reply over UDP to who says nothing of sizes (RFC 1035),
// MaxUDP the longest of all: what fits the smallest path of IPv6.
const (
	MinUDP = 512
	MaxUDP = 1232
)

// Types of records that mean something here (RFC 1035, 3596, 2782).
const (
	typeA     = 1
	typeNS    = 2
	typeCNAME = 5
	typeSOA   = 6
	typeAAAA  = 28
	typeSRV   = 33
	typeOPT   = 41
	classIN   = 1
	// From here to 255 are types of questions, not of records: RFC 6895 section 3.1.
	firstMeta, lastMeta = 128, 255
)

// Query is the usual kind of query, taken apart. It is reused from one packet
// to the next, because its buffer is what the name is folded in.
type Query struct {
	Type uint16
	// Size is the longest reply over UDP that the asker takes, from MinUDP to MaxUDP.
	Size int
	// EDNS says that the query has an OPT record, DO that DNSSEC is asked for in it.
	EDNS, DO bool

	// in is where the name has been looked up, found what is there.
	in    *Index
	found entry

	nameSize int               // zero if the packet was not the usual kind
	name     [maxName + 9]byte // room for the last step of foldName
}

// Usual reports what Parse did last.
func (q *Query) Usual() bool { return q.nameSize > 0 }

// Name returns the name asked for, in wire format and lower case. It is good
// until the next Parse.
func (q *Query) Name() []byte { return q.name[:q.nameSize] }

// Parse reads packet and reports whether it is the usual kind of query to the
// last octet: one question of class IN for a type of record, with a name that
// is spelled out, and nothing behind it but, perhaps, an OPT record of version 0
// without options. What is not may still deserve an answer.
func (q *Query) Parse(packet []byte) bool {
	q.in, q.nameSize = nil, 0
	size := q.parse(packet)
	if size == 0 {
		return false
	}
	q.nameSize = size
	copy(q.name[:], packet[headerSize:headerSize+size])
	foldName(q.name[:], size)
	return true
}

// parse returns the size of the name in packet, zero if it is not usual.
func (q *Query) parse(packet []byte) int {
	if len(packet) < headerSize+1+4 || packet[2]&0xf8 != 0 {
		return 0 // shorter than a question, a response, or another opcode
	}
	counts := binary.BigEndian.Uint64(packet[4:])
	if counts&^1 != 1<<48 {
		return 0
	}
	end := len(packet) - 4
	off := headerSize
	for {
		label := int(packet[off])
		if label == 0 {
			break
		}
		if off += 1 + label; label > maxLabel || off >= end {
			return 0
		}
	}
	size := off + 1 - headerSize
	if off >= end || size > maxName {
		return 0
	}
	question := packet[off+1:]
	q.Type = binary.BigEndian.Uint16(question)
	if binary.BigEndian.Uint16(question[2:]) != classIN || q.Type == typeOPT ||
		q.Type >= firstMeta && q.Type <= lastMeta {
		return 0
	}
	if counts&1 == 0 {
		q.EDNS, q.DO, q.Size = false, false, MinUDP
		if len(question) != 4 {
			return 0
		}
	} else if !q.parseOPT(question[4:]) {
		return 0
	}
	return size
}

// parseOPT reads an OPT record: root, type, size, extended rcode, version, flags
// and the length of the options.
func (q *Query) parseOPT(opt []byte) bool {
	const doBit = 0x80
	if len(opt) != optSize || opt[0] != 0 || opt[1] != 0 || opt[2] != typeOPT || opt[6] != 0 || opt[9]|opt[10] != 0 {
		return false
	}
	q.EDNS, q.DO = true, opt[7]&doBit != 0
	q.Size = min(max(int(binary.BigEndian.Uint16(opt[3:])), MinUDP), MaxUDP)
	return true
}

// foldName makes the first n octets of a name lower case, eight at a time, and
// may fold up to seven more. Lengths of labels are below 'A' and stay; octets
// above 127 are not letters (RFC 4343).
func foldName(name []byte, n int) {
	const each = 0x0101010101010101
	for i := 0; i < n; i += 8 {
		eight := name[i : i+8 : i+8]
		x := binary.LittleEndian.Uint64(eight)
		low := x & (0x7f * each)
		fromA := low + (0x80-'A')*each  // the top bit of an octet says 'A' or above
		aboveZ := low + (0x7f-'Z')*each // the top bit says above 'Z'
		upper := (fromA ^ aboveZ) & ^x & (0x80 * each)
		binary.LittleEndian.PutUint64(eight, x|upper>>2)
	}
}

// AppendName appends the wire format of name, which has its final dot and
// neither escapes nor labels that are empty or too long.
func AppendName(b []byte, name string) []byte {
	size := len(b)
	b = append(b, 0)
	for i := range len(name) {
		if name[i] == '.' {
			b[size] = byte(len(b) - size - 1)
			size = len(b)
			b = append(b, 0)
		} else {
			b = append(b, name[i])
		}
	}
	return b
}

// Text returns the text of a name in wire format as AppendName takes it, of as
// many octets as the name has before its final zero.
func Text(name []byte) string {
	if len(name) < 2 {
		return "."
	}
	text := append([]byte(nil), name[1:]...)
	for off := 0; name[off] != 0; {
		off += 1 + int(name[off])
		text[off-1] = '.'
	}
	return string(text)
}
