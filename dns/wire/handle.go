package wire

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Handle is the descriptor of a socket, which nobody uses once it is closed. It
// is safe for concurrent use.
type Handle struct {
	fd     int
	mu     sync.RWMutex // guards closed; held while fd is used
	closed bool
}

// Detach takes the socket of conn over from Go's poller and closes conn. The
// caller calls Close.
func Detach(conn *net.UDPConn) (*Handle, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	h := &Handle{}
	if ctlErr := raw.Control(func(from uintptr) { h.fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, fmt.Errorf("duplicate socket: %w", err)
	}
	if err := conn.Close(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// Use calls do, which must not wait, with the descriptor, and reports false if
// it is closed.
func (h *Handle) Use(do func(fd int)) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return false
	}
	do(h.fd)
	return true
}

// Close closes the socket once nobody uses it.
func (h *Handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	return unix.Close(h.fd)
}
