package wire

import (
	"bytes"
	"iter"
	"unsafe"
)

// Diff yields every name whose records are not those it has in old, with what it
// has in x; a name without records is not told from one that is not there. Of
// two Indexes of one lineage it looks only at the shards they do not share.
func (x *Index) Diff(old *Index) iter.Seq[Node] {
	return func(yield func(Node) bool) {
		for e := range x.unshared(old) {
			if was := old.lookup(old.hash(e.name()), e.name()); !sameRecords(was, e) && !yield(Node{e}) {
				return
			}
		}
		for e := range old.unshared(x) {
			if x.lookup(x.hash(e.name()), e.name()) == nil && e[2] > 0 && !yield(Node{e.bare()}) {
				return
			}
		}
	}
}

// sameRecords reports whether two entries of one name, of which the first may be
// nil, have the same records, however often each was added.
func sameRecords(was, is entry) bool {
	if was == nil {
		return is[2] == 0
	}
	if was[2] != is[2] || bytes.Equal(was.sets(), is.sets()) {
		return was[2] == is[2]
	}
	next, stop := iter.Pull(Node{was}.Records())
	defer stop()
	for r := range (Node{is}).Records() {
		if o, ok := next(); !ok || o.Type != r.Type || !bytes.Equal(o.Data, r.Data) {
			return false
		}
	}
	_, left := next()
	return !left
}

// bare returns e without its sets.
func (e entry) bare() entry {
	out := append(entry{}, e[:entryHeader+int(e[0])+4]...)
	out[2] = 0
	return out
}

// unshared yields the entries of x in shards that old has not.
func (x *Index) unshared(old *Index) iter.Seq[entry] {
	lineage := x.seed == old.seed && x.bits == old.bits
	return func(yield func(entry) bool) {
		for i, p := range x.pages {
			if lineage && old.pages[i] == p {
				continue
			}
			for j, s := range p {
				if lineage && len(s) == len(old.pages[i][j]) && unsafe.SliceData(s) == unsafe.SliceData(old.pages[i][j]) {
					continue
				}
				n := s.len()
				for k := range n {
					if !yield(s.entry(k, n)) {
						return
					}
				}
			}
		}
	}
}
