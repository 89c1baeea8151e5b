package wire

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watched is how many sockets one system call tells of at most.
const watched = 32

// bell is the tag of what ends a wait.
const bell = -1

// Watch waits for packets on many sockets, on one locked thread, as Socket does
// on one. Add may be called from any goroutine.
type Watch struct {
	pace
	poll   int
	events [watched]unix.EpollEvent
	ready  [watched]int32

	mu     sync.Mutex // guards the following
	bell   int
	closed bool
}

// NewWatch returns a Watch of nothing. eager lets it wait without telling the
// scheduler while packets come often, if it is Preemptible. The caller calls Close.
func NewWatch(eager bool) (*Watch, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	ring, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, ring, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: bell})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create event: %w", err), unix.Close(poll))
	}
	return &Watch{pace: pace{eager: eager && Preemptible()}, poll: poll, bell: ring}, nil
}

// Add has Wait tell of a socket by tag, which is not negative, when packets or an
// error have come to it: once, until all have been read. It ends when the socket is
// closed.
func (w *Watch) Add(h *Handle, tag int32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	err := net.ErrClosed
	h.Use(func(fd int) {
		err = unix.EpollCtl(w.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: tag})
	})
	return err
}

// Wait waits until there is something to read, and returns where. It must be
// called from a goroutine that is locked to its thread. After Shut it returns
// ErrClosed.
func (w *Watch) Wait() ([]int32, error) {
	for {
		limit := -1
		if w.waiting {
			limit = int(waitLimit.Milliseconds())
		}
		n, errno := w.call(unix.SYS_EPOLL_PWAIT, w.poll, unsafe.Pointer(&w.events[0]), watched, uintptr(limit))
		switch {
		case errno == 0 && n > 0:
			w.came()
		case errno == 0, errno == unix.EINTR:
			w.idle()
			continue
		default:
			return nil, fmt.Errorf("wait: %w", errno)
		}
		for i, e := range w.events[:n] {
			if e.Fd == bell {
				return nil, ErrClosed
			}
			w.ready[i] = e.Fd
		}
		return w.ready[:n], nil
	}
}

// Shut makes Wait return ErrClosed.
func (w *Watch) Shut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		_, _ = unix.Write(w.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // fails only where it has rung too often to count
	}
}

// Close closes the Watch, not what it watches. Nobody may be in Wait.
func (w *Watch) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return errors.Join(unix.Close(w.bell), unix.Close(w.poll))
}
