package wire

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
)

// Editor collects changes to an Index and makes the next Index of them. It is
// for one goroutine.
//
// A change adds a record to a name a number of times or takes it away. A record
// is there while it was added more often than taken away, and a name exists
// while it, or one below it, has a record (RFC 8020). Both are sums, so the
// order of changes does not matter, and a change that is taken back leaves
// nothing to do.
type Editor struct {
	x       *Index
	changed bool
	arena   []byte // names and data of the changes
	changes []change
	above   map[uint64]int // changes to what is below a name, by the name's hash
	out     shardBuilder
}

// change adds a record n times; its name and data are in the arena. With type 0
// it adds to what is below the name.
type change struct {
	hash     uint64
	name     uint32
	data     uint32
	n        int32
	dataSize uint16
	rrtype   uint16
	nameSize uint8
	domain   uint8
}

// maxArena is how much is collected before it is worked in. What does not fit
// is only what no cluster has: it bounds memory, not what can be done.
const maxArena = 256 << 20

// Edit starts a change of x, which stays as it is.
func (x *Index) Edit() *Editor { return &Editor{x: x, above: map[uint64]int{}} }

// Add adds a record to name n times, or takes it away for a negative n. The
// name is in wire format and lower case; if it is in no domain nothing happens.
// Name and data are copied. The data must be what readers of the type expect.
func (e *Editor) Add(name []byte, rrtype uint16, data []byte, n int32) {
	domain := e.x.domainOf(name)
	if domain < 0 {
		return
	}
	if len(e.arena)+len(name)+len(data) > maxArena {
		e.apply()
	}
	at := uint32(len(e.arena))
	e.arena = append(append(e.arena, name...), data...)
	e.changes = append(e.changes, change{
		hash: e.x.hash(name), name: at, nameSize: uint8(len(name)), domain: uint8(domain),
		data: at + uint32(len(name)), dataSize: uint16(len(data)), rrtype: rrtype, n: n,
	})
	for off := 1 + int(name[0]); domain >= 0 && off < len(name); off += 1 + int(name[off]) {
		if domain = e.x.domainOf(name[off:]); domain >= 0 {
			e.addBelow(at+uint32(off), name[off:], domain, n)
		}
	}
}

// addBelow adds n to how much is below name, which is at a place in the arena.
func (e *Editor) addBelow(at uint32, name []byte, domain int, n int32) {
	hash := e.x.hash(name)
	if i, ok := e.above[hash]; ok && bytes.Equal(e.name(&e.changes[i]), name) {
		e.changes[i].n += n
		return
	}
	e.above[hash] = len(e.changes)
	e.changes = append(e.changes, change{hash: hash, name: at, nameSize: uint8(len(name)), domain: uint8(domain), n: n})
}

func (e *Editor) name(c *change) []byte { return e.arena[c.name : c.name+uint32(c.nameSize)] }

func (e *Editor) data(c *change) []byte { return e.arena[c.data : c.data+uint32(c.dataSize)] }

// Index returns the edited Index, and whether it has other records than the one
// that was to be edited. The Editor is done.
func (e *Editor) Index() (x *Index, changed bool) {
	e.apply()
	return e.x, e.changed
}

// apply works in what was collected.
func (e *Editor) apply() {
	slices.SortFunc(e.changes, func(a, b change) int {
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return cmp.Or(bytes.Compare(e.name(&a), e.name(&b)), cmp.Compare(a.rrtype, b.rrtype),
			bytes.Compare(e.data(&a), e.data(&b)))
	})
	e.sum()
	if len(e.changes) > 0 {
		e.resize()
		e.rewriteAll()
	}
	e.arena, e.changes = e.arena[:0], e.changes[:0]
	clear(e.above)
}

// sum makes one change of those that say the same, none of those that come to
// nothing.
func (e *Editor) sum() {
	kept := e.changes[:0]
	for i := 0; i < len(e.changes); {
		c := e.changes[i]
		for i++; i < len(e.changes) && e.alike(&c, &e.changes[i]); i++ {
			c.n += e.changes[i].n
		}
		if c.n != 0 {
			kept = append(kept, c)
		}
	}
	e.changes = kept
}

func (e *Editor) alike(a, b *change) bool {
	return a.hash == b.hash && a.rrtype == b.rrtype && bytes.Equal(e.data(a), e.data(b)) && e.sameName(a, b)
}

func (e *Editor) sameName(a, b *change) bool {
	return a.hash == b.hash && bytes.Equal(e.name(a), e.name(b))
}

// rewriteAll makes the next Index, with new shards where there are changes.
func (e *Editor) rewriteAll() {
	next := *e.x
	next.pages = slices.Clone(next.pages)
	own := -1 // the page that is already our own; changes are in the order of pages
	for from := 0; from < len(e.changes); {
		place := next.place(e.changes[from].hash)
		to := from + 1
		for to < len(e.changes) && next.place(e.changes[to].hash) == place {
			to++
		}
		if at := place / pageShards; at != own {
			own = at
			p := *next.pages[at]
			next.pages[at] = &p
		}
		old := next.shard(place)
		s := e.rewrite(old, e.changes[from:to])
		next.pages[own][place%pageShards] = s
		next.names += s.len() - old.len()
		from = to
	}
	e.x = &next
}

// rewrite returns old with changes applied.
func (e *Editor) rewrite(old shard, changes []change) shard {
	n := old.len()
	e.out.reset(n)
	for from := 0; from < len(changes); {
		to := from + 1
		for to < len(changes) && e.sameName(&changes[from], &changes[to]) {
			to++
		}
		var was entry
		if i := old.find(n, tagOf(changes[from].hash), e.name(&changes[from])); i >= 0 {
			was = old.entry(i, n)
			e.out.drop[i] = true
		}
		e.merge(was, changes[from:to])
		from = to
	}
	return e.out.shard(old)
}

// merge puts out the entry that was, if any, with changes, all of its name.
func (e *Editor) merge(was entry, changes []change) {
	below, left := int64(0), 0
	var sets []byte
	if was != nil {
		below, left, sets = int64(was.below()), int(was[2]), was.sets()
	}
	at, tag := e.out.begin(e.name(&changes[0]), changes[0].domain), tagOf(changes[0].hash)
	for ; len(changes) > 0 && changes[0].rrtype == 0; changes = changes[1:] {
		below += int64(changes[0].n)
	}
	for left > 0 || len(changes) > 0 {
		var old set
		if left > 0 {
			old = readSet(sets)
		}
		rrtype, to := old.rrtype, 0
		if left == 0 || len(changes) > 0 && changes[0].rrtype < rrtype {
			rrtype, old = changes[0].rrtype, set{}
		} else {
			sets = sets[old.size():]
			left--
		}
		for to < len(changes) && changes[to].rrtype == rrtype {
			to++
		}
		e.mergeSet(&old, changes[:to])
		e.out.addSet(at, rrtype)
		changes = changes[to:]
	}
	e.out.finish(at, tag, below)
}

// mergeSet fills e.out.set with old, which may be empty, and changes, all of its
// type. What lies between two changes is copied as it is.
func (e *Editor) mergeSet(old *set, changes []change) {
	to := &e.out.set
	to.reset()
	from := 0
	for i := range changes {
		data := e.data(&changes[i])
		at := from + sort.Search(old.n-from, func(i int) bool { return bytes.Compare(old.record(from+i), data) >= 0 })
		to.copy(old, from, at)
		from = at
		var had int32
		if at < old.n && bytes.Equal(old.record(at), data) {
			had = old.count(at)
			from++
		}
		now := had + changes[i].n
		if now > 0 {
			to.add(data, uint32(now))
		}
		e.changed = e.changed || (had > 0) != (now > 0)
	}
	to.copy(old, from, old.n)
}

// resize makes as many shards as there will be names for.
func (e *Editor) resize() {
	most := e.x.names
	for i := range e.changes {
		c := &e.changes[i]
		if c.n > 0 && (i == 0 || !e.sameName(c, &e.changes[i-1])) {
			most++
		}
	}
	if most > perShard<<e.x.bits {
		// That counts names twice that there are already.
		most = e.x.names + e.newNames()
	}
	bits := minBits
	for most > perShard<<bits {
		bits++
	}
	// Shrinking waits until it is worth it, so that names that come and go do
	// not have all shards made anew each time.
	if bits > e.x.bits || bits+2 < e.x.bits {
		e.x = e.x.withBits(bits)
	}
}

func (e *Editor) newNames() int {
	n := 0
	for i := range e.changes {
		c := &e.changes[i]
		if i > 0 && e.sameName(c, &e.changes[i-1]) {
			continue
		}
		if e.x.lookup(c.hash, e.name(c)) == nil {
			n++
		}
	}
	return n
}
