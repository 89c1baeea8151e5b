package model

import (
	"hash/maphash"
	"iter"
)

const (
	minShards = 16
	maxShards = 8192
	// perShard is the mean number of entries that makes the table of shards grow:
	// copying one shard is cheap.
	perShard = 24
	// perBlock is how many shards a block of the table has, so that an edit
	// copies a block and the list of blocks, not the whole table.
	perBlock = 64
)

// Groups is an immutable map that shares what did not change with the map it
// was edited from. The zero value is empty and ready to use. An Edit of k keys
// costs about k small copies whatever the size of the map, and Diff between a
// map and one edited from it visits only what the edit touched.
type Groups[K, V comparable] struct {
	seed   maphash.Seed
	blocks []*block[K, V] // of one size each
	mask   uint64         // the number of shards, a power of two, less one
	size   int
}

// block is a piece of the table of shards.
type block[K, V comparable] struct {
	owner  *byte // the Editor that may change this block in place
	shards []*shard[K, V]
}

type shard[K, V comparable] struct {
	owner   *byte // the Editor that may change this shard in place
	entries []entry[K, V]
}

type entry[K, V comparable] struct {
	hash  uint64 // of the key, so that a search looks at one key, not at all
	key   K
	value V
}

func (s *shard[K, V]) find(hash uint64, k K) int {
	if s != nil {
		for i := range s.entries {
			if s.entries[i].hash == hash && s.entries[i].key == k {
				return i
			}
		}
	}
	return -1
}

// Len returns the number of entries.
func (g Groups[K, V]) Len() int { return g.size }

// Get returns the value of k, and whether there is one.
func (g Groups[K, V]) Get(k K) (V, bool) {
	var zero V
	if len(g.blocks) == 0 {
		return zero, false
	}
	h := g.hash(k)
	b, at := g.slot(h)
	s := g.blocks[b].shards[at]
	if i := s.find(h, k); i >= 0 {
		return s.entries[i].value, true
	}
	return zero, false
}

// All yields every entry once, in no particular order.
func (g Groups[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, b := range g.blocks {
			for _, s := range b.shards {
				if s == nil {
					continue
				}
				for _, e := range s.entries {
					if !yield(e.key, e.value) {
						return
					}
				}
			}
		}
	}
}

func (g Groups[K, V]) hash(k K) uint64 { return maphash.Comparable(g.seed, k) }

// slot returns the block of a hash, and the shard in it.
func (g Groups[K, V]) slot(hash uint64) (block, shard uint64) {
	n := hash & g.mask
	return n / perBlock, n % perBlock
}

// newBlocks returns the blocks of n shards, a power of two.
func newBlocks[K, V comparable](n int, owner *byte) []*block[K, V] {
	out := make([]*block[K, V], max(1, n/perBlock))
	for i := range out {
		out[i] = &block[K, V]{owner, make([]*shard[K, V], min(n, perBlock))}
	}
	return out
}

// Edit starts a change of g. The returned Editor is for one goroutine.
func (g Groups[K, V]) Edit() *Editor[K, V] {
	return &Editor[K, V]{g: g}
}

// Editor collects changes to a Groups. It leaves the map it was made from as
// it is.
type Editor[K, V comparable] struct {
	g     Groups[K, V]
	owner *byte // nil until the list of blocks is our own copy
}

// Get returns the value of k as edited so far, and whether there is one.
func (e *Editor[K, V]) Get(k K) (V, bool) { return e.g.Get(k) }

// Len returns the number of entries as edited so far.
func (e *Editor[K, V]) Len() int { return e.g.size }

// Set makes v the value of k. Setting the value that is there changes nothing.
func (e *Editor[K, V]) Set(k K, v V) {
	if old, ok := e.g.Get(k); ok && old == v {
		return
	}
	e.own()
	h := e.g.hash(k)
	s := e.writable(h)
	if i := s.find(h, k); i >= 0 {
		s.entries[i].value = v
		return
	}
	s.entries = append(s.entries, entry[K, V]{h, k, v})
	e.g.size++
	if n := int(e.g.mask) + 1; e.g.size > n*perShard && n < maxShards {
		e.resize(n * 2)
	}
}

// Delete removes k if it is there.
func (e *Editor[K, V]) Delete(k K) {
	if _, ok := e.g.Get(k); !ok {
		return
	}
	e.own()
	h := e.g.hash(k)
	s := e.writable(h)
	i, last := s.find(h, k), len(s.entries)-1
	s.entries[i] = s.entries[last]
	s.entries[last] = entry[K, V]{}
	s.entries = s.entries[:last]
	e.g.size--
}

// Groups returns the edited map. The Editor may go on; what it does later is
// not seen by the map returned here.
func (e *Editor[K, V]) Groups() Groups[K, V] {
	e.owner = nil
	return e.g
}

func (e *Editor[K, V]) own() {
	if e.owner != nil {
		return
	}
	e.owner = new(byte)
	if len(e.g.blocks) == 0 {
		e.g.seed = maphash.MakeSeed()
		e.g.blocks, e.g.mask = newBlocks[K, V](minShards, e.owner), minShards-1
		return
	}
	e.g.blocks = append([]*block[K, V](nil), e.g.blocks...)
}

// writable returns the shard of a hash, ours to change.
func (e *Editor[K, V]) writable(hash uint64) *shard[K, V] {
	at, i := e.g.slot(hash)
	b := e.g.blocks[at]
	if b.owner != e.owner {
		b = &block[K, V]{e.owner, append([]*shard[K, V](nil), b.shards...)}
		e.g.blocks[at] = b
	}
	s := b.shards[i]
	if s != nil && s.owner == e.owner {
		return s
	}
	c := &shard[K, V]{owner: e.owner}
	if s != nil {
		c.entries = append(make([]entry[K, V], 0, len(s.entries)+1), s.entries...)
	}
	b.shards[i] = c
	return c
}

func (e *Editor[K, V]) resize(n int) {
	old := e.g.blocks
	e.g.blocks, e.g.mask = newBlocks[K, V](n, e.owner), uint64(n-1)
	for _, b := range old {
		for _, s := range b.shards {
			if s == nil {
				continue
			}
			for _, en := range s.entries {
				w := e.writable(en.hash)
				w.entries = append(w.entries, en)
			}
		}
	}
}

// Change is one difference between two maps. InOld and InNew say on which
// side the key exists; the value of the other side is the zero value.
type Change[K, V comparable] struct {
	Key          K
	Old, New     V
	InOld, InNew bool
}

// Diff yields what differs between old and new, once per key, in no particular
// order. Between maps of one lineage it skips every block and shard they share.
func Diff[K, V comparable](old, new Groups[K, V]) iter.Seq[Change[K, V]] {
	return func(yield func(Change[K, V]) bool) {
		for s := range new.unshared(old) {
			for _, e := range s.entries {
				was, ok := old.Get(e.key)
				if ok && was == e.value {
					continue
				}
				if !yield(Change[K, V]{Key: e.key, Old: was, New: e.value, InOld: ok, InNew: true}) {
					return
				}
			}
		}
		for s := range old.unshared(new) {
			for _, e := range s.entries {
				if _, ok := new.Get(e.key); ok {
					continue
				}
				if !yield(Change[K, V]{Key: e.key, Old: e.value, InOld: true}) {
					return
				}
			}
		}
	}
}

// unshared yields the shards of g that are not those of other.
func (g Groups[K, V]) unshared(other Groups[K, V]) iter.Seq[*shard[K, V]] {
	lineage := g.seed == other.seed && len(g.blocks) == len(other.blocks) && g.mask == other.mask
	return func(yield func(*shard[K, V]) bool) {
		for i, b := range g.blocks {
			if lineage && other.blocks[i] == b {
				continue
			}
			for j, s := range b.shards {
				if s == nil || lineage && other.blocks[i].shards[j] == s {
					continue
				}
				if !yield(s) {
					return
				}
			}
		}
	}
}
