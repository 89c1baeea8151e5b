package forward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dns/wire"
)

// socketAge is how long a socket, and so its port, is used.
const socketAge = time.Minute

// pool is the UDP sockets to one upstream. They are connected, so that the
// kernel drops what comes from anybody else. It is safe for concurrent use.
type pool struct {
	up *upstream
	r  *Resolver

	mu      sync.Mutex // guards the following
	sockets []*socket  // nil where there is none yet; none once closed
	retired []*socket  // get no more questions
}

// socket is one of a pool's. The resolver's listener reads it; reading and
// writing never wait.
type socket struct {
	*wire.Handle
	tag    int32 // by which the listener knows it
	pool   *pool
	retire time.Time

	mu      sync.Mutex // guards the following
	pending map[uint16]*attempt
}

// send puts the question of a, which is msg, into out. What is sent together goes
// by the same socket.
func (p *pool) send(out *wire.Outbox, a *attempt, msg []byte) error {
	s, err := p.pick(int(out.Mark()>>1), a.sent)
	if err != nil {
		return err
	}
	a.socket = s
	s.mu.Lock()
	for s.pending[a.id] != nil { // taken: a few tries, since the table is mostly empty
		a.id++
	}
	binary.BigEndian.PutUint16(msg, a.id)
	s.pending[a.id] = a
	s.mu.Unlock()
	out.Add(s.Handle, msg, a)
	return nil
}

// Lost implements wire.Sender.
func (a *attempt) Lost(err error) {
	if a.socket.forget(a) {
		a.failed(time.Now(), err, nil)
	}
}

// close closes the socket once nobody uses it.
func (s *socket) close() {
	s.pool.r.listener.forget(s)
	_ = s.Close() // it has nothing to lose
}

// pick returns the socket for dice if it may still be used, and opens one where
// it must.
func (p *pool) pick(dice int, now time.Time) (*socket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sockets) == 0 {
		return nil, errStopped
	}
	i := dice % len(p.sockets)
	if s := p.sockets[i]; s != nil {
		if now.Before(s.retire) {
			return s, nil
		}
		p.retired = append(p.retired, s)
		p.sockets[i] = nil
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.up.Addr))
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	s := &socket{pool: p, retire: now.Add(socketAge), pending: map[uint16]*attempt{}}
	if s.Handle, err = wire.Detach(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := p.r.listener.add(s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	p.sockets[i] = s
	return s, nil
}

// forget takes a back and reports whether it was there.
func (s *socket) forget(a *attempt) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending[a.id] != a {
		return false
	}
	delete(s.pending, a.id)
	return true
}

// drain delivers what is there. What comes of it is left in out, but for what
// there is no end of.
func (s *socket) drain(in *wire.Inbox, out *wire.Outbox) {
	for {
		n, errno := in.Receive(s.Handle)
		now := time.Now()
		switch errno {
		case 0:
			for i := range n {
				s.deliver(now, in.Packet(i), out)
			}
			if n < wire.BatchSize {
				return
			}
			out.Send()
		case unix.EINTR:
		case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH:
			// ICMP does not say which question it is about.
			s.fail(now, errno, out)
		case unix.EAGAIN, unix.EBADF:
			return
		default:
			s.fail(now, errno, out)
			return
		}
	}
}

// fail fails all that waits for an answer.
func (s *socket) fail(now time.Time, err error, out *wire.Outbox) {
	s.mu.Lock()
	lost := s.pending
	s.pending = map[uint16]*attempt{}
	s.mu.Unlock()
	for _, a := range lost {
		a.failed(now, err, out)
	}
}

// sweep fails what has waited for too long, and reports whether nothing waits
// any more.
func (s *socket) sweep(now time.Time) (idle bool) {
	var lost []*attempt
	s.mu.Lock()
	for id, a := range s.pending {
		if now.Sub(a.sent) > s.pool.r.config().AttemptTimeout {
			delete(s.pending, id)
			lost = append(lost, a)
		}
	}
	idle = len(s.pending) == 0
	s.mu.Unlock()
	for _, a := range lost {
		a.failed(now, errTimeout, nil)
	}
	return idle
}

// sweep sweeps all sockets and closes those that have had their time.
func (p *pool) sweep(now time.Time) {
	p.mu.Lock()
	sockets, retired := slices.Clone(p.sockets), slices.Clone(p.retired)
	p.mu.Unlock()
	for _, s := range sockets {
		if s != nil {
			s.sweep(now)
		}
	}
	for _, s := range retired {
		if s.sweep(now) {
			s.close()
			p.mu.Lock()
			p.retired = slices.DeleteFunc(p.retired, func(r *socket) bool { return r == s })
			p.mu.Unlock()
		}
	}
}

// open returns how many sockets there are.
func (p *pool) open() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sockets {
		if s != nil {
			n++
		}
	}
	return n
}

// close ends all sockets. What waits is failed by who closes.
func (p *pool) close() {
	p.mu.Lock()
	sockets := append(p.sockets, p.retired...)
	p.sockets, p.retired = nil, nil
	p.mu.Unlock()
	for _, s := range sockets {
		if s != nil {
			s.close()
		}
	}
}

// deliver hands a message to whom it answers. The id, the port and the address
// must be right, and the question that of ours to the letter case; everything
// else is somebody's guess and is dropped.
func (s *socket) deliver(now time.Time, msg []byte, out *wire.Outbox) {
	if len(msg) < headerSize || msg[2]&0x80 == 0 {
		return
	}
	id := binary.BigEndian.Uint16(msg)
	s.mu.Lock()
	a := s.pending[id]
	match := matchNone
	if a != nil {
		if match = a.match(msg); match == matchExact {
			delete(s.pending, id)
		}
	}
	s.mu.Unlock()
	switch match {
	case matchExact:
		a.answered(now, msg, out)
	case matchFolded:
		// Either the upstream does not keep letter case or somebody guesses.
		// Over TCP nobody can.
		s.pool.r.metrics.spoofed.Inc()
		a.recheck(out)
	case matchNone:
		s.pool.r.metrics.spoofed.Inc()
	}
}

type match int

const (
	matchNone match = iota
	matchFolded
	matchExact
)

// match says how the question of msg compares with the one that was asked. An
// answer that is an error may leave the question out.
func (a *attempt) match(msg []byte) match {
	end := headerSize + len(a.question)
	if binary.BigEndian.Uint16(msg[4:]) == 0 && len(msg) == headerSize && msg[3]&0xf != 0 {
		return matchExact
	}
	if binary.BigEndian.Uint16(msg[4:]) != 1 || len(msg) < end {
		return matchNone
	}
	got := msg[headerSize:end]
	if bytes.Equal(got, a.question) {
		return matchExact
	}
	// Only the name folds: a type is a number, even where it looks like 'A'.
	n := len(a.question) - 4
	if bytes.EqualFold(got[:n], a.question[:n]) && bytes.Equal(got[n:], a.question[n:]) {
		return matchFolded
	}
	return matchNone
}
