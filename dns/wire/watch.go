package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watched is how many sockets one system call tells of at most.
const watched = 32

// bell is the tag of what ends a wait.
const bell = -1

// Watch waits for packets on many sockets. An eager one does so on one locked
// thread, as Socket does on one; another leaves the waiting to Go's poller. Add may
// be called from any goroutine.
type Watch struct {
	pace
	poll   *os.File
	fd     int             // of poll
	raw    syscall.RawConn // of poll, nil if eager
	events [watched]unix.EpollEvent
	ready  [watched]int32

	mu     sync.Mutex // guards the following
	bell   int
	closed bool
}

// NewWatch returns a Watch of nothing. eager lets it wait without telling the
// scheduler while packets come often, if it is Preemptible. The caller calls Close.
func NewWatch(eager bool) (*Watch, error) {
	w := &Watch{pace: pace{eager: eager && Preemptible()}}
	var err error
	if w.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	// Go's poller takes what does not block.
	err = unix.SetNonblock(w.fd, !w.eager)
	w.poll = os.NewFile(uintptr(w.fd), "epoll")
	if err == nil && !w.eager {
		w.raw, err = w.poll.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("poll epoll: %w", err), w.poll.Close())
	}
	if w.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("create event: %w", err), w.poll.Close())
	}
	if err := unix.EpollCtl(w.fd, unix.EPOLL_CTL_ADD, w.bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: bell}); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for event: %w", err), w.Close())
	}
	return w, nil
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
		err = unix.EpollCtl(w.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: tag})
	})
	return err
}

// wait fills events, for as long as it may wait at once, and returns how many there
// are.
func (w *Watch) wait() (n int, errno syscall.Errno) {
	if w.raw == nil {
		limit := -1
		if w.waiting {
			limit = int(waitLimit.Milliseconds())
		}
		return w.call(unix.SYS_EPOLL_PWAIT, w.fd, unsafe.Pointer(&w.events[0]), watched, uintptr(limit))
	}
	if err := w.raw.Read(func(fd uintptr) bool {
		var got uintptr
		got, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&w.events[0])), watched, 0, 0, 0)
		n = int(got)
		return n > 0 || errno != 0
	}); err != nil {
		return 0, unix.EBADF // it has been closed
	}
	return n, errno
}

// Wait waits until there is something to read, and returns where. If the Watch is
// eager it must be called from a goroutine that is locked to its thread. After Shut
// it returns ErrClosed.
func (w *Watch) Wait() ([]int32, error) {
	for {
		n, errno := w.wait()
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

// Eager reports whether Wait keeps its thread.
func (w *Watch) Eager() bool { return w.eager }

// Close closes the Watch, not what it watches. Nobody may be in Wait.
func (w *Watch) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return errors.Join(unix.Close(w.bell), w.poll.Close())
}
