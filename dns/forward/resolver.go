package forward

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"waggle/dns/wire"
)

// Resolver answers questions from its cache or by asking upstreams. Its methods
// are safe for concurrent use.
type Resolver struct {
	log       *zap.Logger
	metrics   *metrics
	admission *admission
	self      [8]byte // to recognise our own questions
	listener  *listener
	now       atomic.Pointer[setup]

	ctx    context.Context // of Run; ends everything
	cancel context.CancelFunc

	changing sync.Mutex // guards the following; held while now is replaced
	leaving  map[Upstream]leaver
	made     uint16 // upstreams so far, modulo

	mu      sync.Mutex // guards the following
	flights map[flightKey]*flight
	stopped bool
	parts   sync.WaitGroup // what goes started
}

// New returns a Resolver. roots are the authorities that certificates of
// upstreams asked by TLS must come from; nil means the system's. reg may be
// nil. The caller runs Run, which lets go of everything.
func New(cfg Config, roots *x509.CertPool, log *zap.Logger, reg prometheus.Registerer) (*Resolver, error) {
	r := &Resolver{log: log, admission: newAdmission(), leaving: map[Upstream]leaver{}, flights: map[flightKey]*flight{}}
	r.listener = &listener{r: r, eager: cfg.Eager, sockets: map[int32]*socket{}}
	random(r.self[:])
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.metrics = newMetrics(reg, r)
	if err := r.Reconfigure(cfg, roots); err != nil {
		return nil, err
	}
	return r, nil
}

// config is what counts now.
func (r *Resolver) config() *Config { return &r.now.Load().cfg }

// Run keeps the Resolver going until ctx ends; then it answers what waits with
// SERVFAIL, closes all sockets and returns ctx's error. Before it, questions are
// answered all the same.
func (r *Resolver) Run(ctx context.Context) error {
	tick := time.NewTicker(r.config().AttemptTimeout / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.stop()
			return ctx.Err()
		case now := <-tick.C:
			r.sweep(now)
		}
	}
}

func (r *Resolver) stop() {
	r.mu.Lock()
	r.stopped = true
	flying := r.flights
	r.flights = map[flightKey]*flight{}
	r.mu.Unlock()
	r.cancel()
	for _, f := range flying {
		f.locked(nil, func() {
			if !f.done {
				f.keep = false
				f.giveUpLocked(time.Now(), errStopped)
			}
		})
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	s := r.now.Load()
	for _, u := range s.upstreams {
		u.close()
	}
	for _, u := range r.leaving {
		u.close()
	}
	r.listener.shut()
	r.parts.Wait()
	s.cache.close()
}

// goes runs do until the Resolver stops, and reports false if it has.
func (r *Resolver) goes(do func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	r.parts.Go(do)
	return true
}

// random fills p from the kernel's generator: ids and letter case must not be
// foreseen by who sees some of them.
func random(p []byte) { _, _ = rand.Read(p) } // which never fails

// Cached appends to dst the answer to packet, a query that the caller has
// checked, if it is remembered and fresh. It allocates nothing if dst is large
// enough, waits for nothing and asks nobody, unless an answer that is much asked
// for is about to expire.
func (r *Resolver) Cached(dst, packet []byte, tcp bool) ([]byte, bool) {
	q, err := parseQuery(packet)
	if err != nil {
		return dst, false
	}
	var room [maxKey]byte
	key := q.appendKey(room[:0])
	now, s := time.Now(), r.now.Load()
	e := s.cache.get(key, now)
	if e == nil || !e.fresh(now) {
		return dst, false
	}
	return r.hit(dst, s, &q, key, packet, e, tcp, now), true
}

// hit appends what is remembered and fresh, and has it asked for anew if that is
// worth it.
func (r *Resolver) hit(dst []byte, s *setup, q *question, key, packet []byte, e *entry, tcp bool, now time.Time) []byte {
	r.metrics.results.hit.inc()
	e.hits.Add(1)
	if e.popular(now) && e.refreshing.CompareAndSwap(false, true) {
		r.refresh(s, slices.Clone(key), slices.Clone(packet), e, now)
	}
	return e.appendAnswer(dst, q, now, q.limit(tcp, s.cfg.MaxUDP), s.cfg.MaxUDP, 0)
}

// refresh asks for what is remembered anew, before it expires.
func (r *Resolver) refresh(s *setup, key, packet []byte, e *entry, now time.Time) {
	q, err := parseQuery(packet)
	if err != nil {
		return
	}
	route := s.router.find(key[:len(q.name)])
	if route.group == nil {
		return
	}
	r.metrics.prefetched.Inc()
	if f, first := r.take(s, key, &q, route, e); first {
		f.locked(nil, func() { f.startLocked(now) })
	}
}

// Resolve answers packet, a query of client that the caller has checked. It
// calls reply exactly once: before it returns with what is remembered or
// refused, else later from another goroutine. Until then packet must stay as it
// is. reply may keep what it gets, and must not wait for anything.
//
// Questions over UDP are left in out, for the caller to send, or sent at once if
// that is nil. So may reply leave what it has to send in the Outbox it gets.
func (r *Resolver) Resolve(packet []byte, client netip.Addr, tcp bool, out *wire.Outbox, reply func(*wire.Outbox, []byte)) {
	q, err := parseQuery(packet)
	if err != nil {
		reply(out, unreadable(packet))
		return
	}
	w := waiter{q: q, client: party(client), tcp: tcp, reply: reply}
	if msg := r.ask(packet, w, out); msg != nil {
		reply(out, msg)
	}
}

// ask asks upstreams for w, or returns the answer that needs nobody asked.
func (r *Resolver) ask(packet []byte, w waiter, out *wire.Outbox) []byte {
	now, s := time.Now(), r.now.Load()
	q, maxUDP := &w.q, s.cfg.MaxUDP
	key := q.appendKey(make([]byte, 0, maxKey+1))
	name := key[:len(q.name)]
	to := s.router.find(name)
	switch {
	case to.local:
		r.metrics.results.local.inc()
		return appendNoSuchName(nil, q, to.apex, maxUDP)
	case to.group == nil, q.class != 1:
		r.metrics.results.refused.inc()
		return failure(q, rcodeRefused, edeNone, maxUDP)
	case r.loops(q, now):
		r.metrics.results.looped.inc()
		return failure(q, rcodeServFail, edeOther, maxUDP)
	}
	stale := s.cache.get(key, now)
	switch {
	case stale != nil && stale.fresh(now):
		return r.hit(nil, s, q, key, packet, stale, w.tcp, now)
	case stale != nil && stale.negative:
		stale = nil // RFC 8767 is about answers
	case stale != nil && now.UnixNano() < stale.retryAt.Load():
		r.metrics.results.stale.inc()
		return stale.appendAnswer(nil, q, now, q.limit(w.tcp, maxUDP), maxUDP, s.cfg.StaleTTL)
	}
	if !r.admission.enter(w.client, s.cfg.InFlight) {
		r.metrics.results.shed.inc()
		return failure(q, rcodeServFail, edeOther, maxUDP)
	}
	if !q.rd() {
		key = append(key, 0) // who wants no recursion gets an answer of its own
	}
	r.fly(s, key, w, to, stale, now, out)
	return nil
}

// fly lets w wait for its question, and asks it unless it is being asked.
func (r *Resolver) fly(s *setup, key []byte, w waiter, to route, stale *entry, now time.Time, out *wire.Outbox) {
	for {
		f, first := r.take(s, key, &w.q, to, stale)
		if first {
			r.metrics.results.miss.inc()
			f.locked(out, func() {
				f.waiters = append(f.room[:0], w)
				f.startLocked(now)
			})
			return
		}
		if f.join(w) {
			r.metrics.results.joined.inc()
			return
		}
		// It has just landed, and is about to leave the table.
	}
}

// take returns the flight of a question, and whether it is a new one that is the
// caller's to start.
func (r *Resolver) take(s *setup, key []byte, q *question, to route, stale *entry) (f *flight, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.flights[flightKey{s, string(key)}]; f != nil {
		return f, false
	}
	f = &flight{r: r, flightKey: flightKey{s, string(key)}, route: to, stale: stale, qtype: q.qtype, nameN: len(q.name), keep: q.rd()}
	f.query = append(append(make([]byte, 0, headerSize+len(q.raw)+11+4+len(q.trace)), 0, 0,
		byte(q.flags&flagRD>>8), byte(q.flags&flagCD), 0, 1, 0, 0, 0, 0, 0, 1), q.raw...)
	f.plain = len(f.query)
	f.query = appendOPT(f.query, s.cfg.MaxUDP, q.do, edeNone)
	f.query = appendTrace(f.query, f.plain, q.trace)
	r.flights[f.flightKey] = f
	return f, true
}

// land takes a flight out of the table.
func (r *Resolver) land(f *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flights[f.flightKey] == f {
		delete(r.flights, f.flightKey)
	}
}
