package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
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

// busy is how soon the next packet must come for the next wait to hold on to
// the scheduler's slot.
const busy = 2 * time.Millisecond

// waitLimit ends every wait. It bounds for how long the garbage collector can
// be kept waiting should the runtime's signal fail to end a wait, and, because
// a call with a time limit is not restarted, it is what makes the signal end it.
const waitLimit = 100 * time.Millisecond

// Socket receives and sends packets of one UDP socket, many at a time, on one
// locked thread.
//
// While packets come often it waits for them without telling the scheduler:
// handing the slot over and back wakes a second thread, which costs more than
// an answer. The runtime's preemption signal ends such a wait, so the collector
// still gets its turn. When packets come seldom the scheduler is told, as with
// any blocking call.
type Socket struct {
	fd      int
	eager   bool // allowed to wait without telling the scheduler
	waiting bool // does so now
	last    time.Time
	control bool

	msgs     [BatchSize]mmsghdr
	iovs     [BatchSize]unix.Iovec
	names    [BatchSize][sockaddrMax]byte
	controls [BatchSize][controlMax]byte
	in       [BatchSize][maxQuery]byte
	out      [BatchSize][MaxUDP]byte
	replies  [BatchSize]mmsghdr
	outIovs  [BatchSize]unix.Iovec
	queued   int // replies
	received int // packets

	borrowed bool // others hold the socket too
	closing  atomic.Bool
	mu       sync.RWMutex // guards closed; held while a Letter is answered
	closed   bool
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr  unix.Msghdr
	size uint32
}

// ErrClosed is what Receive returns once the Socket is to be closed.
var ErrClosed = errors.New("socket closed")

// NewSocket takes the socket of conn over and closes conn. With control the
// replies leave from the address that was asked, for which conn must tell the
// destination of each packet (IP_PKTINFO). The caller calls Close.
func NewSocket(conn *net.UDPConn, control bool) (*Socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if ctlErr := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, fmt.Errorf("duplicate socket: %w", err)
	}
	limit := unix.NsecToTimeval(waitLimit.Nanoseconds())
	if err := errors.Join(unix.SetNonblock(fd, false), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit), conn.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("make socket blocking: %w", err), unix.Close(fd))
	}
	s := &Socket{fd: fd, eager: Preemptible(), control: control}
	for i := range BatchSize {
		s.iovs[i] = unix.Iovec{Base: &s.in[i][0]}
		s.iovs[i].SetLen(maxQuery)
		h := &s.msgs[i].hdr
		h.Name, h.Iov = &s.names[i][0], &s.iovs[i]
		h.SetIovlen(1)
		s.replies[i].hdr.Iov = &s.outIovs[i]
		s.replies[i].hdr.SetIovlen(1)
		s.ready(i)
	}
	return s, nil
}

// Preemptible reports whether the runtime interrupts threads with signals, as
// it does unless told otherwise.
func Preemptible() bool { return !strings.Contains(os.Getenv("GODEBUG"), "asyncpreemptoff=1") }

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
			if s.eager && !s.waiting {
				now := time.Now()
				s.waiting = now.Sub(s.last) < busy
				s.last = now
			}
			return n, nil
		case unix.EINTR, unix.EAGAIN:
			// The runtime wants the slot, or nothing has come for long.
			if s.waiting {
				s.waiting = false
				s.last = time.Now()
				runtime.Gosched()
			}
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
	msgs := uintptr(unsafe.Pointer(&s.msgs[0]))
	var n uintptr
	var errno syscall.Errno
	var flags uintptr = unix.MSG_WAITFORONE
	if closing {
		flags = unix.MSG_DONTWAIT
	}
	if s.waiting {
		n, _, errno = syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), msgs, BatchSize, flags, 0, 0)
	} else {
		n, _, errno = syscall.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), msgs, BatchSize, flags, 0, 0)
	}
	if errno != 0 {
		return 0, errno
	}
	s.received = int(n)
	return s.received, 0
}
