package forward

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// The health of an upstream changes by these rules.
const (
	// failsToOpen is how many silences in a row make an upstream left alone.
	failsToOpen = 3
	// sampleAge is how old a measured latency may become before the upstream is
	// asked beside a better one to have it measured again.
	sampleAge = time.Minute
	// loopRest is how long an upstream that asks us back is left alone.
	loopRest = time.Minute
	// most is how many upstreams are asked at the same time when none is known
	// to be well.
	most = 3
)

var errTimeout = errors.New("no answer in time")

// upstream is one server with what is known of it. It is safe for concurrent
// use.
type upstream struct {
	Upstream
	index  uint16 // tells it from others, to recognise our own questions
	config func() *Config
	udp    *pool // nil for a server asked by TLS
	stream *stream
	near   bool // on this machine or a private network, so loops may go through it
	counts counts

	mu        sync.Mutex // guards the following
	srtt, dev time.Duration
	sampled   time.Time // zero while the latency is not known
	suspect   bool      // it let us wait since it last answered
	fails     int       // silences in a row
	backoff   time.Duration
	openUntil time.Time // left alone until then; zero while it is not
	trial     bool      // it was asked although left alone
	folds     bool      // it does not keep the letter case of questions
	plainTo   time.Time // it refuses EDNS, until then
	lastErr   error
}

// sweep fails what has waited for too long.
func (u *upstream) sweep(now time.Time) {
	if u.udp != nil {
		u.udp.sweep(now)
	}
	u.stream.sweep(now)
}

// close ends its sockets; a connection ends by itself.
func (u *upstream) close() {
	if u.udp != nil {
		u.udp.close()
	}
}

// standing is how an upstream counts when it is decided whom to ask.
type standing int

const (
	well   standing = iota // answers
	unsure                 // unknown, suspect or due for a trial
	broken                 // left alone
)

func (u *upstream) standing(now time.Time) (standing, time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case now.Before(u.openUntil):
		return broken, u.srtt
	case !u.openUntil.IsZero(), u.suspect, now.Sub(u.sampled) > sampleAge:
		return unsure, u.srtt
	}
	return well, u.srtt
}

// ok notes an answer after rtt.
func (u *upstream) ok(now time.Time, rtt time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sampled.IsZero() {
		u.srtt, u.dev = rtt, rtt/2
	} else { // RFC 6298 section 2
		u.dev += (abs(u.srtt-rtt) - u.dev) / 4
		u.srtt += (rtt - u.srtt) / 8
	}
	u.sampled, u.suspect, u.fails, u.backoff = now, false, 0, 0
	if errors.Is(u.lastErr, errLoop) && now.Before(u.openUntil) {
		return // it answers, but only with what it asks us
	}
	u.openUntil, u.trial, u.lastErr = time.Time{}, false, nil
}

func abs(d time.Duration) time.Duration { return max(d, -d) }

// doubt notes that an answer is late: until it comes, others are asked too.
func (u *upstream) doubt() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.suspect = true
}

// fail notes a silence or an error of the transport.
func (u *upstream) fail(now time.Time, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.suspect, u.lastErr = true, err
	if now.Before(u.openUntil) && !u.trial {
		return // what was asked before it was left alone
	}
	u.trial = false
	if u.fails++; u.fails >= failsToOpen {
		u.backoff = min(max(time.Second, 2*u.backoff), u.config().MaxBackoff)
		u.openUntil = now.Add(u.backoff/2 + rand.N(u.backoff/2+1))
	}
}

// rest leaves the upstream alone for d.
func (u *upstream) rest(now time.Time, d time.Duration, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lastErr, u.openUntil = err, now.Add(d)
}

// try makes the trial of an upstream whose rest is over the caller's: others
// leave it alone until the trial has had its time.
func (u *upstream) try(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.openUntil.IsZero() {
		u.openUntil, u.trial = now.Add(max(u.config().AttemptTimeout, u.backoff)), true
	}
}

// patience is how long the upstream is waited for before another is asked.
func (u *upstream) patience() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sampled.IsZero() {
		return u.config().MaxHedge
	}
	return min(max(2*u.srtt+4*u.dev, u.config().MinHedge), u.config().MaxHedge)
}

func (u *upstream) noteFolding() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.folds = true
}

func (u *upstream) notePlain(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.plainTo = now.Add(10 * time.Minute)
}

// dialect returns how the upstream wants to be asked.
func (u *upstream) dialect(now time.Time) (folds, plain bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.folds, now.Before(u.plainTo)
}

// group is the upstreams of one zone.
type group struct {
	upstreams []*upstream
}

// order returns all upstreams, the best first, and how many of them to ask at
// once: one that is well, and beside it one that is unsure, whose answer then
// costs nobody any time. Where none is well several are asked.
func (g *group) order(now time.Time) (list []*upstream, atOnce int) {
	type ranked struct {
		u        *upstream
		standing standing
		srtt     time.Duration
	}
	if len(g.upstreams) == 1 {
		return g.upstreams, 1
	}
	all := make([]ranked, len(g.upstreams))
	var n [3]int
	for i, u := range g.upstreams {
		s, srtt := u.standing(now)
		all[i] = ranked{u, s, srtt}
		n[s]++
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.standing, b.standing), cmp.Compare(a.srtt, b.srtt))
	})
	for _, r := range all {
		list = append(list, r.u)
	}
	switch {
	case n[well] > 0 && n[unsure] > 0:
		trial := list[n[well]]
		list = slices.Insert(slices.Delete(list, n[well], n[well]+1), 1, trial)
		atOnce = 2
	case n[well] > 0:
		atOnce = 1
	case n[unsure] > 0:
		atOnce = min(n[unsure], most)
	default:
		atOnce = min(len(list), most)
	}
	return list, atOnce
}

// down reports whether no upstream of the group is worth waiting for.
func (g *group) down(now time.Time) bool {
	return !slices.ContainsFunc(g.upstreams, func(u *upstream) bool {
		s, _ := u.standing(now)
		return s != broken
	})
}
