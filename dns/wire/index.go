package wire

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"iter"
)

// Domain is one zone in the sense of RFC 1034. Names are in wire format and
// lower case.
type Domain struct {
	Apex []byte
	// TTL is that of every record below Apex, Negative that of "no such name"
	// (RFC 2308), in seconds.
	TTL, Negative uint32
	// SOA is the data of the record at Apex.
	SOA []byte
	// Missing says what a name below Apex is that is not there.
	Missing Missing
	// Of, if there is one, is the apex of a domain whose names are below this
	// Apex too: a.<Apex> has the records of a.<Of>, with the TTL of this Domain.
	// No name may be added below Apex then.
	Of []byte
}

// Missing says what a name of a Domain is that is not there.
type Missing uint8

const (
	// Denied names do not exist: NXDOMAIN.
	Denied Missing = iota
	// RefusedName names are nobody's, and not to be asked for elsewhere: REFUSED.
	RefusedName
	// ForeignName names are somebody else's, and those above and below a name of
	// the Domain too: each of its names is a zone of its own.
	ForeignName
)

// apexSize returns how long the name of the zone is that name, of d, is in.
func (d *Domain) apexSize(name []byte) int {
	if d.Missing == ForeignName {
		return len(name)
	}
	return len(d.Apex)
}

// contains reports whether name is Apex or ends with it, whole labels each.
func (d *Domain) contains(name []byte) bool {
	above := len(name) - len(d.Apex)
	if above < 0 || !bytes.Equal(name[above:], d.Apex) {
		return false
	}
	off := 0
	for off < above {
		off += 1 + int(name[off])
	}
	return off == above
}

// Index is an immutable map from names to what is there, ready to be answered
// with. It is safe for concurrent use; the Index that an Editor makes from it
// shares all shards that no change touched.
//
// Names are hashed to shards, one byte string each, so that a million of
// names is nothing to the garbage collector. Shards are reached in two steps,
// because a change copies the table of those it touches: once the first, and of
// the second the pages it needs.
type Index struct {
	seed    maphash.Seed
	domains []Domain // the longest apex first
	bits    int      // there are 1<<bits shards
	pages   []*page
	names   int
}

const (
	pageShards = 16
	minBits    = 4 // one page
	// perShard is the mean number of names at which the number of shards doubles.
	// Fewer make a change cheaper, more waste less memory on each shard.
	perShard = 16
)

type page [pageShards]shard

// shard is, as octets: how many names it has (2), one octet of each name's
// hash, where each entry ends (4 each) counted from where the first begins, and
// the entries. An empty shard is nil.
type shard []byte

func (s shard) len() int {
	if len(s) == 0 {
		return 0
	}
	return int(binary.LittleEndian.Uint16(s))
}

func (s shard) tags(n int) []byte {
	if n == 0 {
		return nil
	}
	return s[2 : 2+n]
}

// begin returns where entry i of n begins, that of i = n where the last one ends.
func (s shard) begin(i, n int) uint32 {
	if i == 0 {
		return 0
	}
	return binary.LittleEndian.Uint32(s[2+n+4*(i-1):])
}

// entry returns entry i of n.
func (s shard) entry(i, n int) entry {
	entries := s[2+5*n:]
	return entry(entries[s.begin(i, n):s.begin(i+1, n)])
}

// find returns which entry of n is the one of name, or -1.
func (s shard) find(n int, tag byte, name []byte) int {
	tags := s.tags(n)
	for i := 0; ; i++ {
		next := bytes.IndexByte(tags[i:], tag)
		if next < 0 {
			return -1
		}
		i += next
		if bytes.Equal(s.entry(i, n).name(), name) {
			return i
		}
	}
}

// NewIndex returns an Index without names. A name that is in none of domains
// is not ours.
func NewIndex(domains []Domain) *Index {
	x := &Index{seed: maphash.MakeSeed(), bits: minBits, pages: []*page{{}}}
	return x.WithDomains(domains)
}

// WithDomains returns x with other domains, which must have the same apexes in
// the same order.
func (x *Index) WithDomains(domains []Domain) *Index {
	next := *x
	next.domains = domains
	return &next
}

// Len returns how many names there are.
func (x *Index) Len() int { return x.names }

func (x *Index) hash(name []byte) uint64 { return maphash.Bytes(x.seed, name) }

// tagOf takes the octet of a hash that place does not.
func tagOf(hash uint64) byte { return byte(hash) }

func (x *Index) place(hash uint64) int { return int(hash >> (64 - x.bits)) }

func (x *Index) shard(i int) shard { return x.pages[i/pageShards][i%pageShards] }

func (x *Index) lookup(hash uint64, name []byte) entry {
	s := x.shard(x.place(hash))
	n := s.len()
	if i := s.find(n, tagOf(hash), name); i >= 0 {
		return s.entry(i, n)
	}
	return nil
}

// Find looks up the names of queries, those that are usual, for an Answer that
// follows. Many at once take less time than one by one, because the processor
// then waits for many pieces of memory at a time: that is what the steps are
// for, each of which reads something of what the next one needs.
func (x *Index) Find(queries []Query) {
	if len(queries) > BatchSize {
		queries = queries[:BatchSize]
	}
	var hashes [BatchSize]uint64
	var shards [BatchSize]shard
	for i := range queries {
		if q := &queries[i]; q.Usual() {
			hashes[i] = x.hash(q.Name())
			shards[i] = x.shard(x.place(hashes[i]))
		}
	}
	var names [BatchSize]int
	for i := range queries {
		names[i] = shards[i].len()
	}
	for i := range queries {
		q, n := &queries[i], names[i]
		q.found = nil
		if at := bytes.IndexByte(shards[i].tags(n), tagOf(hashes[i])); at >= 0 {
			q.found = shards[i].entry(at, n)
			names[i] = int(q.found[0]) + int(q.found[len(q.found)-1])
		}
	}
	for i := range queries {
		q := &queries[i]
		if q.in = x; q.found != nil && !bytes.Equal(q.found.name(), q.Name()) {
			q.found = x.lookup(hashes[i], q.Name())
		}
	}
}

// Get returns what is at name, which is in wire format and lower case, and
// whether it exists.
func (x *Index) Get(name []byte) (Node, bool) {
	e := x.lookup(x.hash(name), name)
	return Node{e}, e != nil
}

// All yields every name that exists, in no particular order.
func (x *Index) All() iter.Seq[Node] {
	return func(yield func(Node) bool) {
		for _, p := range x.pages {
			for _, s := range p {
				n := s.len()
				for i := range n {
					if !yield(Node{s.entry(i, n)}) {
						return
					}
				}
			}
		}
	}
}

// real follows Of until a name is where its records are. It returns that name,
// in room if it is another, and the number of the domain it is in, or -1.
func (x *Index) real(room, name []byte, domain int) ([]byte, int) {
	for domain >= 0 && x.domains[domain].Of != nil {
		d := &x.domains[domain]
		room = append(append(room[:0], name[:len(name)-len(d.Apex)]...), d.Of...)
		name = room
		domain = x.domainOf(name)
	}
	return name, domain
}

// domainOf returns the number of the innermost domain that name is in, or -1.
func (x *Index) domainOf(name []byte) int {
	for i := range x.domains {
		if x.domains[i].contains(name) {
			return i
		}
	}
	return -1
}
