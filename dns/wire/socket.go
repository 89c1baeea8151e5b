package wire

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BatchSize is how many packets are received with one system call at most.
const BatchSize = 32

const (
	// maxQuery is the longest query that is read; what is cut off makes it no query.
	maxQuery    = 4096
	sockaddrMax = unix.SizeofSockaddrInet6
	controlMax  = 64 // an in6_pktinfo with its header, aligned, and some
)

// Socket receives and sends packets of one UDP socket, many at a time, on one
// locked thread.
type Socket struct {
	pace
	*Handle
	batch
	control bool

	names    [BatchSize][sockaddrMax]byte
	controls [BatchSize][controlMax]byte
	out      [BatchSize][MaxUDP]byte
	replies  [BatchSize]mmsghdr
	outIovs  [BatchSize]unix.Iovec
	queued   int // replies
	received int // packets

	borrowed bool // others hold the socket too
	closing  atomic.Bool
}

// ErrClosed is what Receive returns once the Socket is to be closed.
var ErrClosed = errors.New("socket closed")

// NewSocket takes the socket of conn over and closes conn. With control the
// replies leave from the address that was asked, for which conn must tell the
// destination of each packet (IP_PKTINFO). The caller calls Close, when nobody is
// in Receive or Send any more.
func NewSocket(conn *net.UDPConn, control bool) (*Socket, error) {
	h, err := Detach(conn)
	if err != nil {
		return nil, err
	}
	limit := unix.NsecToTimeval(waitLimit.Nanoseconds())
	if err := errors.Join(unix.SetNonblock(h.fd, false), unix.SetsockoptTimeval(h.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)); err != nil {
		return nil, errors.Join(fmt.Errorf("make socket blocking: %w", err), h.Close())
	}
	s := &Socket{pace: pace{eager: Preemptible()}, Handle: h, control: control}
	s.init()
	for i := range BatchSize {
		s.msgs[i].hdr.Name = &s.names[i][0]
		s.replies[i].hdr.Iov = &s.outIovs[i]
		s.replies[i].hdr.SetIovlen(1)
		s.ready(i)
	}
	return s, nil
}

// ready makes message i fit to receive into: what was received last has
// changed its sizes.
func (s *Socket) ready(i int) {
	h := &s.msgs[i].hdr
	h.Namelen, h.Flags = sockaddrMax, 0
	if s.control {
		h.Control = &s.controls[i][0]
		h.SetControllen(controlMax)
	}
}

// Receive waits for packets and returns how many there are. They are good until
// the next Receive. It must be called from a goroutine that is locked to its
// thread. After Shut it returns what is still there, then ErrClosed; other
// errors may pass.
func (s *Socket) Receive() (int, error) {
	for {
		closing := s.closing.Load()
		n, errno := s.receive(closing)
		switch {
		case closing && errno != 0:
			return 0, ErrClosed
		case errno == 0 && s.nothing(n):
			continue // it is closing now
		}
		switch errno {
		case 0:
			s.came()
			return n, nil
		case unix.EINTR, unix.EAGAIN:
			s.idle()
		default:
			return 0, fmt.Errorf("receive: %w", errno)
		}
	}
}

// nothing reports whether the n packets received are the empty one from nobody
// that ends a wait after a shutdown.
func (s *Socket) nothing(n int) bool {
	return n == 1 && s.msgs[0].size == 0 && s.msgs[0].hdr.Namelen == 0
}

// receive reads what is there, and waits for it unless the Socket is closing.
func (s *Socket) receive(closing bool) (int, syscall.Errno) {
	for i := range s.received {
		s.ready(i)
	}
	s.received = 0
	var flags uintptr = unix.MSG_WAITFORONE
	if closing {
		flags = unix.MSG_DONTWAIT
	}
	var errno syscall.Errno
	s.received, errno = s.call(unix.SYS_RECVMMSG, s.fd, unsafe.Pointer(&s.msgs[0]), BatchSize, flags)
	return s.received, errno
}
