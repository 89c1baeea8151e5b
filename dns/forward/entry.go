package forward

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

// entry is an answer that is remembered, in wire form. It is immutable but for
// its counters.
type entry struct {
	flags  uint16 // rcode and AD
	counts [3]uint16
	body   []byte // what follows the question, without OPT
	ttls   []byte // where in body TTLs are, two octets each
	ede    int    // what an upstream or we had to say of it, edeNone for nothing

	negative bool
	stored   time.Time
	ttl      time.Duration
	keep     time.Duration // behind ttl, to be served stale

	hits       atomic.Uint32
	refreshing atomic.Bool
	retryAt    atomic.Int64 // unix nanoseconds; until then a stale entry is not asked for again
}

// overhead is about what an entry costs beside its bytes.
const overhead = 256

// weight is about what the entry costs under key.
func (e *entry) weight(key string) uint32 {
	return uint32(overhead + len(key) + len(e.body) + len(e.ttls))
}

func (e *entry) fresh(now time.Time) bool { return now.Sub(e.stored) < e.ttl }

// dead reports whether the entry is not even good as a stale one.
func (e *entry) dead(now time.Time) bool { return now.Sub(e.stored) >= e.ttl+e.keep }

// popular reports whether the entry is worth to be refreshed before it expires:
// it is asked for, and a tenth of its time is left.
func (e *entry) popular(now time.Time) bool {
	return e.hits.Load() >= prefetchHits && now.Sub(e.stored) > e.ttl-e.ttl/10 && e.ttl >= prefetchTTL
}

const (
	prefetchHits = 3
	prefetchTTL  = 5 * time.Second
)

// appendAnswer appends the entry as the answer to q. stale, if not zero, is the
// TTL of everything in it.
func (e *entry) appendAnswer(dst []byte, q *question, now time.Time, limit, maxUDP int, stale time.Duration) []byte {
	flags := e.flags
	if !q.do && q.flags&flagAD == 0 {
		flags &^= flagAD // RFC 6840 section 5.8: only for who asks
	}
	counts, ede := e.counts, e.ede
	if stale > 0 {
		ede = edeStale
	}
	opt := 0
	if q.edns {
		counts[2]++
		if opt = 11; ede >= 0 {
			opt = 17
		}
	}
	if headerSize+len(q.raw)+len(e.body)+opt > limit {
		return e.appendTruncated(dst, q, flags, maxUDP, ede)
	}
	if dst == nil {
		dst = make([]byte, 0, headerSize+len(q.raw)+len(e.body)+opt)
	}
	dst = append(appendHeader(dst, q, flags, counts), q.raw...)
	body := len(dst)
	dst = append(dst, e.body...)
	age := uint32(max(0, now.Sub(e.stored)) / time.Second)
	for at := e.ttls; len(at) > 1; at = at[2:] {
		ttl := dst[body+int(binary.BigEndian.Uint16(at)):]
		left := uint32(stale / time.Second)
		if stale == 0 {
			left = binary.BigEndian.Uint32(ttl)
			left -= min(age, left)
		}
		binary.BigEndian.PutUint32(ttl, left)
	}
	if q.edns {
		dst = appendOPT(dst, maxUDP, q.do, ede)
	}
	return dst
}

func (e *entry) appendTruncated(dst []byte, q *question, flags uint16, maxUDP, ede int) []byte {
	var counts [3]uint16
	if q.edns {
		counts[2] = 1
	}
	dst = append(appendHeader(dst, q, flags|flagTC, counts), q.raw...)
	if q.edns {
		dst = appendOPT(dst, maxUDP, q.do, ede)
	}
	return dst
}

// reply is an upstream's answer that has been read.
type reply struct {
	rcode int // with the extended bits
	tc    bool
	entry *entry
}

// parseReply reads p, an answer whose question is known to be right and ends at
// body, into an entry that is yet to be given its time. It returns false for a
// message that does not hold what it says.
func parseReply(p []byte, body int, qtype uint16, cfg *Config) (r reply, ok bool) {
	flags := binary.BigEndian.Uint16(p[2:])
	r.rcode, r.tc = int(flags&0xf), flags&flagTC != 0
	e := &entry{flags: flags & (flagAD | 0xf), ede: edeNone}
	cut := -1 // start of an OPT record
	seen := sight{shortest: 1<<31 - 1, soa: -1}
	most := uint32(cfg.MaxTTL / time.Second)
	var room [32]ttlAt
	ttls := room[:0]
	off := body
	for section := range 3 {
		n := int(binary.BigEndian.Uint16(p[6+2*section:]))
		e.counts[section] = uint16(n)
		for range n {
			rec, ok := readRecord(p, off)
			if !ok {
				return r, false
			}
			off = rec.end
			if rec.rtype == typeOPT {
				if cut >= 0 || section != 2 || p[rec.start] != 0 {
					return r, false
				}
				cut = rec.start
				r.rcode |= int(rec.ttl(p)>>24) << 4
				e.ede = readEDE(p[rec.data:rec.end])
				e.counts[2]--
				continue
			}
			if cut >= 0 {
				// What comes behind the record that is cut out would move, and
				// pointers to it would break. It is only ever a courtesy.
				e.counts[2]--
				continue
			}
			ttl := saneTTL(rec.ttl(p))
			ttls = append(ttls, ttlAt{uint16(rec.fixed + 4 - body), min(ttl, most)})
			seen.take(p, section, rec, ttl, qtype)
		}
	}
	if r.rcode > 0xf { // which has no place in an answer without an OPT record
		e.flags = e.flags&^0xf | rcodeServFail
	}
	if cut < 0 {
		cut = off // bytes that nothing accounts for are not passed on
	}
	e.hold(p[body:cut], ttls)
	e.negative = !seen.answered && !(seen.aliased && seen.soa < 0 && r.rcode == rcodeSuccess)
	e.age(seen.shortest, seen.soa, cfg)
	r.entry = e
	return r, true
}

// sight is what of an answer's records decides what it is and for how long.
type sight struct {
	answered, aliased bool
	shortest          uint32 // TTL of what is not merely additional
	soa               int64  // how long it lets negative answers live, -1 without one
}

func (s *sight) take(p []byte, section int, rec record, ttl uint32, qtype uint16) {
	if section < 2 {
		s.shortest = min(s.shortest, ttl)
	}
	switch {
	case section == 0 && (rec.rtype == qtype || qtype == typeANY):
		s.answered = true
	case section == 0 && rec.rtype == typeCNAME:
		s.aliased = true
	case section == 1 && rec.rtype == typeSOA && rec.end-rec.data >= 22:
		s.soa = int64(min(ttl, binary.BigEndian.Uint32(p[rec.end-4:])))
	}
}

// ttlAt is a TTL in the body of an answer.
type ttlAt struct {
	at    uint16
	value uint32
}

// hold gives e a copy of body with these TTLs in it, in one piece of memory.
func (e *entry) hold(body []byte, ttls []ttlAt) {
	piece := append(make([]byte, 0, len(body)+2*len(ttls)), body...)
	e.body = piece[:len(body):len(body)]
	for _, t := range ttls {
		binary.BigEndian.PutUint32(e.body[t.at:], t.value)
		piece = binary.BigEndian.AppendUint16(piece, t.at)
	}
	e.ttls = piece[len(body):]
}

// age sets how long e is good for.
func (e *entry) age(shortest uint32, soa int64, cfg *Config) {
	switch {
	case !e.negative:
		e.ttl = min(time.Duration(shortest)*time.Second, cfg.MaxTTL)
		e.keep = cfg.StaleFor
	case soa >= 0:
		e.ttl = min(time.Duration(min(int64(shortest), soa))*time.Second, cfg.MaxNegativeTTL)
	default:
		e.ttl = cfg.NoSOATTL
	}
}

// saneTTL reads a TTL with the top bit set as 0 (RFC 2181 section 8).
func saneTTL(ttl uint32) uint32 {
	if ttl >= 1<<31 {
		return 0
	}
	return ttl
}

// readEDE returns the extended error among EDNS options, edeNone for none.
func readEDE(options []byte) int {
	if ede := findOption(options, optionEDE); len(ede) >= 2 {
		return int(binary.BigEndian.Uint16(ede))
	}
	return edeNone
}
