package guard

import (
	"encoding/binary"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"
)

// LimitConfig says how fast replies may go to one network.
type LimitConfig struct {
	// Rate is how many replies of one kind a second a network gets; 0 is no limit.
	Rate uint16
	// Burst is how many go ahead of the rate after a time of silence. A resolver
	// that starts asks many questions at once; a flood is longer.
	Burst uint16
	// Slip makes one of so many replies that are held back a cut one, so that a
	// client whose address is abused can come by TCP; 0 never does, 1 always.
	Slip uint16
	// Prefix4 and Prefix6 are the lengths of prefixes that count as one network:
	// who sends from one address of a network can send from others.
	Prefix4, Prefix6 uint8
	// Buckets is how many networks and kinds are remembered, 8 octets each,
	// rounded up to a power of two. What is forgotten has its whole burst again.
	Buckets int
}

// DefaultLimitConfig returns limits that no honest resolver meets: 200 replies
// of one kind a second, 1000 at once, half of the rest cut.
func DefaultLimitConfig() LimitConfig {
	return LimitConfig{Rate: 200, Burst: 1000, Slip: 2, Prefix4: 24, Prefix6: 56, Buckets: 1 << 16}
}

// Kind is what replies are counted by: a network may well ask for many names
// that exist, but a flood of errors is not to use up that allowance.
type Kind uint8

// The kinds of replies.
const (
	Answer Kind = iota
	NoSuchName
	Error
)

// Verdict is what becomes of a reply.
type Verdict uint8

// The verdicts.
const (
	Send Verdict = iota
	Cut          // send an empty reply with TC, which is no longer than the query
	Drop
)

// tick is the unit of time in a bucket; 48 bits of it last 142 years.
const tick = 16 * time.Microsecond

// Limiter holds back replies to networks that get too many. Its memory is fixed.
// It is safe for concurrent use.
//
// A bucket is one word: 16 bits of the key's hash, and the time at which the
// network will have used up what it was given (the generic cell rate algorithm
// of ITU-T I.371). It is read and replaced at once, so there is no lock.
type Limiter struct {
	cfg     LimitConfig
	cost    uint64 // ticks that one reply takes
	depth   uint64 // ticks ahead of now that are allowed
	seed    maphash.Seed
	start   time.Time
	buckets []atomic.Uint64
}

// NewLimiter returns a Limiter, nil for a rate of 0, which holds nothing back.
func NewLimiter(cfg LimitConfig) *Limiter {
	if cfg.Rate == 0 {
		return nil
	}
	size := 2
	for size < cfg.Buckets {
		size *= 2
	}
	cost := uint64(time.Second / tick / time.Duration(cfg.Rate))
	return &Limiter{
		cfg: cfg, cost: cost, depth: cost * uint64(max(1, cfg.Burst)), seed: maphash.MakeSeed(),
		start: time.Now(), buckets: make([]atomic.Uint64, size),
	}
}

// Check counts a reply of one kind to client and says what becomes of it.
func (l *Limiter) Check(client netip.Addr, kind Kind, now time.Time) Verdict {
	if l == nil || l.take(l.key(client, kind), uint64(max(0, now.Sub(l.start))/tick)) {
		return Send
	}
	if s := uint32(l.cfg.Slip); s > 0 && rand.Uint32N(s) == 0 {
		return Cut
	}
	return Drop
}

// key hashes the network of client and the kind. The seed is secret, so nobody
// can choose networks that share a bucket with another's.
func (l *Limiter) key(client netip.Addr, kind Kind) uint64 {
	var b [9]byte
	b[8] = byte(kind)
	if client = client.Unmap(); client.Is4() {
		a := client.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(a[:])&^(1<<(32-min(l.cfg.Prefix4, 32))-1))
		b[7] = 4
	} else {
		// Networks of IPv6 are told apart by their first 64 bits at most.
		a := client.As16()
		binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(a[:])&^(1<<(64-min(l.cfg.Prefix6, 64))-1))
	}
	return maphash.Bytes(l.seed, b[:])
}

const timeBits = 48

// take uses up one reply and reports whether it was still to be had. A network
// is looked for in two places; a new one takes that whose owner has been silent
// for longer.
func (l *Limiter) take(key, now uint64) bool {
	tag, mask := key>>timeBits, uint64(len(l.buckets)-1)
	for {
		b := &l.buckets[key&mask]
		old := b.Load()
		if old>>timeBits != tag {
			other := &l.buckets[key>>24&mask]
			word := other.Load()
			if word>>timeBits == tag || word&(1<<timeBits-1) < old&(1<<timeBits-1) {
				b, old = other, word
			}
		}
		until := uint64(0)
		if old>>timeBits == tag {
			until = old & (1<<timeBits - 1)
		}
		until = max(until, now)
		if until+l.cost > now+l.depth {
			return false
		}
		if b.CompareAndSwap(old, tag<<timeBits|(until+l.cost)) {
			return true
		}
	}
}
