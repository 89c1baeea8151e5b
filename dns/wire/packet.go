package wire

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Room returns where to put the reply to packet i.
func (s *Socket) Room(i int) []byte { return s.out[i][:0] }

// Client returns who sent packet i.
func (s *Socket) Client(i int) netip.AddrPort { return addrPort(s.names[i][:s.msgs[i].hdr.Namelen]) }

// Destination returns the address that packet i was sent to, where the Socket has
// been told to look, else the zero Addr.
func (s *Socket) Destination(i int) netip.Addr {
	if !s.control {
		return netip.Addr{}
	}
	return destination(s.controls[i][:s.msgs[i].hdr.Controllen])
}

// destination returns the address in the first control message, IP_PKTINFO or
// IPV6_PKTINFO.
func destination(control []byte) netip.Addr {
	if len(control) < unix.SizeofCmsghdr {
		return netip.Addr{}
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	switch data := control[unix.CmsgLen(0):]; {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= 12:
		return netip.AddrFrom4([4]byte(data[8:12])) // in_pktinfo ends with it
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= 16:
		return netip.AddrFrom16([16]byte(data[:16])).Unmap() // in6_pktinfo starts with it
	}
	return netip.Addr{}
}

// addrPort reads a struct sockaddr_in or sockaddr_in6, the zero AddrPort from
// anything else. An IPv4 address that an IPv6 socket shows is that address.
func addrPort(sockaddr []byte) netip.AddrPort {
	if len(sockaddr) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(sockaddr[2:])
	switch family := binary.NativeEndian.Uint16(sockaddr); {
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(sockaddr[4:8])), port)
	case family == unix.AF_INET6 && len(sockaddr) >= unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(sockaddr[8:24])).Unmap(), port)
	}
	return netip.AddrPort{}
}

// Reply queues reply as the answer to packet i. It must stay as it is until
// Send, and have at least one octet.
func (s *Socket) Reply(i int, reply []byte) {
	from, to := &s.msgs[i].hdr, &s.replies[s.queued].hdr
	s.outIovs[s.queued].Base = &reply[0]
	s.outIovs[s.queued].SetLen(len(reply))
	to.Name, to.Namelen = from.Name, from.Namelen
	if s.control {
		control := s.controls[i][:from.Controllen]
		FromDestination(control)
		to.Control, to.Controllen = from.Control, from.Controllen
	}
	s.queued++
}

// Send sends what is queued. What cannot be sent is lost, like any packet.
func (s *Socket) Send() {
	for at := 0; at < s.queued; {
		// One takes no longer than telling the scheduler of it is worth.
		n, err := sendmmsg(s.fd, s.replies[at:s.queued], s.queued-at == 1)
		if err != nil {
			n = 1 // the first of them is what cannot be sent
		}
		at += n
	}
	s.queued = 0
}

// FromDestination turns a received control message into the one that sends from
// the same address. They have one form; only the interface is taken out, so
// that the reply is routed and need not leave where the query came in.
func FromDestination(control []byte) {
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(control) {
			return
		}
		switch data := control[unix.CmsgLen(0):size]; {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= 4:
			clear(data[:4]) // in_pktinfo starts with the interface
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= 20:
			clear(data[16:20]) // in6_pktinfo ends with it
		}
		control = control[min(len(control), unix.CmsgSpace(size-unix.CmsgLen(0))):]
	}
}

// Letter is a packet that is answered later, from any goroutine.
type Letter struct {
	Packet []byte
	Client netip.AddrPort

	socket      *Socket
	nameSize    uint32
	controlSize int
	name        [sockaddrMax]byte
	control     [controlMax]byte
}

// Take copies packet i out of the Socket.
func (s *Socket) Take(i int) *Letter {
	h := &s.msgs[i].hdr
	l := &Letter{Packet: slices.Clone(s.Packet(i)), Client: s.Client(i), socket: s, nameSize: h.Namelen, name: s.names[i]}
	if s.control {
		l.controlSize, l.control = int(h.Controllen), s.controls[i]
		FromDestination(l.control[:l.controlSize])
	}
	return l
}

// Reply adds the answer to out, for which it must stay as it is until out is sent;
// without out it is sent at once. Once the Socket is closed nothing happens.
func (l *Letter) Reply(out *Outbox, reply []byte) {
	if len(reply) == 0 || l.nameSize == 0 {
		return
	}
	if out == nil {
		out = &Outbox{}
		defer out.Send()
	}
	h := unix.Msghdr{Name: &l.name[0], Namelen: l.nameSize}
	if l.controlSize > 0 {
		h.Control = &l.control[0]
		h.SetControllen(l.controlSize)
	}
	out.add(l.socket.Handle, h, reply, nil)
}

// Borrow says that other processes hold the socket too, as those do that a
// service manager hands out: Shut then leaves it as it is, so what is not read
// waits for the next who reads, and ends the wait within 100 ms.
func (s *Socket) Borrow() { s.borrowed = true }

// Shut makes Receive return ErrClosed once it has returned what has come so far.
// What comes later goes to others with the same address, if there are any.
func (s *Socket) Shut() {
	if s.closing.Swap(true) || s.borrowed {
		return
	}
	// A socket with a peer gets nothing from others (Linux 5.3). Who that is does
	// not matter: its own address is always in reach.
	const discard = 9
	if peer, err := unix.Getsockname(s.fd); err == nil {
		switch peer := peer.(type) {
		case *unix.SockaddrInet4:
			peer.Port = discard
		case *unix.SockaddrInet6:
			peer.Port = discard
		}
		_ = unix.Connect(s.fd, peer)
	}
	_ = unix.Shutdown(s.fd, unix.SHUT_RD) // ends the wait
}
