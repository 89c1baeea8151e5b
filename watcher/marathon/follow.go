package marathon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"waggle/model"
)

var (
	errSilent = errors.New("nothing was heard for too long")
	errEmpty  = errors.New("neither apps nor pods")
)

// news are the paths whose apps or pods have changed. It is safe for concurrent
// use.
type news struct {
	more chan struct{} // one slot: there is something to take

	mu    sync.Mutex // guards the following
	paths map[string]bool
	all   bool
}

func newNews() *news { return &news{more: make(chan struct{}, 1), paths: map[string]bool{}} }

func (n *news) add(paths []string, all bool) {
	if len(paths) == 0 && !all {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = n.all || all
	for _, p := range paths {
		n.paths[p] = true
	}
	select {
	case n.more <- struct{}{}:
	default:
	}
}

func (n *news) take() (paths []string, all bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.paths {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	all = n.all
	n.paths, n.all = map[string]bool{}, false
	return paths, all
}

// listen subscribes to the events of c and adds what they say to news, until ctx
// ends; it ends ctx when the stream does, or falls silent. ok is false for a
// Marathon that has no such stream.
func (s *Source) listen(ctx context.Context, cancel context.CancelCauseFunc, c *client, news *news, wg *sync.WaitGroup) (ok bool, err error) {
	query := url.Values{"event_type": eventTypes, "plan-format": {"light"}}
	silent := time.AfterFunc(s.cfg.Idle, func() { cancel(errSilent) })
	resp, err := c.get(ctx, "/v2/events?"+query.Encode(), "text/event-stream")
	if err != nil {
		silent.Stop()
		var status *statusError
		if errors.As(err, &status) && slices.Contains([]int{http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
			http.StatusNotAcceptable, http.StatusNotImplemented}, status.code) {
			s.log.Info("no events from this Marathon: it is asked again and again", zap.Duration("every", s.cfg.Poll), zap.Error(err))
			return false, nil
		}
		return false, causeOf(ctx, fmt.Errorf("subscribe to events: %w", err))
	}
	wg.Go(func() {
		defer silent.Stop()
		defer resp.Body.Close()
		alive := func() {
			silent.Reset(s.cfg.Idle)
			s.heard()
		}
		err := readEvents(resp.Body, s.cfg.MaxEvent, alive, func(kind string, data []byte) {
			if slices.Contains(eventTypes, kind) {
				s.metrics.events.WithLabelValues(kind).Inc()
			}
			news.add(changed(kind, data))
		})
		cancel(fmt.Errorf("read events: %w", err))
	})
	return true, nil
}

// learn asks Marathon what Mesos knows it as, and makes a new world where that is
// another than before. A Marathon that does not say is known as it was.
func (s *Source) learn(ctx context.Context, c *client) error {
	var info struct {
		Name        string `json:"name"`
		FrameworkID string `json:"frameworkId"`
		Leader      string `json:"leader"`
		Config      struct {
			FrameworkName string `json:"framework_name"`
			MesosLeader   string `json:"mesos_leader_ui_url"`
		} `json:"marathon_config"`
	}
	err := s.read(ctx, c, "/v2/info", func(r io.Reader) error { return json.NewDecoder(r).Decode(&info) })
	var status *statusError
	if err != nil && !errors.As(err, &status) {
		return causeOf(ctx, err)
	}
	if err != nil {
		s.log.Warn("Marathon does not say who it is", zap.Error(err))
	}
	f := &model.Framework{ID: info.FrameworkID, Name: info.Config.FrameworkName, Active: true}
	if f.Name == "" {
		f.Name = info.Name
	}
	f.Hostname, _, _ = strings.Cut(info.Leader, ":")
	f.Addr = s.addrOf(ctx, f.Hostname)
	if s.world != nil && f.ID == "" {
		return nil
	}
	if f.ID == "" {
		f = unknownFramework()
	}
	if s.world == nil || s.world.framework.ID != f.ID || s.world.framework.Name != f.Name {
		s.world, s.emptySince = newWorld(f), time.Time{}
	}
	if *s.world.framework != *f && f.Addr.IsValid() {
		s.world.framework = f
	}
	if u, err := url.Parse(info.Config.MesosLeader); err == nil {
		if a, err := netip.ParseAddrPort(u.Host); err == nil {
			s.world.leader = a
		}
	}
	return nil
}

// unknownFramework is what a Marathon is that does not say who it is.
func unknownFramework() *model.Framework {
	return &model.Framework{ID: "marathon", Name: "marathon", Active: true}
}

// addrOf looks a host up, for a second at most; the zero address where it cannot
// be found.
func (s *Source) addrOf(ctx context.Context, host string) netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil || host == "" {
		return a.Unmap()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if addrs, err := s.cfg.Resolve(ctx, host); err == nil && len(addrs) > 0 {
		return addrs[0].Unmap()
	}
	return netip.Addr{}
}

// read asks for path, for as long as Marathon may be silent.
func (s *Source) read(ctx context.Context, c *client, path string, take func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(s.cfg.Idle, func() { cancel(errSilent) })
	defer silent.Stop()
	err := c.read(ctx, path, func(r io.Reader) error {
		return take(io.LimitReader(&aliveReader{r, func() { silent.Reset(s.cfg.Idle) }}, s.cfg.MaxAnswer))
	})
	if err != nil {
		return causeOf(ctx, err)
	}
	s.heard()
	return nil
}

// aliveReader calls alive for each piece that is read.
type aliveReader struct {
	io.Reader
	alive func()
}

// Read implements io.Reader.
func (a *aliveReader) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	a.alive()
	return n, err
}

// readAll reads every app and pod and publishes them. What cannot be read costs
// itself only, and leaves what was known under paths that are not told of: it may
// be one of them.
func (s *Source) readAll(ctx context.Context, c *client) error {
	s.metrics.reads.WithLabelValues("all").Inc()
	var all collection
	err := s.read(ctx, c, "/v2/apps?embed=apps.tasks&embed=apps.readiness", func(r io.Reader) error { return documents(r, all.take) })
	if err != nil {
		return err
	}
	err = s.read(ctx, c, "/v2/pods/::status", func(r io.Reader) error { return documents(r, all.take) })
	var status *statusError
	s.noPods = errors.As(err, &status) && (status.code == http.StatusNotFound || status.code == http.StatusMethodNotAllowed)
	if err != nil && !s.noPods {
		return err
	}
	if err := s.believe(&all); err != nil {
		return err
	}
	s.world.replace(&all)
	s.tell()
	return nil
}

// believe refuses an answer without anything where something is known, until that
// has been so for EmptyHold.
func (s *Source) believe(all *collection) error {
	if len(all.specs) > 0 || len(s.world.specs) == 0 {
		s.emptySince = time.Time{}
		return nil
	}
	if s.emptySince.IsZero() {
		s.emptySince = time.Now()
	}
	if left := s.cfg.EmptyHold - time.Since(s.emptySince); left > 0 {
		return fmt.Errorf("%w where %d are known: not believed for another %s", errEmpty, len(s.world.specs), left.Round(time.Second))
	}
	return nil
}

// collection is what an answer holds.
type collection struct {
	specs []*runSpec
	lost  []model.Problem // what does not say which app or pod it is
}

func (a *collection) take(raw []byte, pod bool) {
	read := readApp
	if pod {
		read = readPod
	}
	r, err := read(raw)
	if err != nil {
		a.lost = append(a.lost, model.Problem{Field: "marathon", Error: err.Error()})
		return
	}
	a.specs = append(a.specs, r)
}

// readSome reads the apps or pods at paths and publishes them.
func (s *Source) readSome(ctx context.Context, c *client, paths []string) error {
	for _, p := range paths {
		s.metrics.reads.WithLabelValues("one").Inc()
		r, err := s.readOne(ctx, c, p)
		if err != nil {
			return err
		}
		if r == nil {
			s.world.remove(p)
		} else {
			s.world.put(r)
		}
	}
	s.tell()
	return nil
}

// readOne reads the app or pod at a path, nil where there is neither.
func (s *Source) readOne(ctx context.Context, c *client, p string) (*runSpec, error) {
	kinds := []bool{false, true}
	if known := s.world.specs[p]; known != nil && known.pod {
		kinds = []bool{true, false}
	}
	escaped := (&url.URL{Path: p}).EscapedPath()
	for _, pod := range kinds {
		if pod && s.noPods {
			continue
		}
		var all collection
		from := "/v2/apps" + escaped
		take := func(r io.Reader) error { return documents(r, all.take) }
		if pod {
			from = "/v2/pods" + escaped + "::status"
			take = func(r io.Reader) error {
				raw, err := io.ReadAll(r)
				all.take(raw, true)
				return err
			}
		}
		err := s.read(ctx, c, from, take)
		if isMissing(err) {
			continue
		}
		if err == nil && (len(all.specs) != 1 || all.specs[0].id != p) {
			err = fmt.Errorf("read %s: not an answer about it", from)
		}
		if err != nil {
			return nil, err
		}
		return all.specs[0], nil
	}
	return nil, nil
}
