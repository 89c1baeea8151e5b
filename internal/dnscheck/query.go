package dnscheck

import (
	"bytes"
	"encoding/binary"
)

// edit changes a query that is otherwise whole.
type edit func(query []byte) []byte

// ask returns a query for a name in wire form.
func ask(name []byte, qtype uint16, edits ...edit) []byte {
	q := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	q = append(q, name...)
	q = binary.BigEndian.AppendUint16(q, qtype)
	q = binary.BigEndian.AppendUint16(q, classIN)
	for _, e := range edits {
		q = e(q)
	}
	return q
}

// The queries that most checks start from.

func host(qtype uint16, edits ...edit) func(Names) []byte {
	return func(n Names) []byte { return ask(wire(n.Host), qtype, edits...) }
}

func missing(qtype uint16, edits ...edit) func(Names) []byte {
	return func(n Names) []byte { return ask(wire(n.Missing), qtype, edits...) }
}

func apex(qtype uint16, edits ...edit) func(Names) []byte {
	return func(n Names) []byte { return ask(wire(n.Apex), qtype, edits...) }
}

func service(edits ...edit) func(Names) []byte {
	return func(n Names) []byte { return ask(wire(n.Service), typeSRV, edits...) }
}

func big(edits ...edit) func(Names) []byte {
	return func(n Names) []byte { return ask(wire(n.Big), typeA, edits...) }
}

// below asks for labels below the apex.
func below(qtype uint16, labels ...string) func(Names) []byte {
	return func(n Names) []byte {
		name := wireLabels(labels...)
		return ask(append(name[:len(name)-1], wire(n.Apex)...), qtype)
	}
}

// fixed asks for a name that does not depend on the zone.
func fixed(name []byte, qtype uint16) func(Names) []byte {
	return func(Names) []byte { return ask(name, qtype) }
}

// The edits.

func id(v uint16) edit {
	return func(q []byte) []byte { binary.BigEndian.PutUint16(q, v); return q }
}

func set(bits uint16) edit {
	return func(q []byte) []byte { binary.BigEndian.PutUint16(q[2:], be16(q[2:])|bits); return q }
}

func unset(bits uint16) edit {
	return func(q []byte) []byte { binary.BigEndian.PutUint16(q[2:], be16(q[2:])&^bits); return q }
}

func opcode(code uint16) edit { return set(code << 11) }

// count sets one of the four counts of the header, 0 to 3.
func count(section int, n uint16) edit {
	return func(q []byte) []byte { binary.BigEndian.PutUint16(q[4+2*section:], n); return q }
}

// class sets the class of a query that has nothing but its question yet.
func class(c uint16) edit {
	return func(q []byte) []byte { binary.BigEndian.PutUint16(q[len(q)-2:], c); return q }
}

func trailing(data ...byte) edit { return func(q []byte) []byte { return append(q, data...) } }

// record adds a record to a section, 1 to 3; they must be added in order.
func record(section int, owner []byte, rrtype, class uint16, ttl uint32, data ...byte) edit {
	return func(q []byte) []byte {
		q[5+2*section]++
		q = append(q, owner...)
		q = binary.BigEndian.AppendUint16(q, rrtype)
		q = binary.BigEndian.AppendUint16(q, class)
		q = binary.BigEndian.AppendUint32(q, ttl)
		q = binary.BigEndian.AppendUint16(q, uint16(len(data)))
		return append(q, data...)
	}
}

// edns adds an OPT record that advertises size.
func edns(size uint16, options ...[]byte) edit { return ednsTTL(size, 0, options...) }

// ednsTTL adds an OPT record with what its TTL field says: extended rcode,
// version and flags.
func ednsTTL(size uint16, ttl uint32, options ...[]byte) edit {
	return record(3, []byte{0}, typeOPT, size, ttl, bytes.Join(options, nil)...)
}

// option is one EDNS option.
func option(code uint16, data ...byte) []byte {
	out := binary.BigEndian.AppendUint16(nil, code)
	out = binary.BigEndian.AppendUint16(out, uint16(len(data)))
	return append(out, data...)
}

const (
	ednsDO      = 0x8000
	ednsVersion = 1 << 16
)
