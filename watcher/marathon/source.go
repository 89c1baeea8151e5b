package marathon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"waggle/model"
	"waggle/watcher"
	"waggle/watcher/transport"
)

// Status is how the source stands.
type Status struct {
	Connected bool      // everything has been read and changes are told of
	Host      string    // the Marathon followed, or last followed; empty before
	LastEvent time.Time // zero before the first; heartbeats and answers count
	Err       error     // why it is not connected; nil while it is, and before the first try ended
}

// Source follows Marathon. Make it with New.
type Source struct {
	cfg     Config
	hosts   []*url.URL
	http    *transport.Client
	log     *zap.Logger
	metrics *metrics

	// Only Run's goroutine touches the following.
	world      *world // nil before everything was read
	last       *model.Snapshot
	emptySince time.Time // of answers that were not believed; else zero
	noPods     bool      // Marathon is older than 1.4
	publish    func(*model.Snapshot)

	mu     sync.Mutex // guards the following
	status Status
}

var _ watcher.Source = (*Source)(nil)

// New returns a Source, or an error that says which host cannot be one or what is
// wrong with how they are asked. reg may be nil.
func New(cfg Config, log *zap.Logger, reg prometheus.Registerer) (*Source, error) {
	asks, err := cfg.Asks()
	if err != nil {
		return nil, fmt.Errorf("marathon %w", err)
	}
	s := &Source{cfg: cfg, log: log}
	if s.http, err = transport.New(asks, log, reg); err != nil {
		return nil, fmt.Errorf("marathon %w", err)
	}
	for _, h := range asks.Hosts {
		s.hosts = append(s.hosts, h.URL)
	}
	if s.cfg.Resolve == nil {
		s.cfg.Resolve = watcher.SystemLookup
	}
	s.metrics = newMetrics(reg, func() time.Time { return s.Status().LastEvent })
	return s, nil
}

// Status returns how the source stands. It is safe for concurrent use.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *Source) setStatus(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

func (s *Source) heard() { s.setStatus(func(st *Status) { st.LastEvent = time.Now() }) }

// Run follows one Marathon after the other until ctx ends; see watcher.Source. It
// is for one call.
func (s *Source) Run(ctx context.Context, publish func(*model.Snapshot)) error {
	if len(s.hosts) == 0 {
		return errors.New("no Marathon to follow")
	}
	s.publish = publish
	backoff := s.cfg.MinBackoff
	for n := 0; ; n++ {
		host := s.hosts[n%len(s.hosts)]
		followed, err := s.follow(ctx, host)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.metrics.reconnects.Inc()
		s.metrics.connected.Set(0)
		s.log.Warn("not following a Marathon; what was served is served on", zap.String("asked", host.Host), zap.Error(err))
		s.setStatus(func(st *Status) { st.Connected, st.Err = false, fmt.Errorf("%s: %w", host.Host, err) })
		if followed {
			backoff = s.cfg.MinBackoff
		}
		if !followed && n%len(s.hosts) != len(s.hosts)-1 {
			continue // another may be better off
		}
		if err := watcher.Pause(ctx, backoff, nil); err != nil {
			return err
		}
		backoff = min(2*backoff, s.cfg.MaxBackoff)
	}
}

// follow subscribes to events, reads everything and then whatever events say has
// changed, until one of that fails. It reports whether everything was read.
func (s *Source) follow(ctx context.Context, host *url.URL) (followed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	c := &client{s.http, host}
	news := newNews()
	streams, err := s.listen(ctx, cancel, c, news, &wg)
	if err != nil {
		return false, err
	}
	if err := s.learn(ctx, c); err != nil {
		return false, err
	}
	if err := s.readAll(ctx, c); err != nil {
		return false, causeOf(ctx, err)
	}
	s.metrics.connected.Set(1)
	s.setStatus(func(st *Status) { *st = Status{Connected: true, Host: host.Host, LastEvent: time.Now()} })
	every := s.cfg.Resync
	if !streams {
		every = s.cfg.Poll
	}
	return true, causeOf(ctx, s.keepUp(ctx, c, news, every, &wg))
}

// causeOf returns why ctx ended where it has, else err.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

const lookupRetry = 30 * time.Second

// keepUp reads again what has changed, and everything now and then.
func (s *Source) keepUp(ctx context.Context, c *client, news *news, every time.Duration, wg *sync.WaitGroup) error {
	resync := time.NewTimer(watcher.Spread(every))
	defer resync.Stop()
	retry := time.NewTicker(lookupRetry)
	defer retry.Stop()
	found := s.lookUp(ctx, wg)
	for {
		start := time.Now()
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case addrs := <-found:
			if found = nil; s.world.resolved(addrs) {
				s.tell()
			}
		case <-retry.C:
			if found == nil {
				found = s.lookUp(ctx, wg)
			}
			continue
		case <-resync.C:
			resync.Reset(watcher.Spread(every))
			err = s.readAll(ctx, c)
		case <-news.more:
			if paths, all := news.take(); all || len(paths) > manyPaths {
				err = s.readAll(ctx, c)
			} else {
				err = s.readSome(ctx, c, paths)
			}
		}
		if err != nil {
			return err
		}
		if found == nil {
			found = s.lookUp(ctx, wg)
		}
		if err := rest(ctx, time.Since(start)); err != nil {
			return err
		}
	}
}

// manyPaths is from how many on everything is read rather than each by itself.
const manyPaths = 20

// rest waits as long as the last reading took: a storm of events must not keep
// Marathon busy with us alone. What comes meanwhile is read together.
func rest(ctx context.Context, took time.Duration) error {
	t := time.NewTimer(min(took, 5*time.Second))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// lookUp starts to look up the hosts that are still unknown, beside everything
// else; nil means that there are none.
func (s *Source) lookUp(ctx context.Context, wg *sync.WaitGroup) <-chan map[string]netip.Addr {
	hosts := s.world.due(time.Now())
	if len(hosts) == 0 {
		return nil
	}
	found := make(chan map[string]netip.Addr, 1)
	wg.Go(func() { found <- watcher.LookupAll(ctx, s.cfg.Resolve, hosts) })
	return found
}

// tell publishes what runs now, if that is not what ran before.
func (s *Source) tell() {
	snap := s.world.snapshot()
	if s.last != nil && same(s.last, snap) {
		return
	}
	s.last = snap
	s.metrics.published.Inc()
	s.metrics.apps.Set(float64(len(s.world.specs)))
	s.publish(snap)
}
