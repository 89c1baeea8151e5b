package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"waggle/model"
	"waggle/watcher"
)

// Status is how the archive stands.
type Status struct {
	// Restored is when the Snapshot from the disk that is still part of what is
	// served was published; zero once every source has spoken, and where there
	// was none.
	Restored time.Time
	Written  time.Time // when the file was last written; zero before
	Err      error     // why the last write, or else the read, failed; nil if it did not
}

// Restorer is a Source that can make use of what it, or one like it, published
// before the daemon was restarted. Restore is called before Run.
type Restorer interface {
	Restore(*model.Snapshot)
}

// Source publishes the Snapshot that is on disk and then what the Source it is
// around does, which it writes to the disk. Make it with New.
type Source struct {
	cfg     Config
	from    watcher.Source
	spoken  func() bool
	log     *zap.Logger
	metrics *metrics

	newest atomic.Pointer[publication]
	dirty  chan struct{} // one slot: newest is not on disk

	mu     sync.Mutex // guards status
	status Status
}

// publication is a Snapshot and since when it has been known.
type publication struct {
	snapshot *model.Snapshot
	at       time.Time
}

var _ watcher.Source = (*Source)(nil)

// New returns a Source around from. Until spoken says that all of the sources
// behind from have published a first complete Snapshot, nothing that was on disk
// is taken away. reg may be nil.
func New(cfg Config, from watcher.Source, spoken func() bool, log *zap.Logger, reg prometheus.Registerer) *Source {
	s := &Source{cfg: cfg, from: from, spoken: spoken, log: log, dirty: make(chan struct{}, 1)}
	s.metrics = newMetrics(reg, s.Status)
	return s
}

// Status returns how the archive stands. It is safe for concurrent use.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// OnDisk reports whether there is something on disk, which Run publishes first.
func (s *Source) OnDisk() bool {
	if s.cfg.Dir == "" {
		return false
	}
	_, err := os.Stat(s.path())
	return err == nil
}

func (s *Source) note(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// Run implements watcher.Source. What was published last is on disk when it
// returns.
func (s *Source) Run(ctx context.Context, publish func(*model.Snapshot)) error {
	if s.cfg.Dir == "" {
		return s.from.Run(ctx, publish)
	}
	over := s.restore(publish)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.from.Run(ctx, func(snap *model.Snapshot) {
			if over != nil && s.spoken() {
				over = nil
				s.note(func(st *Status) { st.Restored = time.Time{} })
				s.log.Info("every source has spoken; the Snapshot from the disk is let go")
			}
			at := time.Now()
			if over != nil {
				snap, at = over.cross(snap), s.Status().Restored
			}
			publish(snap)
			s.keep(&publication{snap, at})
		})
	})
	g.Go(func() error { return s.write(ctx) })
	return g.Wait()
}

// restore publishes what is on disk, if there is anything, and returns the
// bridge that leads on from it.
func (s *Source) restore(publish func(*model.Snapshot)) *bridge {
	snap, at, err := s.load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		s.log.Error("no Snapshot from the disk; starting without", zap.Error(err))
		s.note(func(st *Status) { st.Err = err })
		return nil
	}
	s.log.Info("serving the Snapshot from the disk until every source has spoken",
		zap.Time("published", at), zap.Int("apps", snap.Apps.Len()))
	s.note(func(st *Status) { st.Restored = at })
	snap.Partial = true
	if r, ok := s.from.(Restorer); ok {
		r.Restore(snap)
	}
	publish(snap)
	return newBridge(snap)
}

func (s *Source) path() string { return filepath.Join(s.cfg.Dir, "snapshot") }

func (s *Source) load() (*model.Snapshot, time.Time, error) {
	f, err := os.Open(s.path())
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	snap, at, err := decode(f, st.Size())
	if err != nil {
		err = fmt.Errorf("read %s: %w", s.path(), err)
	}
	return snap, at, err
}

// keep has p written some time. It never waits.
func (s *Source) keep(p *publication) {
	s.newest.Store(p)
	s.poke()
}

func (s *Source) poke() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// write writes what is new, seldom enough to cost little, and once more at the
// end.
func (s *Source) write(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			if len(s.dirty) > 0 {
				s.save()
			}
			return ctx.Err()
		case <-s.dirty:
		}
		busy, took := s.save()
		// A disk that is slow to say that it has everything keeps nobody busy.
		rest := time.NewTimer(max(s.cfg.Every, time.Duration(s.cfg.Rest)*busy, 2*took))
		select {
		case <-ctx.Done():
		case <-rest.C:
		}
		rest.Stop()
	}
}

// save writes the newest Snapshot and returns how long that took, and how much of
// it was work.
func (s *Source) save() (busy, took time.Duration) {
	start := time.Now()
	size, busy, err := s.replace(s.newest.Load())
	took = time.Since(start)
	s.metrics.writes.Inc()
	s.metrics.seconds.Add(took.Seconds())
	before := s.Status().Err
	if err != nil {
		s.poke() // to try again
		s.metrics.errors.Inc()
		if before == nil || before.Error() != err.Error() {
			s.log.Error("Snapshot not written to the disk", zap.Error(err))
		}
	} else {
		s.metrics.bytes.Set(float64(size))
	}
	s.note(func(st *Status) {
		if st.Err = err; err == nil {
			st.Written = start
		}
	})
	return busy, took
}

// replace puts p where the last Snapshot was, wholly or not at all: it is on the
// disk before it has the name.
func (s *Source) replace(p *publication) (size int64, busy time.Duration, err error) {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return 0, 0, err
	}
	f, err := os.OpenFile(s.path()+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	err = encode(f, p.snapshot, p.at)
	busy = time.Since(start)
	if err == nil {
		err = f.Sync()
	}
	if st, statErr := f.Stat(); statErr == nil {
		size = st.Size()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path())
	}
	if err != nil {
		return 0, busy, errors.Join(err, os.Remove(f.Name()))
	}
	return size, busy, syncDir(s.cfg.Dir)
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
