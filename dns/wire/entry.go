package wire

import (
	"encoding/binary"
	"iter"
)

// entry is what is at one name, as octets: the size of the name (1), its domain
// (1), the number of sets (1), the name, how much is below it (4), and the sets,
// by type.
type entry []byte

const entryHeader = 3

func (e entry) name() []byte { return e[entryHeader : entryHeader+int(e[0])] }

func (e entry) domain() int { return int(e[1]) }

func (e entry) below() uint32 { return binary.LittleEndian.Uint32(e[entryHeader+int(e[0]):]) }

// sets returns the sets, as they follow each other.
func (e entry) sets() []byte { return e[entryHeader+int(e[0])+4:] }

// set returns the records of one type.
func (e entry) set(rrtype uint16) (set, bool) {
	rest := e.sets()
	for range e[2] {
		s := readSet(rest)
		if s.rrtype == rrtype {
			return s, true
		}
		rest = rest[s.size():]
	}
	return set{}, false
}

// set is the records of one name and type, sorted by their data, as octets: the
// type (2), the size of each record's data if they are all alike (2), how many
// there are, with two flags (4), where the data of each ends, if they are not
// alike (4 each), the data, and how often each was added, if any was more than
// once (4 each).
type set struct {
	rrtype  uint16
	each    int
	n       int
	ends    []byte // nil if all have the size each
	data    []byte
	counts  []byte // nil if all are 1
	ragged  bool
	counted bool
}

const (
	setHeader   = 8
	flagRagged  = 1 << 31
	flagCounted = 1 << 30
)

func readSet(b []byte) set {
	count := binary.LittleEndian.Uint32(b[4:])
	s := set{
		rrtype: binary.LittleEndian.Uint16(b), each: int(binary.LittleEndian.Uint16(b[2:])),
		n: int(count &^ (flagRagged | flagCounted)), ragged: count&flagRagged != 0, counted: count&flagCounted != 0,
	}
	b = b[setHeader:]
	size := s.n * s.each
	if s.ragged {
		s.ends, b = b[:4*s.n], b[4*s.n:]
		size = int(binary.LittleEndian.Uint32(s.ends[4*(s.n-1):]))
	}
	s.data, b = b[:size], b[size:]
	if s.counted {
		s.counts = b[:4*s.n]
	}
	return s
}

func (s *set) size() int { return setHeader + len(s.ends) + len(s.data) + len(s.counts) }

// end returns where the data of the first i records ends.
func (s *set) end(i int) int {
	switch {
	case i == 0:
		return 0
	case s.ragged:
		return int(binary.LittleEndian.Uint32(s.ends[4*(i-1):]))
	}
	return i * s.each
}

func (s *set) record(i int) []byte { return s.data[s.end(i):s.end(i+1)] }

func (s *set) count(i int) int32 {
	if !s.counted {
		return 1
	}
	return int32(binary.LittleEndian.Uint32(s.counts[4*i:]))
}

// Node is what is at one name.
type Node struct{ e entry }

// Name returns the name, in wire format and lower case.
func (n Node) Name() []byte { return n.e.name() }

// Below returns how many records there are at the names below this one, each
// as often as it was added. A Node without records is there because of them.
func (n Node) Below() int { return int(n.e.below()) }

// Record is the type and data of a record, and how often it was added.
type Record struct {
	Type  uint16
	Data  []byte // belongs to the Index
	Count int32
}

// Records yields the records of all types, by type and data.
func (n Node) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		if n.e == nil {
			return
		}
		rest := n.e.sets()
		for range n.e[2] {
			s := readSet(rest)
			for i := range s.n {
				if !yield(Record{s.rrtype, s.record(i), s.count(i)}) {
					return
				}
			}
			rest = rest[s.size():]
		}
	}
}
