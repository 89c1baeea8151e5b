package mesos

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"

	"go.uber.org/zap"

	"waggle/watcher"
)

// Poll says when a master is asked for its whole state again and again, in place
// of its event stream.
type Poll string

// The ways there are.
const (
	PollRefused Poll = "refused" // where it refuses the stream
	PollAlways  Poll = "always"
	PollNever   Poll = "never"
)

// Polls returns the names of them all.
func Polls() []string { return []string{string(PollRefused), string(PollAlways), string(PollNever)} }

// streamEvery is after how many polls a master that refused the stream is asked
// for it again: it may only have been starting.
const streamEvery = 10

// refused reports whether a master has no event stream for us: it is too old,
// hides it from us, or is still starting.
func refused(err error) bool {
	status, ok := errors.AsType[*statusError](err)
	return ok && slices.Contains([]int{
		http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented,
	}, status.code)
}

// once follows master for as long as it goes well; followed says that a picture
// was believed.
func (s *Source) once(ctx context.Context, master *url.URL) (followed bool, err error) {
	if s.cfg.Poll != PollAlways {
		followed, err = s.stream(ctx, master)
	}
	if s.cfg.Poll == PollAlways || s.cfg.Poll == PollRefused && refused(err) {
		return s.poll(ctx, master, err)
	}
	return followed, err
}

// poll asks for the state until that fails, another leads or the stream can be
// had. why is why there is no stream, or nil.
func (s *Source) poll(ctx context.Context, master *url.URL, why error) (followed bool, err error) {
	for n := 1; ; n++ {
		news := s.masters.changed()
		from, err := s.pollOnce(ctx, master)
		if err != nil {
			return n > 1, errors.Join(fmt.Errorf("poll: %w", err), why)
		}
		if n == 1 {
			s.log.Info("asking for the state again and again", zap.Stringer("leader", from.peer), zap.NamedError("no stream", why))
		}
		if err := watcher.Pause(ctx, s.cfg.PollInterval*4/3, news); err != nil {
			return true, err
		}
		if !s.masters.leads(from.at.Host, from.peer) {
			return true, errDeposed
		}
		if s.cfg.Poll == PollRefused && n%streamEvery == 0 {
			if followed, err := s.stream(ctx, master); followed || !refused(err) {
				return true, err
			}
		}
	}
}

// pollOnce takes one answer to /state. Its parts are shared with the last
// Snapshot where they are the same.
func (s *Source) pollOnce(ctx context.Context, master *url.URL) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.FirstByte)
	defer cancel()
	a, err := s.client.ask(ctx, master, http.MethodGet, "/master/state", "")
	if err != nil {
		return nil, err
	}
	defer a.body.Close()
	defer frugally(s.Status().Leader != "")()
	s.turn.Lock()
	w := newWorld(s.last)
	s.turn.Unlock()
	read, err := readState(a.body, w)
	s.metrics.bytes.Add(float64(read))
	if err != nil {
		return nil, fmt.Errorf("read state of %s: %w", a.peer, err)
	}
	s.metrics.polls.Inc()
	s.turn.Lock()
	defer s.turn.Unlock()
	if err := s.believeLocked(w, a.peer); err != nil {
		return nil, err
	}
	s.publishLocked(a.peer)
	return a, nil
}

// readState reads a /state document into w, and refuses that of a master that
// does not say that it leads.
func readState(body io.Reader, w *world) (n int64, err error) {
	var leader, self struct{ id, pid string }
	var elected float64
	var lost error
	h := handlerInto(&w, func(error) {})
	h.lost = func(err error) { w.wrong("", err); lost = errors.Join(lost, err) }
	plan := w.statePlan(func(netip.AddrPort) {})
	text := func(key string, into *string) visit {
		return visit{value: decoded(h, key, func(s string) { *into = s })}
	}
	plan["leader"] = text("leader", &leader.pid)
	plan["pid"] = text("pid", &self.pid)
	plan["id"] = text("id", &self.id)
	plan["leader_info"] = visit{object: map[string]visit{"id": text("leader_info.id", &leader.id)}}
	plan["elected_time"] = visit{value: decoded(h, "elected_time", func(t float64) { elected = t })}
	in := &counter{r: body}
	sc := newScanner()
	sc.reset(in)
	if err := h.read(sc, plan); err != nil || lost != nil {
		return in.n, errors.Join(err, lost)
	}
	switch {
	case leader.id != "" && leader.id != self.id, leader.id == "" && leader.pid != self.pid:
		return in.n, fmt.Errorf("it is of %s, but %s leads", self.pid, leader.pid)
	case elected == 0:
		return in.n, errors.New("its master has not been elected")
	}
	return in.n, nil
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// unzipped is the body of resp, decompressed if it is compressed.
func unzipped(resp *http.Response) (io.ReadCloser, error) {
	if resp.Header.Get("Content-Encoding") != "gzip" {
		return resp.Body, nil
	}
	z, err := gzip.NewReader(resp.Body)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{z, resp.Body}, nil
}
