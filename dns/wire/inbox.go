package wire

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr  unix.Msghdr
	size uint32
}

// batch is room for the packets that are received with one system call.
type batch struct {
	msgs [BatchSize]mmsghdr
	iovs [BatchSize]unix.Iovec
	room [BatchSize][maxQuery]byte
}

func (b *batch) init() {
	for i := range b.msgs {
		b.iovs[i] = unix.Iovec{Base: &b.room[i][0]}
		b.iovs[i].SetLen(len(b.room[i]))
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
}

// Packet returns packet i of those received last, good until the next Receive.
func (b *batch) Packet(i int) []byte { return b.room[i][:b.msgs[i].size] }

// Inbox is room for the packets that are received from connected sockets with one
// system call: BatchSize of 4096 octets. It belongs to one goroutine.
type Inbox struct{ batch }

// NewInbox returns an empty Inbox.
func NewInbox() *Inbox {
	b := &Inbox{}
	b.init()
	return b
}

// Receive reads what has come, without waiting, and returns how many packets that
// is: fewer than BatchSize are all there were. EAGAIN says that there are none,
// EBADF that the socket is closed, everything else is the socket's trouble.
func (b *Inbox) Receive(from *Handle) (int, syscall.Errno) {
	var n uintptr
	errno := unix.EBADF
	from.Use(func(fd int) {
		n, _, errno = syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])), BatchSize, unix.MSG_DONTWAIT, 0, 0)
	})
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
