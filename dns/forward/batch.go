package forward

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many answers are read with one system call at most.
const batchSize = 16

// batch is room for what one system call reads.
type batch struct {
	msgs [batchSize]mmsghdr
	iovs [batchSize]unix.Iovec
	room [batchSize][maxReply]byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr  unix.Msghdr
	size uint32
}

func newBatch() *batch {
	b := &batch{}
	for i := range b.msgs {
		b.iovs[i] = unix.Iovec{Base: &b.room[i][0]}
		b.iovs[i].SetLen(maxReply)
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

// receive reads what has come to a connected socket, without waiting.
func (b *batch) receive(fd uintptr) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.msgs[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// packet returns packet i of those received last.
func (b *batch) packet(i int) []byte { return b.room[i][:b.msgs[i].size] }
