package forward

import (
	"errors"
	"runtime"
	"sync"

	"go.uber.org/zap"

	"waggle/dns/wire"
)

// listener reads the UDP sockets of all upstreams, one goroutine for all. It starts
// with the first of them and ends with the Resolver.
type listener struct {
	r     *Resolver
	eager bool

	mu      sync.Mutex // guards the following
	watch   *wire.Watch
	sockets map[int32]*socket
	last    int32 // tag given out
}

// add has s read until it is closed.
func (l *listener) add(s *socket) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch == nil {
		w, err := wire.NewWatch(l.eager)
		if err != nil {
			return err
		}
		if !l.r.goes(func() { l.run(w) }) {
			return errors.Join(errStopped, w.Close())
		}
		l.watch = w
	}
	l.last++ // sockets last a minute, so it never comes round
	s.tag = l.last
	if err := l.watch.Add(s.Handle, s.tag); err != nil {
		return err
	}
	l.sockets[s.tag] = s
	return nil
}

// forget lets s go, which is about to be closed.
func (l *listener) forget(s *socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sockets[s.tag] == s {
		delete(l.sockets, s.tag)
	}
}

func (l *listener) find(tag int32) *socket {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sockets[tag]
}

// run delivers answers until the listener is shut.
func (l *listener) run(w *wire.Watch) {
	if w.Eager() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	in, out := wire.NewInbox(), &wire.Outbox{}
	for {
		ready, err := w.Wait()
		if err != nil {
			if !errors.Is(err, wire.ErrClosed) {
				l.r.log.Error("upstreams cannot be read", zap.Error(err))
			}
			break
		}
		for _, tag := range ready {
			if s := l.find(tag); s != nil {
				s.drain(in, out)
			}
		}
		out.Send()
	}
	_ = w.Close()
}

// shut ends run.
func (l *listener) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch != nil {
		l.watch.Shut()
	}
}
