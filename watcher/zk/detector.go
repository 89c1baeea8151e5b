package zk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	gozk "github.com/go-zookeeper/zk"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Config says which election to follow and how patiently.
type Config struct {
	Location Location
	// Resolve looks up the servers' host names at each connection. It must not
	// ask this daemon, which may be the node's resolver. It is not asked about
	// addresses.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// SessionTimeout is after how long a silent server is given up (at two
	// thirds of it), and how long a dead candidate's node stays. Servers bound
	// it to 2 to 20 of their ticks, usually 4 s to 40 s.
	SessionTimeout   time.Duration
	DialTimeout      time.Duration // for one address, and for looking one name up
	HandshakeTimeout time.Duration // from the connection to a session
	// MinBackoff and MaxBackoff bound the random wait, which doubles after each
	// round of all servers in vain.
	MinBackoff, MaxBackoff time.Duration
}

// DefaultConfig has Mesos' session timeout of 10 s and a back-off of at most
// 0.2 s to 10 s. It has no Location and no Resolve.
func DefaultConfig() Config {
	return Config{
		SessionTimeout:   10 * time.Second,
		DialTimeout:      time.Second,
		HandshakeTimeout: 5 * time.Second,
		MinBackoff:       200 * time.Millisecond,
		MaxBackoff:       10 * time.Second,
	}
}

// Status is what the Detector sees of ZooKeeper and of the election.
type Status struct {
	Connected bool      // there is a session with a server
	Changed   time.Time // when Connected became what it is; the start before that
	Leader    Member    // the last one seen; zero before the first
	Members   int       // candidates in the last answer, the leader included
	Read      time.Time // when the last answer was read; zero before the first
	Err       error     // why the election cannot be seen; nil while it can
}

// Detector follows one election. Make it with New.
type Detector struct {
	cfg     Config
	log     *zap.Logger
	metrics *metrics

	mu     sync.Mutex // guards the following
	status Status
	logged string // the last error that was
}

// ErrNoLeader is in Status.Err while nobody is a candidate.
var ErrNoLeader = errors.New("no leader is elected")

var errNotConnected = errors.New("not connected to a ZooKeeper server")

// New returns a Detector. reg may be nil.
func New(cfg Config, log *zap.Logger, reg prometheus.Registerer) *Detector {
	d := &Detector{cfg: cfg, log: log, status: Status{Changed: time.Now()}}
	d.metrics = newMetrics(reg, d.Status)
	return d
}

// Location returns where the election is.
func (d *Detector) Location() Location { return d.cfg.Location }

// Status returns what is seen now. It is safe for concurrent use.
func (d *Detector) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}

func (d *Detector) setStatus(f func(*Status)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.status)
}

// Run follows the election until ctx ends and returns ctx's error. It calls
// elected with all candidates, the leader first, whenever a live session shows
// others than before; elected must return quickly and not keep the slice. Where
// ZooKeeper cannot be reached or shows no leader, it is not called: that is no
// news about the last one. Run is for one call.
func (d *Detector) Run(ctx context.Context, elected func([]Member)) error {
	var last []Member
	backoff := d.cfg.MinBackoff
	for {
		start := time.Now()
		err := d.session(ctx, func(members []Member) {
			if !slices.Equal(members, last) {
				last = members
				elected(slices.Clone(members))
			}
		})
		if err != nil {
			return err
		}
		if time.Since(start) > d.cfg.MaxBackoff {
			backoff = d.cfg.MinBackoff
		}
		wait := time.NewTimer(rand.N(backoff + 1))
		select {
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		case <-wait.C:
		}
		backoff = min(2*backoff, d.cfg.MaxBackoff)
	}
}

// session follows the election in one session and returns nil when its
// connection is lost. The library could go on with the session elsewhere, but
// sends its watches anew with a transaction number that may be past changes they
// should have told of; a new session reads everything anew and costs ZooKeeper
// one write.
func (d *Detector) session(ctx context.Context, seen func([]Member)) error {
	alive, lost := context.WithCancel(ctx)
	defer lost()
	h := &hosts{}
	dl := &dialer{ctx: alive, cfg: d.cfg, hosts: h, failed: d.unreachable}
	conn, events, err := gozk.Connect(d.cfg.Location.Servers, d.cfg.SessionTimeout,
		gozk.WithHostProvider(h), gozk.WithDialer(dl.dial),
		gozk.WithLogInfo(false), gozk.WithLogger(logger{d.log}),
		gozk.WithMaxConnBufferSize(sendBuffer), gozk.WithMaxBufferSize(maxFrame),
		gozk.WithEventCallback(func(e gozk.Event) { d.event(e, lost) }))
	if err != nil {
		return fmt.Errorf("follow %s: %w", d.cfg.Location, err)
	}
	end := sync.OnceFunc(func() { conn.Close(); dl.close() })
	stop := context.AfterFunc(alive, end)
	defer func() {
		stop()
		end()
		for range events { // until the library has ended; nobody else reads it
		}
		d.disconnected()
	}()
	e := election{Detector: d, conn: conn}
	if d.cfg.Location.Auth != "" {
		e.authenticate(alive)
	}
	for alive.Err() == nil {
		members, err := e.read()
		if err != nil {
			d.failed(alive, err)
		} else {
			d.took(members)
			seen(members)
		}
		e.wait(alive, err != nil && !errors.Is(err, errWatched))
	}
	return ctx.Err()
}

// event notes the state of the session and ends it with its connection. The
// library's channel loses events; its callback does not.
func (d *Detector) event(e gozk.Event, lost func()) {
	switch {
	case e.Type != gozk.EventSession:
	case e.State == gozk.StateHasSession:
		d.metrics.connected.Set(1)
		d.metrics.sessions.Inc()
		d.setStatus(func(s *Status) { s.Connected, s.Changed = true, time.Now() })
	case e.State == gozk.StateDisconnected && d.Status().Connected:
		lost()
	}
}

func (d *Detector) disconnected() {
	d.metrics.connected.Set(0)
	d.setStatus(func(s *Status) {
		if s.Connected {
			s.Connected, s.Changed = false, time.Now()
		}
		if s.Err == nil {
			s.Err = errNotConnected
		}
	})
}

func (d *Detector) took(members []Member) {
	d.metrics.members.Set(float64(len(members)))
	old := d.Status().Leader
	d.setStatus(func(s *Status) {
		s.Leader, s.Members, s.Read, s.Err = members[0], len(members), time.Now(), nil
		d.logged = ""
	})
	if old != members[0] {
		d.metrics.elections.Inc()
		d.log.Info("leader elected", zap.String("leader", members[0].Addr), zap.String("node", members[0].Node))
	}
}

func (d *Detector) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	d.metrics.errors.Inc()
	none := errors.Is(err, ErrNoLeader)
	if none {
		d.metrics.members.Set(0)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, gozk.ErrNoServer) && errors.Is(d.status.Err, errNotConnected) {
		err = d.status.Err // says why
	}
	d.status.Err = err
	if none {
		d.status.Members, d.status.Read = 0, time.Now()
	}
	if text := err.Error(); d.logged != text {
		d.logged = text
		d.log.Warn("election not seen; the last leader stands", zap.Error(err))
	}
}

// unreachable notes why no server can be had, which says more than the library
// does when a request has waited in vain.
func (d *Detector) unreachable(err error) {
	d.setStatus(func(s *Status) {
		if !s.Connected {
			s.Err = fmt.Errorf("%w: %w", errNotConnected, err)
		}
	})
}

// logger makes the library's chatter debug output.
type logger struct{ log *zap.Logger }

// Printf is the library's interface.
func (l logger) Printf(format string, args ...any) { l.log.Debug(fmt.Sprintf(format, args...)) }
