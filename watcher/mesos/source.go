package mesos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"waggle/model"
	"waggle/watcher"
	"waggle/watcher/transport"
	"waggle/watcher/zk"
)

// Config says which masters to follow and how patiently.
type Config struct {
	// Masters are asked in turn; any of them leads to the leader. Each is
	// host:port or http(s)://host:port.
	Masters []string
	// Election tells of masters besides, the leader first. Nil for none.
	Election Election
	// HTTPS is how masters that were elected are spoken to.
	HTTPS bool
	// TLS and Auth are how masters are told from others, and we from others. What
	// is secret of it goes to masters that are configured or elected, and to no
	// other that one of them names.
	TLS  transport.TLS
	Auth transport.Auth
	// Resolve looks up the host names of masters, agents and frameworks. It
	// must not ask this daemon, which may be the node's resolver. Nil means
	// net.DefaultResolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	DialTimeout time.Duration // for a connection and for its TLS handshake
	// FirstByte is how long a master may compute its first answer: it blocks
	// while it snapshots a large cluster.
	FirstByte time.Duration
	// MinBackoff and MaxBackoff bound the wait before the masters are asked
	// again, which doubles with every round in vain and is spread at random
	// over half its length, lest all nodes come at once.
	MinBackoff, MaxBackoff time.Duration
	// MaxDelay bounds how long a change waits while further events are already
	// read: it only matters in a storm. A single change waits for nothing.
	MaxDelay time.Duration
	// ResyncAfter is the least age of a stream that is given up because it
	// turned out to have a hole: an update for an unknown task, say.
	ResyncAfter time.Duration
	// Poll says when the state is asked for in place of the event stream, and
	// PollInterval how often, spread at random between two thirds and four thirds
	// of it: each time costs the master about as much as a new stream.
	Poll         Poll
	PollInterval time.Duration
	// AgentsEvery is after how long at most, and half of that at least, the agents
	// are asked for anew beside the stream.
	AgentsEvery time.Duration
	// ReregisterTimeout is how long agents may take to register with a new
	// master, where it does not say: their tasks are served meanwhile.
	ReregisterTimeout time.Duration
	// EmptyHold is how long a master must show no agents at all, where some were
	// known, before that is believed.
	EmptyHold time.Duration
	// MaxPicture and MaxEvent bound the first record of a stream and each
	// later one, in bytes. Neither is memory: a picture is taken piece by piece.
	MaxPicture, MaxEvent int64
}

// DefaultConfig follows no master with a back-off of 2 s to 30 s.
func DefaultConfig() Config {
	return Config{
		DialTimeout: 5 * time.Second,
		FirstByte:   2 * time.Minute,
		MinBackoff:  2 * time.Second,
		MaxBackoff:  30 * time.Second,
		MaxDelay:    5 * time.Millisecond,
		ResyncAfter: time.Minute,
		MaxPicture:  2 << 30,
		MaxEvent:    64 << 20,

		Poll:              PollRefused,
		PollInterval:      30 * time.Second,
		AgentsEvery:       10 * time.Minute,
		ReregisterTimeout: 10 * time.Minute,
		EmptyHold:         10 * time.Minute,
	}
}

// urls returns the configured masters, and what is wrong with the others.
func (c Config) urls() (good []*url.URL, err error) {
	for _, m := range c.Masters {
		u, wrong := masterURL(m)
		if wrong != nil {
			err = errors.Join(err, wrong)
			continue
		}
		good = append(good, u)
	}
	return good, err
}

// Check returns what is wrong with the masters.
func (c Config) Check() error {
	_, err := c.urls()
	return err
}

// Addrs returns the configured masters that are given by address, in their
// order.
func (c Config) Addrs() []netip.AddrPort {
	var out []netip.AddrPort
	urls, _ := c.urls()
	for _, u := range urls {
		if a, err := netip.ParseAddrPort(u.Host); err == nil {
			out = append(out, a)
		}
	}
	return slices.Clip(out)
}

// Transport returns how masters are spoken to.
func (c Config) Transport() transport.Config {
	t := transport.Config{
		Name: "mesos", Resolve: c.Resolve, DialTimeout: c.DialTimeout, FirstByte: c.FirstByte, TLS: c.TLS, Auth: c.Auth,
	}
	urls, _ := c.urls()
	for _, u := range urls {
		t.Hosts = append(t.Hosts, transport.Host{URL: u})
	}
	return t
}

// Status is how the source stands.
type Status struct {
	Connected bool      // a stream has delivered its first picture and is alive
	Leader    string    // the master followed, or last followed; empty before
	LastEvent time.Time // zero before the first; heartbeats count
	Err       error     // why it is not connected; nil while it is, and before the first try ended
}

// Source follows the leading master. Make it with New.
type Source struct {
	cfg     Config
	masters *masters
	client  client
	log     *zap.Logger
	metrics *metrics

	lookup chan struct{} // one slot: there are names to look up

	turn       sync.Mutex      // guards the following, and one publish at a time
	world      *world          // nil before the first complete picture
	last       *model.Snapshot // empty before
	emptySince time.Time       // of pictures that were not believed; else zero
	publish    func(*model.Snapshot)

	mu     sync.Mutex // guards the following
	status Status
}

// errNoMaster is why nothing is followed before the first election was seen.
var errNoMaster = errors.New("no master is known yet")

var _ watcher.Source = (*Source)(nil)

// New returns a Source, or an error that names the master that cannot be one.
// reg may be nil.
func New(cfg Config, log *zap.Logger, reg prometheus.Registerer) (*Source, error) {
	if cfg.Resolve == nil {
		cfg.Resolve = watcher.SystemLookup
	}
	s := &Source{cfg: cfg, log: log, lookup: make(chan struct{}, 1), last: &model.Snapshot{}}
	configured, err := cfg.urls()
	if err != nil {
		return nil, err
	}
	scheme := "http"
	if cfg.HTTPS {
		scheme = "https"
	}
	s.masters = newMasters(scheme, configured, cfg.Addrs())
	if s.client.Client, err = transport.New(cfg.Transport(), log, reg); err != nil {
		return nil, err
	}
	if !slices.Contains(Polls(), string(cfg.Poll)) {
		return nil, fmt.Errorf("poll %q is none of %v", cfg.Poll, Polls())
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

// Masters returns the masters that are known by address now, the leader first if
// an election told. It is safe for concurrent use.
func (s *Source) Masters() []netip.AddrPort { return s.masters.addrs() }

func (s *Source) setStatus(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// Restore makes snap, which a Source before this one published, the last
// Snapshot: what a new master may not have heard of yet is held then as if this
// one had published it. What is of no agent of ours in it counts for nothing. It
// must be called before Run.
func (s *Source) Restore(snap *model.Snapshot) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.last = snap
}

// Run follows the masters until ctx ends; see watcher.Source. It is for one
// call.
func (s *Source) Run(ctx context.Context, publish func(*model.Snapshot)) error {
	if len(s.cfg.Masters) == 0 && s.cfg.Election == nil {
		return errors.New("no Mesos master to follow")
	}
	s.publish = publish
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.follow(ctx) })
	g.Go(func() error { return s.resolveNames(ctx) })
	if s.cfg.Election != nil {
		g.Go(func() error { return s.cfg.Election.Run(ctx, s.elected) })
	}
	return g.Wait()
}

// elected takes the outcome of an election.
func (s *Source) elected(members []zk.Member) {
	s.client.Trust(s.masters.hosts(members)...) // before they are asked
	s.masters.elect(members)
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.world != nil {
		s.publishLocked(s.last.Leader) // with the masters as they are now
	}
}

// follow goes from stream to stream.
func (s *Source) follow(ctx context.Context) error {
	s.setStatus(func(st *Status) {
		if len(s.masters.urls()) == 0 {
			st.Err = errNoMaster
		}
	})
	select {
	case <-s.masters.known:
	case <-ctx.Done():
		return ctx.Err()
	}
	next, backoff := 0, s.cfg.MinBackoff
	for {
		news := s.masters.changed()
		if followed := s.round(ctx, &next); followed {
			backoff = s.cfg.MinBackoff
		}
		if err := watcher.Pause(ctx, backoff, news); err != nil {
			return err
		}
		backoff = min(2*backoff, s.cfg.MaxBackoff)
		select {
		case <-news: // ask the new leader first, and soon, but not all nodes at once
			next, backoff = 0, s.cfg.MinBackoff
			if err := watcher.Pause(ctx, backoff, nil); err != nil {
				return err
			}
		default:
		}
	}
}

// round asks each master once, from *next on, until one led to a stream that
// delivered a picture. It returns when that ended: its master is likely to know
// who leads now, and is asked first next time, unless it was silent. An election
// ends the round.
func (s *Source) round(ctx context.Context, next *int) (followed bool) {
	news := s.masters.changed()
	urls := s.masters.urls()
	for range urls {
		master := urls[*next%len(urls)]
		followed, err := s.once(ctx, master)
		if ctx.Err() != nil {
			return followed
		}
		s.metrics.reconnects.Inc()
		s.metrics.connected.Set(0)
		s.log.Warn("not following a master; what was served is served on",
			zap.String("asked", master.Host), zap.Error(err))
		s.setStatus(func(st *Status) { st.Connected, st.Err = false, err })
		if !followed || errors.Is(err, errSilent) {
			*next++
		}
		select {
		case <-news:
			return followed
		default:
		}
		if followed {
			return true
		}
	}
	return false
}

// publishLocked publishes what runs now; turn is held.
func (s *Source) publishLocked(leader netip.AddrPort) {
	snap := s.world.snapshot()
	snap.Leader = leader
	snap.Masters = s.masters.addrs()
	s.last = snap
	s.metrics.tasks.Set(float64(s.world.tasks.len()))
	s.metrics.agents.Set(float64(snap.Agents.Len()))
	s.metrics.frameworks.Set(float64(snap.Frameworks.Len()))
	s.metrics.heldAgents.Set(float64(snap.Held.Len()))
	s.metrics.heldTasks.Set(float64(s.world.heldTasks()))
	s.metrics.problems.Set(float64(len(snap.Problems) + s.world.trouble))
	s.metrics.published.Inc()
	if len(s.world.unresolved) > 0 {
		select {
		case s.lookup <- struct{}{}:
		default:
		}
	}
	s.publish(snap)
}
