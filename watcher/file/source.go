package file

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"waggle/model"
	"waggle/watcher"
)

// Status is how the source stands.
type Status struct {
	Files int       // read, or known from before
	Read  time.Time // when they were last looked at; zero before
	Err   error     // what keeps a file from being read as it is; nil when nothing does
}

// Source reads files. Make it with New.
type Source struct {
	cfg     Config
	log     *zap.Logger
	metrics *metrics

	files []*content // sorted by path; only Run touches it
	bad   []*content // paths that are neither file nor folder now
	last  *model.Snapshot

	mu     sync.Mutex // guards status
	status Status
}

var _ watcher.Source = (*Source)(nil)

// New returns a Source. reg may be nil.
func New(cfg Config, log *zap.Logger, reg prometheus.Registerer) *Source {
	return &Source{cfg: cfg, log: log, metrics: newMetrics(reg)}
}

// Status returns how the source stands. It is safe for concurrent use.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run reads the files and publishes what they say, then each change, until ctx
// ends; see watcher.Source. It is for one call.
func (s *Source) Run(ctx context.Context, publish func(*model.Snapshot)) error {
	if len(s.cfg.Paths) == 0 {
		return errors.New("no file to read")
	}
	w, err := newWatch()
	if err != nil {
		s.log.Warn("changes of files are noticed late", zap.Duration("reread", s.cfg.Reread), zap.Error(err))
	} else {
		defer w.close()
	}
	again := time.NewTicker(s.cfg.Reread)
	defer again.Stop()
	for {
		w.follow(s.folders()) // before the files are read, lest a change fall between
		if snap := s.read(); snap != s.last {
			s.last = snap
			publish(snap)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		case <-w.changed():
			if err := s.settle(ctx, w); err != nil {
				return err
			}
		}
	}
}

// settle waits until the files have been left alone for a while, but not for
// ever.
func (s *Source) settle(ctx context.Context, w *watch) error {
	limit := time.After(10 * s.cfg.Settle)
	quiet := time.NewTimer(s.cfg.Settle)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return nil
		case <-quiet.C:
			return nil
		case <-w.changed():
			quiet.Reset(s.cfg.Settle)
		}
	}
}

// folders returns what has to be watched: each folder, and the folder of each
// path, in which it can be replaced.
func (s *Source) folders() []string {
	var out []string
	for _, p := range s.cfg.Paths {
		out = append(out, p, filepath.Dir(p))
	}
	return out
}

// read returns what all files say now: the last Snapshot itself if that is what
// they said before.
func (s *Source) read() *model.Snapshot {
	files, bad := s.look()
	same := s.last != nil && slices.Equal(files, s.files) && slices.EqualFunc(bad, s.bad, sameError)
	s.files, s.bad = files, bad
	s.metrics.reads.Inc()
	s.note()
	if same {
		return s.last
	}
	old := s.last
	if old == nil {
		old = &model.Snapshot{}
	}
	snap := snapshot(old, slices.Concat(files, bad))
	tasks := 0
	for _, app := range snap.Apps.All() {
		tasks += len(app.Tasks)
	}
	s.metrics.tasks.Set(float64(tasks))
	s.metrics.problems.Set(float64(len(snap.Problems)))
	return snap
}

// look reads every file. A folder that cannot be read keeps its files as they
// were; one that is gone has none.
func (s *Source) look() (files, bad []*content) {
	known := map[string]*content{}
	for _, f := range s.files {
		known[f.path] = f
	}
	seen := map[string]bool{}
	for _, path := range s.cfg.Paths {
		names, err := list(path)
		if err != nil {
			bad = append(bad, &content{path: path, err: err})
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			names = s.under(path)
		}
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			f := known[name]
			if f == nil {
				f = &content{path: name}
			}
			if next, gone := f.read(s.cfg.MaxSize); !gone {
				files = append(files, next)
			}
		}
	}
	slices.SortFunc(files, func(a, b *content) int { return strings.Compare(a.path, b.path) })
	return files, bad
}

// under returns the known files that path stands for.
func (s *Source) under(path string) []string {
	var out []string
	for _, f := range s.files {
		if f.path == path || filepath.Dir(f.path) == filepath.Clean(path) {
			out = append(out, f.path)
		}
	}
	return out
}

func (s *Source) note() {
	st := Status{Files: len(s.files), Read: time.Now()}
	for _, f := range slices.Concat(s.files, s.bad) {
		if f.err != nil {
			st.Err = errors.Join(st.Err, &fs.PathError{Op: "read", Path: f.path, Err: f.err})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.Err != nil && (s.status.Err == nil || s.status.Err.Error() != st.Err.Error()) {
		s.log.Warn("files not read as they are; what they said before stands", zap.Error(st.Err))
	}
	s.status = st
}
