package wire

import (
	"math/rand/v2"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Outbox collects packets, to send those of one socket with one system call. The
// zero Outbox is empty. It belongs to one goroutine.
type Outbox struct {
	mail []parcel
	mark uint32
	msgs []mmsghdr // of one socket
	told []Sender  // of each
}

// Sender is told why what it added to an Outbox cannot be sent.
type Sender interface{ Lost(err error) }

// parcel is a packet that waits in an Outbox.
type parcel struct {
	from *Handle
	hdr  unix.Msghdr // without the packet
	iov  unix.Iovec
	by   Sender // may be nil
}

// Add has msg sent to the peer of a connected socket. It must have at least one
// octet and stay as it is until Send. by, if not nil, is told what Send fails with.
// That there is no room for the packet now is no failure: it is lost, like any.
func (o *Outbox) Add(from *Handle, msg []byte, by Sender) { o.add(from, unix.Msghdr{}, msg, by) }

func (o *Outbox) add(from *Handle, hdr unix.Msghdr, msg []byte, by Sender) {
	o.mail = append(o.mail, parcel{from: from, hdr: hdr, iov: unix.Iovec{Base: &msg[0]}, by: by})
	o.mail[len(o.mail)-1].iov.SetLen(len(msg))
}

// Mark is a random number that stays the same until Send, for who has a choice of
// sockets: packets that take the same one leave together.
func (o *Outbox) Mark() uint32 {
	if len(o.mail) == 0 {
		o.mark = rand.Uint32()
	}
	return o.mark
}

// Send sends what has been added, without waiting. Nothing may be added while a
// Sender is told of something.
func (o *Outbox) Send() {
	for i := range o.mail {
		if from := o.mail[i].from; from != nil {
			o.gather(from, o.mail[i:])
			o.send(from)
		}
	}
	clear(o.mail)
	o.mail = o.mail[:0]
}

// gather takes from mail what one socket is to send.
func (o *Outbox) gather(from *Handle, mail []parcel) {
	o.msgs, o.told = o.msgs[:0], o.told[:0]
	for i := range mail {
		p := &mail[i]
		if p.from != from {
			continue
		}
		p.from = nil
		p.hdr.Iov = &p.iov
		p.hdr.SetIovlen(1)
		o.msgs, o.told = append(o.msgs, mmsghdr{hdr: p.hdr}), append(o.told, p.by)
	}
}

// send sends what has been gathered.
func (o *Outbox) send(from *Handle) {
	for at := 0; at < len(o.msgs); {
		var n int
		var err error = net.ErrClosed
		from.Use(func(fd int) { n, err = sendmmsg(fd, o.msgs[at:min(at+atOnce, len(o.msgs))], true) })
		if at += n; err == nil {
			continue
		}
		// The first of them is what cannot be sent.
		if by := o.told[at]; by != nil && err != unix.EAGAIN {
			by.Lost(err)
		}
		at++
	}
	clear(o.msgs)
	clear(o.told)
}

// atOnce is how many packets one system call sends at most: some 50 µs, for which
// the collector may have to wait. Telling the scheduler of each call costs more than
// a twentieth of what a forwarded question does.
const atOnce = 16

// sendmmsg sends msgs, or the first of them, without waiting and, if quietly, without
// telling the scheduler. An error is about the first.
func sendmmsg(fd int, msgs []mmsghdr, quietly bool) (int, error) {
	for {
		var n uintptr
		var errno syscall.Errno
		if quietly {
			n, _, errno = syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
		} else {
			n, _, errno = syscall.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
		}
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
