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
	// above are the changes to what is below a name. The first ones, as many as
	// mapped, aboveAt finds by hash; for the last few that does not pay.
	above   []change
	mapped  int
	aboveAt map[uint64]int
	// ofSize and nextAbove chain them by the size of their names, as places in
	// above counted from 1.
	ofSize    [maxName + 1]int
	nextAbove []int
	out       shardBuilder
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

// manyChanges is from when on sorting in two steps is faster.
const manyChanges = 1 << 14

// fewAbove is how many changes are looked through one by one.
const fewAbove = 16

// maxArena is how much is collected before it is worked in. What does not fit
// is only what no cluster has: it bounds memory, not what can be done.
const maxArena = 256 << 20

// Edit starts a change of x, which stays as it is.
func (x *Index) Edit() *Editor {
	e := &Editor{}
	e.Reset(x)
	return e
}

// Reset makes an Editor that is done, or the zero Editor, start a change of x. It
// keeps its room.
func (e *Editor) Reset(x *Index) {
	const octets, changes = 4096, 64 // of one task
	if e.arena == nil {
		e.arena, e.changes = make([]byte, 0, octets), make([]change, 0, changes)
	}
	e.x, e.changed = x, false
}

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
	e.addBelow(at, name, domain, n)
}

// addBelow adds n to how much is below the name above the given one, which is
// in domain and stands in the arena. What is further up follows in climb.
func (e *Editor) addBelow(at uint32, name []byte, domain int, n int32) {
	if len(name) == 1 { // the root
		return
	}
	up := 1 + int(name[0])
	if name = name[up:]; len(name) < len(e.x.domains[domain].Apex) {
		if domain = e.x.domainOf(name); domain < 0 {
			return
		}
	}
	if e.x.domains[domain].Missing == ForeignName {
		return
	}
	hash := e.x.hash(name)
	if i := e.findAbove(hash); i >= 0 && bytes.Equal(e.name(&e.above[i]), name) {
		e.above[i].n += n
		return
	}
	e.nextAbove = append(e.nextAbove, e.ofSize[len(name)])
	e.ofSize[len(name)] = len(e.above) + 1
	e.above = append(e.above, change{
		hash: hash, name: at + uint32(up), nameSize: uint8(len(name)), domain: uint8(domain), n: n,
	})
}

// findAbove returns where in above the last change to the name with a hash is,
// or -1.
func (e *Editor) findAbove(hash uint64) int {
	for ; e.mapped+fewAbove < len(e.above); e.mapped++ {
		if e.aboveAt == nil {
			e.aboveAt = map[uint64]int{}
		}
		e.aboveAt[e.above[e.mapped].hash] = e.mapped
	}
	for i := len(e.above) - 1; i >= e.mapped; i-- {
		if e.above[i].hash == hash {
			return i
		}
	}
	if i, ok := e.aboveAt[hash]; ok {
		return i
	}
	return -1
}

// climb adds what is below each name to the names further up. A name is shorter
// than any below it, so the longest, which come first, are complete by then.
func (e *Editor) climb() {
	for size := maxName; size > 0; size-- {
		for i := e.ofSize[size]; i > 0; i = e.nextAbove[i-1] {
			if c := e.above[i-1]; c.n != 0 {
				e.addBelow(c.name, e.name(&c), int(c.domain), c.n)
			}
		}
	}
	e.changes = append(e.changes, e.above...)
}

func (e *Editor) name(c *change) []byte { return e.arena[c.name : c.name+uint32(c.nameSize)] }

func (e *Editor) data(c *change) []byte { return e.arena[c.data : c.data+uint32(c.dataSize)] }

// Index returns the edited Index, and whether it has other records than the one
// that was to be edited. The Editor is done, and can be Reset.
func (e *Editor) Index() (x *Index, changed bool) {
	e.apply()
	x, changed = e.x, e.changed
	const octets, changes = 32 << 10, 512 // of some eight tasks
	if cap(e.arena) > octets || cap(e.changes) > changes {
		*e = Editor{} // what many changes took is not kept for few
	}
	e.x = nil
	return x, changed
}

// apply works in what was collected.
func (e *Editor) apply() {
	e.climb()
	e.sort()
	if names := e.sum(); names > 0 {
		e.resize(names)
		e.rewriteAll()
	}
	e.arena, e.changes, e.above, e.nextAbove = e.arena[:0], e.changes[:0], e.above[:0], e.nextAbove[:0]
	e.ofSize = [maxName + 1]int{}
	clear(e.aboveAt)
	e.mapped = 0
}

// sort orders the changes by hash, so that those of one shard, and those of one
// name, are together.
func (e *Editor) sort() {
	compare := func(a, b change) int {
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return cmp.Or(bytes.Compare(e.name(&a), e.name(&b)), cmp.Compare(a.rrtype, b.rrtype),
			bytes.Compare(e.data(&a), e.data(&b)))
	}
	if len(e.changes) < manyChanges {
		slices.SortFunc(e.changes, compare)
		return
	}
	// Very many are first dealt out by the top of the hash.
	const top = 16
	var ends [1<<top + 1]uint32
	for i := range e.changes {
		ends[e.changes[i].hash>>(64-top)+1]++
	}
	for i := 1; i < len(ends); i++ {
		ends[i] += ends[i-1]
	}
	dealt := make([]change, len(e.changes))
	for i := range e.changes {
		to := &ends[e.changes[i].hash>>(64-top)]
		dealt[*to] = e.changes[i]
		*to++
	}
	// Now each end is where the next hand begins.
	from := uint32(0)
	for _, to := range ends[:1<<top] {
		slices.SortFunc(dealt[from:to], compare)
		from = to
	}
	e.changes = dealt
}

// sum makes one change of those that say the same, none of those that come to
// nothing, and returns how many names there are changes to.
func (e *Editor) sum() (names int) {
	kept := e.changes[:0]
	for i := 0; i < len(e.changes); {
		c := e.changes[i]
		for i++; i < len(e.changes) && e.alike(&c, &e.changes[i]); i++ {
			c.n += e.changes[i].n
		}
		if c.n == 0 {
			continue
		}
		if len(kept) == 0 || !e.sameName(&c, &kept[len(kept)-1]) {
			names++
		}
		kept = append(kept, c)
	}
	e.changes = kept
	return names
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

// resize makes as many shards as there will be names for, after changes to as
// many as given.
func (e *Editor) resize(changed int) {
	most := e.x.names + changed
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
