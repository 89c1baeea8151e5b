package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"

	"waggle/dns/wire"
)

// flightKey tells questions on their way apart: who asks after the configuration
// has changed does not wait for servers that have left.
type flightKey struct {
	setup *setup
	key   string // of the cache, and whether recursion is wanted
}

// flight is one question on its way to upstreams, for everybody who asks it
// meanwhile.
type flight struct {
	r *Resolver
	flightKey
	route route
	query []byte // as it is sent but for id and letter case, with an OPT record
	plain int    // where the OPT record starts
	qtype uint16
	nameN int  // octets of the name
	keep  bool // the answer may be remembered

	mu       sync.Mutex // guards the following
	waiters  []waiter
	room     [1]waiter // for the one that most flights have
	stale    *entry    // what to serve if there is no answer
	order    []*upstream
	asked    int // times somebody was asked
	open     int // that may still answer
	worst    *entry
	cause    error // why the last attempt failed
	hedgeAt  time.Time
	staleAt  time.Time // zero when there is none to wait for
	deadline time.Time
	timer    *time.Timer
	done     bool
	mail     *wire.Outbox // for what is sent, while mu is held by locked
	out      []delivery   // to be made when mu is free again
	outRoom  [1]delivery
}

// delivery is an answer to one who waited.
type delivery struct {
	reply func(*wire.Outbox, []byte)
	msg   []byte
}

// waiter is one who asked.
type waiter struct {
	q      question
	client netip.Addr
	tcp    bool
	reply  func(*wire.Outbox, []byte)
}

// attempt is one question sent to one upstream.
type attempt struct {
	flight   *flight
	up       *upstream
	socket   *socket // that it was asked by, nil for a stream
	id       uint16
	question []byte // as sent
	sent     time.Time
	plain    bool // without EDNS
	tcp      bool

	rechecked bool // guarded by the flight's mu
}

// rounds is how often each upstream is asked at most: UDP loses messages.
const rounds = 3

// locked runs do with mu held, then makes the deliveries that came of it: what a
// client's socket does must hold up nobody. What is to be sent is left in mail, or
// sent then if that is nil.
func (f *flight) locked(mail *wire.Outbox, do func()) {
	if mail == nil {
		mail = &wire.Outbox{}
		defer mail.Send()
	}
	f.mu.Lock()
	f.mail = mail
	do()
	out := f.out
	f.out, f.mail = nil, nil
	var room [1]delivery
	if len(out) == 1 {
		room = [1]delivery(out)
		out = room[:]
	}
	f.mu.Unlock()
	for _, d := range out {
		d.reply(mail, d.msg)
	}
}

// startLocked asks the first upstreams. The flight is in the resolver's table.
func (f *flight) startLocked(now time.Time) {
	var atOnce int
	f.order, atOnce = f.route.group.order(now)
	f.deadline = now.Add(f.setup.cfg.Timeout)
	if f.stale != nil {
		f.staleAt = now.Add(f.setup.cfg.StaleAfter)
		if f.route.group.down(now) {
			f.staleAt = now
		}
	}
	for range atOnce {
		f.askLocked(now)
	}
	if f.done {
		return
	}
	f.timer = time.AfterFunc(f.waitLocked(now), func() { f.locked(nil, f.tickLocked) })
}

// waitLocked is how long until something is to be done.
func (f *flight) waitLocked(now time.Time) time.Duration {
	next := f.deadline
	if f.hedgeAt.Before(next) && f.asked < rounds*len(f.order) {
		next = f.hedgeAt
	}
	if !f.staleAt.IsZero() && f.staleAt.Before(next) {
		next = f.staleAt
	}
	return max(0, next.Sub(now))
}

// tickLocked does what its time has come for.
func (f *flight) tickLocked() {
	now := time.Now()
	if f.done {
		return
	}
	if !f.staleAt.IsZero() && !now.Before(f.staleAt) {
		f.staleAt = time.Time{}
		f.serveStaleLocked(now)
	}
	switch {
	case !now.Before(f.deadline):
		f.giveUpLocked(now, context.DeadlineExceeded)
		return
	case !now.Before(f.hedgeAt) && f.asked < rounds*len(f.order):
		for _, late := range f.order[:min(f.asked, len(f.order))] {
			late.doubt()
		}
		f.askLocked(now)
	}
	if !f.done {
		f.timer.Reset(f.waitLocked(now))
	}
}

// askLocked asks the next upstream; the one after it, if that fails at once.
func (f *flight) askLocked(now time.Time) {
	for f.asked < rounds*len(f.order) && !f.done {
		u := f.order[f.asked%len(f.order)]
		wait := u.patience() << (f.asked / len(f.order))
		f.asked++
		u.try(now)
		err := f.sendLocked(u, now, u.udp == nil, false)
		if err == nil {
			f.hedgeAt = now.Add(wait)
			return
		}
		u.fail(now, err)
		f.cause = err
	}
	if f.open == 0 && !f.done {
		f.giveUpLocked(now, f.cause)
	}
}

func (f *flight) sendLocked(u *upstream, now time.Time, tcp, plain bool) error {
	folds, refusesEDNS := u.dialect(now)
	plain = plain || refusesEDNS
	var dice [16]byte
	random(dice[:])
	a := &attempt{flight: f, up: u, id: binary.BigEndian.Uint16(dice[:]), sent: now, plain: plain, tcp: tcp}
	msg := append(make([]byte, 0, len(f.query)+4+hop), f.query...)
	if plain {
		msg = msg[:f.plain]
		msg[11] = 0
	} else if u.near {
		msg = f.r.trace(msg, f.plain, u)
	}
	binary.BigEndian.PutUint16(msg, a.id)
	a.question = msg[headerSize:f.plain:f.plain]
	if !folds && !tcp {
		mixCase(a.question[:f.nameN], dice[2:])
	}
	f.open++
	u.counts.asked(tcp)
	var err error
	if tcp {
		err = u.stream.send(a, msg)
	} else {
		err = u.udp.send(f.mail, a, msg)
	}
	if err != nil {
		f.open--
	}
	return err
}

// mixCase gives letters of a wire name a random case, which an answer must
// repeat: with ports and ids, one more thing that who forges one must guess.
func mixCase(name, dice []byte) {
	bit := 0
	for i, c := range name {
		if c |= 0x20; c < 'a' || c > 'z' {
			continue
		}
		if dice[bit/8]>>(bit%8)&1 != 0 {
			name[i] ^= 0x20
		}
		if bit++; bit == 8*len(dice) {
			return
		}
	}
}

// answered takes the answer of an upstream, whose question is right.
func (a *attempt) answered(now time.Time, msg []byte, out *wire.Outbox) {
	f := a.flight
	body := headerSize + len(a.question)
	if binary.BigEndian.Uint16(msg[4:]) == 0 {
		body = headerSize
	}
	r, ok := parseReply(msg, body, f.qtype, &f.setup.cfg)
	if !ok {
		f.r.metrics.malformed.Inc()
		a.failed(now, errMalformed, out)
		return
	}
	rtt := now.Sub(a.sent)
	a.up.ok(now, rtt)
	a.up.counts.rtt.Observe(rtt.Seconds())
	f.locked(out, func() {
		f.open--
		if !f.done {
			f.takeLocked(now, a, r)
		}
	})
}

func (f *flight) takeLocked(now time.Time, a *attempt, r reply) {
	switch {
	case r.tc && !a.tcp:
		f.r.metrics.truncated.Inc()
		if f.sendLocked(a.up, now, true, a.plain) == nil {
			return
		}
	case r.rcode == rcodeSuccess || r.rcode == rcodeNXDomain:
		f.finishLocked(now, r.entry)
		return
	case !a.plain && (r.rcode == rcodeFormErr || r.rcode == rcodeNotImp || r.rcode == rcodeBadVers):
		a.up.notePlain(now)
		if f.sendLocked(a.up, now, a.tcp, true) == nil {
			return
		}
	}
	// An error is an answer too, if nobody has a better one.
	if f.worst == nil && !r.tc {
		f.worst = r.entry
	}
	if f.asked >= len(f.order) {
		if f.open == 0 {
			f.giveUpLocked(now, nil)
		}
		return
	}
	f.askLocked(now)
}

// failed notes that an attempt has come to nothing.
func (a *attempt) failed(now time.Time, err error, out *wire.Outbox) {
	a.up.fail(now, err)
	f := a.flight
	a.up.counts.failures.inc()
	f.locked(out, func() {
		f.open--
		if f.done {
			return
		}
		f.cause = err
		if errors.Is(err, errTimeout) {
			return // the hedge asks others long before
		}
		f.askLocked(now)
		if !f.done && f.timer != nil {
			f.timer.Reset(f.waitLocked(now))
		}
	})
}

// recheck asks again over TCP, where nobody can guess, without giving up on an
// answer over UDP.
func (a *attempt) recheck(out *wire.Outbox) {
	f := a.flight
	f.locked(out, func() {
		if !f.done && !a.rechecked {
			a.rechecked = true
			// Where this fails the answer over UDP is still waited for.
			_ = f.sendLocked(a.up, time.Now(), true, a.plain)
		}
	})
}

// join adds one who asks the same, and reports false if it is too late.
func (f *flight) join(w waiter) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return false
	}
	f.waiters = append(f.waiters, w)
	return true
}

// serveStaleLocked answers who waits from what has expired. The flight goes on
// for who comes next.
func (f *flight) serveStaleLocked(now time.Time) {
	f.r.metrics.results.stale.Add(uint64(len(f.waiters)))
	f.answerLocked(now, f.stale, f.setup.cfg.StaleTTL)
}

func (f *flight) answerLocked(now time.Time, e *entry, stale time.Duration) {
	cfg := &f.setup.cfg
	if f.out == nil {
		f.out = f.outRoom[:0]
	}
	for _, w := range f.waiters {
		f.r.admission.leave(w.client)
		f.out = append(f.out, delivery{w.reply, e.appendAnswer(nil, &w.q, now, w.q.limit(w.tcp, cfg.MaxUDP), cfg.MaxUDP, stale)})
	}
	f.waiters = nil
}

// finishLocked ends the flight with an answer.
func (f *flight) finishLocked(now time.Time, e *entry) {
	e.stored = now
	if f.keep && e.ttl > 0 {
		f.setup.cache.put(f.key, e, false)
	}
	f.answerLocked(now, e, 0)
	f.endLocked()
}

// giveUpLocked ends the flight without an answer: with a stale one, with the
// error an upstream gave, or with one of our own. It is remembered, so that
// upstreams in trouble are not asked for each client anew.
func (f *flight) giveUpLocked(now time.Time, cause error) {
	cfg := &f.setup.cfg
	if f.stale != nil {
		f.stale.retryAt.Store(now.Add(cfg.FailureTTL).UnixNano())
		f.serveStaleLocked(now)
		f.endLocked()
		return
	}
	e := f.worst
	if e == nil {
		e = &entry{flags: rcodeServFail, ede: edeNoReachable, negative: true}
		if cause != nil && !errors.Is(cause, errTimeout) && !errors.Is(cause, context.DeadlineExceeded) {
			e.ede = edeNetworkError
		}
	}
	e.stored, e.ttl, e.negative, e.keep = now, cfg.FailureTTL, true, 0
	if f.keep && e.ttl > 0 {
		f.setup.cache.put(f.key, e, true)
	}
	f.r.metrics.results.failed.Add(uint64(len(f.waiters)))
	f.answerLocked(now, e, 0)
	f.endLocked()
}

func (f *flight) endLocked() {
	f.done = true
	if f.timer != nil {
		f.timer.Stop()
	}
	if f.stale != nil {
		f.stale.refreshing.Store(false)
	}
	f.r.land(f)
}
