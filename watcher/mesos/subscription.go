package mesos

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// missedHeartbeats is how many heartbeats may be missing before a stream counts
// as dead.
const missedHeartbeats = 3

// errResync ends a stream whose picture is known to be incomplete.
var errResync = errors.New("picture has a hole, subscribing anew")

// errDeposed ends a stream whose master does not lead any more.
var errDeposed = errors.New("another master was elected")

// errSilent ends a stream on which not even heartbeats come.
var errSilent = errors.New("silent for too long")

// subscription is one event stream while it lasts.
type subscription struct {
	source   *Source
	leader   netip.AddrPort
	started  time.Time
	watchdog *time.Timer
	patience time.Duration // what the watchdog is set to
	sweeper  *time.Timer   // to drop what no event takes away
	pictured func()        // called when there is a picture

	handler *handler
	scanner *scanner
	plan    map[string]visit
	event   bytes.Buffer

	kind     string    // type of the record being read
	world    *world    // the one being filled, the source's once complete
	complete bool      // world is that of a complete picture
	broken   error     // why the picture being read cannot be trusted
	resync   bool      // the picture has a hole
	over     bool      // the stream has ended
	since    time.Time // of the first change not published yet; zero when none
}

// stream follows one event stream to its end. followed says that it delivered a
// complete picture.
func (s *Source) stream(ctx context.Context, master *url.URL) (followed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var g sync.WaitGroup
	defer g.Wait()
	defer cancel(nil)
	var from atomic.Pointer[answer] // nil while asking
	news := s.masters.changed()
	g.Go(func() { s.watchElection(ctx, news, master, &from, cancel) })

	a, err := s.client.subscribe(ctx, master)
	if err != nil {
		return false, cmp.Or(context.Cause(ctx), err)
	}
	from.Store(a)
	defer a.body.Close()
	st := newSubscription(s, a)
	st.watchdog = time.AfterFunc(st.patience, func() {
		cancel(errSilent)
	})
	defer st.watchdog.Stop()
	defer st.end()
	st.pictured = func() {
		g.Go(func() { s.refreshAgents(ctx, a.at, st.world) })
		if len(st.world.holds) > 0 {
			g.Go(func() { s.learnPatience(ctx, a.at, st.world) })
		}
	}
	err = st.run(a.body)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return st.complete, fmt.Errorf("stream of %s: %w", a.peer, err)
}

func newSubscription(s *Source, a *answer) *subscription {
	st := &subscription{source: s, leader: a.peer, started: time.Now(), patience: s.cfg.FirstByte, scanner: newScanner()}
	st.handler = st.newHandler()
	st.plan = st.handler.plan()
	st.sweeper = time.AfterFunc(time.Hour, func() { st.flush(false) })
	st.sweeper.Stop() // until there is something to sweep
	return st
}

// end has nothing more published. The last Snapshot stands as it is, whatever
// waits in it for a time to come.
func (st *subscription) end() {
	st.sweeper.Stop()
	st.source.turn.Lock()
	defer st.source.turn.Unlock()
	st.over = true
}

// watchElection ends the stream, or the asking for one, once another leads than
// the master it is from.
func (s *Source) watchElection(ctx context.Context, news <-chan struct{}, asked *url.URL, from *atomic.Pointer[answer], end func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
		}
		news = s.masters.changed()
		host, peer := asked.Host, netip.AddrPort{}
		if a := from.Load(); a != nil {
			host, peer = a.at.Host, a.peer
		}
		if !s.masters.leads(host, peer) {
			end(errDeposed)
		}
	}
}

// lively resets the watchdog whenever bytes arrive: a large picture on a slow
// line is not silence.
type lively struct {
	io.Reader
	st *subscription
}

// Read reads and, if anything came, starts the watchdog's patience anew.
func (l lively) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if n > 0 {
		l.st.watchdog.Reset(l.st.patience)
	}
	return n, err
}

// run reads records until the stream ends.
func (st *subscription) run(body io.Reader) error {
	cfg := st.source.cfg
	r := newRecordReader(lively{body, st})
	limit := cfg.MaxPicture
	for {
		n, err := r.next(limit)
		if err != nil {
			return noEOF(err)
		}
		st.source.metrics.bytes.Add(float64(n))
		st.kind = ""
		if st.complete {
			err = st.takeEvent(r)
		} else {
			err = st.takePicture(r)
		}
		if err != nil {
			return err
		}
		st.watchdog.Reset(st.patience) // which the record may have changed
		st.source.setStatus(func(s *Status) { s.LastEvent = time.Now() })
		if st.complete {
			limit = cfg.MaxEvent
		}
		st.flush(r.ready())
		// Counted last, so that who sees the count sees the effect.
		st.source.metrics.events.WithLabelValues(eventType(st.kind)).Inc()
		if st.resync && time.Since(st.started) > cfg.ResyncAfter {
			return errResync
		}
	}
}

// takePicture reads the record that should be the first picture, into a world
// that nobody else sees until it is complete. A heartbeat may come before it
// (Mesos 1.5.0).
func (st *subscription) takePicture(r *recordReader) error {
	defer frugally(st.source.Status().Leader != "")()
	st.scanner.reset(r)
	err := errors.Join(st.handler.read(st.scanner, st.plan), st.broken)
	if err == nil && st.world == nil && st.kind == "SUBSCRIBED" {
		err = errors.New("SUBSCRIBED without get_state")
	}
	if err != nil {
		return fmt.Errorf("read first picture: %w", err)
	}
	if st.world == nil {
		return nil
	}
	s := st.source
	s.turn.Lock()
	defer s.turn.Unlock()
	if err := s.believeLocked(st.world, st.leader); err != nil {
		return err
	}
	st.complete = true
	s.log.Info("following master", zap.Stringer("leader", st.leader),
		zap.Int("tasks", st.world.tasks.len()), zap.Int("agents awaited", len(st.world.holds)))
	st.pictured()
	return nil
}

// takeEvent takes a later record, read whole before the world is locked. One
// that is not JSON costs only itself, and a resync.
func (st *subscription) takeEvent(r *recordReader) error {
	st.event.Reset()
	if _, err := st.event.ReadFrom(r); err != nil {
		return err
	}
	st.source.turn.Lock()
	defer st.source.turn.Unlock()
	st.scanner.reset(&st.event)
	if err := st.handler.read(st.scanner, st.plan); err != nil {
		st.handler.wrong(&fieldError{fmt.Sprintf("record %d", r.n), "", err})
		st.resync = true
	}
	return nil
}

// flush publishes what changed unless more is already here to be read, and
// then only for so long.
func (st *subscription) flush(more bool) {
	s := st.source
	s.turn.Lock()
	defer s.turn.Unlock()
	if !st.complete || st.over {
		return
	}
	st.world.sweep()
	if due := st.world.due; !due.IsZero() {
		st.sweeper.Reset(time.Until(due))
	}
	if !st.world.publishable() {
		return
	}
	now := time.Now()
	if st.since.IsZero() {
		st.since = now
	}
	if more && now.Sub(st.since) < s.cfg.MaxDelay {
		return
	}
	st.since = time.Time{}
	s.publishLocked(st.leader)
}

// newHandler connects what a record holds to the world.
func (st *subscription) newHandler() *handler {
	h := handlerInto(&st.world, func(error) {
		st.source.metrics.unknown.Inc()
		st.resync = true
	})
	h.kind = func(kind string) { st.kind = kind }
	h.picture, h.lost = st.begin, st.lost
	h.interval = func(seconds float64) {
		if d := time.Duration(seconds * float64(time.Second)); d >= time.Millisecond {
			st.patience = missedHeartbeats * d
		}
	}
	return h
}

// begin makes an empty world for a picture. A stream has only one picture: in a
// later record it would be taken for a broken event.
func (st *subscription) begin() {
	if st.complete {
		st.resync = true
		return
	}
	st.source.turn.Lock()
	defer st.source.turn.Unlock()
	st.world = newWorld(st.source.last)
}

// lost notes that a whole list is missing. A picture without it would empty the
// world, and is not believed.
func (st *subscription) lost(err error) {
	st.handler.wrong(err)
	st.resync = true
	if !st.complete && st.broken == nil {
		st.broken = err
	}
}

// eventType bounds the label of a metric to the types there are.
func eventType(kind string) string {
	switch kind {
	case "SUBSCRIBED", "HEARTBEAT", "TASK_ADDED", "TASK_UPDATED", "AGENT_ADDED", "AGENT_REMOVED",
		"FRAMEWORK_ADDED", "FRAMEWORK_UPDATED", "FRAMEWORK_REMOVED":
		return kind
	}
	return "other"
}
