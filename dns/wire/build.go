package wire

import (
	"encoding/binary"
	"slices"
)

// shardBuilder puts a shard together from entries of an old one and new ones. It
// is used again and again, for its buffers.
type shardBuilder struct {
	drop    []bool // which entries of the old shard are not taken over
	tags    []byte
	ends    []uint32
	entries []byte
	set     setBuilder
}

// reset begins a shard instead of one with n entries.
func (b *shardBuilder) reset(n int) {
	b.drop = slices.Grow(b.drop[:0], n)[:n]
	clear(b.drop)
	b.tags, b.ends, b.entries = b.tags[:0], b.ends[:0], b.entries[:0]
}

// begin begins an entry and returns where.
func (b *shardBuilder) begin(name []byte, domain uint8) int {
	at := len(b.entries)
	b.entries = append(b.entries, byte(len(name)), domain, 0)
	b.entries = append(append(b.entries, name...), 0, 0, 0, 0)
	return at
}

// addSet adds what is in b.set, if anything, to the entry that was begun last.
func (b *shardBuilder) addSet(at int, rrtype uint16) {
	if b.set.len() > 0 {
		b.entries[at+2]++
		b.entries = b.set.append(b.entries, rrtype)
	}
}

// finish ends the entry that begins at at, or takes it back if it says nothing.
func (b *shardBuilder) finish(at int, tag byte, below int64) {
	e := entry(b.entries[at:])
	if below <= 0 && e[2] == 0 {
		b.entries = b.entries[:at]
		return
	}
	binary.LittleEndian.PutUint32(e[entryHeader+int(e[0]):], uint32(max(0, below)))
	b.add(tag)
}

// add adds what stands behind the last entry as an entry.
func (b *shardBuilder) add(tag byte) {
	b.tags = append(b.tags, tag)
	b.ends = append(b.ends, uint32(len(b.entries)))
}

// shard returns the shard, nil for an empty one.
func (b *shardBuilder) shard(old shard) shard {
	n := old.len()
	total, size := n+len(b.tags), int(old.begin(n, n))+len(b.entries)
	for i, dropped := range b.drop {
		if dropped {
			total--
			size -= len(old.entry(i, n))
		}
	}
	if total == 0 {
		return nil
	}
	out := make(shard, 2+5*total+size)
	binary.LittleEndian.PutUint16(out, uint16(total))
	tags, ends, entries := out[2:2+total], out[2+total:2+5*total], out[2+5*total:]
	end := uint32(0)
	for from := 0; from < n; {
		to := from
		for to < n && !b.drop[to] {
			to++
		}
		// What lies between two that are dropped is taken over as it is.
		first, last := old.begin(from, n), old.begin(to, n)
		copy(entries[end:], old[2+5*n:][first:last])
		tags = tags[copy(tags, old.tags(n)[from:to]):]
		for i := from + 1; i <= to; i++ {
			binary.LittleEndian.PutUint32(ends, end+old.begin(i, n)-first)
			ends = ends[4:]
		}
		end += last - first
		from = to + 1
	}
	copy(entries[end:], b.entries)
	copy(tags, b.tags)
	for i, e := range b.ends {
		binary.LittleEndian.PutUint32(ends[4*i:], end+e)
	}
	return out
}

// setBuilder puts the records of one type together.
type setBuilder struct {
	data    []byte
	ends    []uint32
	counts  []uint32
	ragged  bool
	counted bool
}

func (b *setBuilder) reset() {
	*b = setBuilder{data: b.data[:0], ends: b.ends[:0], counts: b.counts[:0]}
}

func (b *setBuilder) len() int { return len(b.ends) }

// add adds a record, which must be the last in order.
func (b *setBuilder) add(data []byte, count uint32) {
	b.data = append(b.data, data...)
	b.ends = append(b.ends, uint32(len(b.data)))
	b.counts = append(b.counts, count)
	b.ragged = b.ragged || len(data) != int(b.ends[0])
	b.counted = b.counted || count != 1
}

// copy adds records from and up to, without, to of s.
func (b *setBuilder) copy(s *set, from, to int) {
	for i := from; i < to; i++ {
		b.add(s.record(i), uint32(s.count(i)))
	}
}

// append appends what readSet reads.
func (b *setBuilder) append(out []byte, rrtype uint16) []byte {
	count, each := uint32(len(b.ends)), uint16(b.ends[0])
	if b.ragged {
		count, each = count|flagRagged, 0
	}
	if b.counted {
		count |= flagCounted
	}
	out = binary.LittleEndian.AppendUint16(out, rrtype)
	out = binary.LittleEndian.AppendUint16(out, each)
	out = binary.LittleEndian.AppendUint32(out, count)
	if b.ragged {
		for _, end := range b.ends {
			out = binary.LittleEndian.AppendUint32(out, end)
		}
	}
	out = append(out, b.data...)
	if b.counted {
		for _, n := range b.counts {
			out = binary.LittleEndian.AppendUint32(out, n)
		}
	}
	return out
}

// withBits returns x with 1<<bits shards.
func (x *Index) withBits(bits int) *Index {
	next := *x
	next.bits = bits
	next.pages = make([]*page, max(1, 1<<bits/pageShards))
	for i := range next.pages {
		next.pages[i] = &page{}
	}
	type moved struct {
		hash uint64
		e    entry
	}
	all := make([]moved, 0, x.names)
	for n := range x.All() {
		all = append(all, moved{x.hash(n.Name()), n.e})
	}
	slices.SortFunc(all, func(a, b moved) int {
		switch {
		case a.hash < b.hash:
			return -1
		case a.hash > b.hash:
			return 1
		}
		return 0
	})
	var b shardBuilder
	for len(all) > 0 {
		b.reset(0)
		place := next.place(all[0].hash)
		for len(all) > 0 && next.place(all[0].hash) == place {
			b.entries = append(b.entries, all[0].e...)
			b.add(tagOf(all[0].hash))
			all = all[1:]
		}
		next.pages[place/pageShards][place%pageShards] = b.shard(nil)
	}
	return &next
}
