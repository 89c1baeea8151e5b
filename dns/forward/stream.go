package forward

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// queued is how many questions may wait for a stream to be written to.
const queued = 256

// streamIdle is how long a stream without questions stays open: long enough to
// spare handshakes, shorter than what servers put up with.
const streamIdle = 8 * time.Second

var (
	errBusy    = errors.New("too much is waiting for the connection")
	errStopped = errors.New("the resolver is not running")
)

// stream asks one upstream over one TCP or TLS connection, many questions at a
// time and answers in any order (RFC 7766, RFC 7858). The connection is made
// when there is something to ask. It is safe for concurrent use.
type stream struct {
	up *upstream
	r  *Resolver

	mu      sync.Mutex  // guards the following
	queue   chan []byte // nil while there is no connection
	pending map[uint16]*attempt
}

// send asks a. It never waits for the network.
func (s *stream) send(a *attempt, msg []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue == nil {
		queue := make(chan []byte, queued)
		if !s.r.goes(func() { s.run(queue) }) {
			return errStopped
		}
		s.queue, s.pending = queue, map[uint16]*attempt{}
	}
	for s.pending[a.id] != nil {
		a.id++
	}
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg)))
	framed = append(framed, msg...)
	binary.BigEndian.PutUint16(framed[2:], a.id)
	select {
	case s.queue <- framed:
		s.pending[a.id] = a
		return nil
	default:
		return errBusy
	}
}

// run makes a connection and writes what is queued until it ends or idles.
func (s *stream) run(queue chan []byte) {
	conn, err := s.dial()
	if err != nil {
		s.end(queue, time.Now(), err)
		return
	}
	stop := context.AfterFunc(s.r.ctx, func() { _ = conn.Close() })
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.read(conn) }()
	err = s.write(conn, queue, done)
	_ = conn.Close()
	s.end(queue, time.Now(), err)
}

// write writes until the reader has ended, and returns why, or the connection
// idles. It waits for the reader.
func (s *stream) write(conn net.Conn, queue chan []byte, done chan error) error {
	idle := time.NewTicker(streamIdle)
	defer idle.Stop()
	wrote := false
	for {
		select {
		case err := <-done:
			return err
		case msg := <-queue:
			wrote = true
			_ = conn.SetWriteDeadline(time.Now().Add(s.r.config().AttemptTimeout))
			if _, err := conn.Write(msg); err != nil {
				_ = conn.Close()
				<-done
				return err
			}
		case <-idle.C:
			if !wrote && s.release(queue) {
				_ = conn.Close()
				<-done
				return nil
			}
			wrote = false
		}
	}
}

// release lets go of the connection if nothing waits for it, and reports whether
// it did.
func (s *stream) release(queue chan []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) > 0 || len(queue) > 0 {
		return false
	}
	s.queue = nil
	return true
}

func (s *stream) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.r.ctx, s.r.config().Timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.up.Addr.String())
	if err != nil || s.up.TLSName == "" {
		return conn, err
	}
	secure := tls.Client(conn, &tls.Config{ServerName: s.up.TLSName, RootCAs: s.r.now.Load().roots, MinVersion: tls.VersionTLS12})
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// read delivers answers until the connection ends.
func (s *stream) read(conn net.Conn) error {
	var size [2]byte
	var buf []byte
	for {
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		if _, err := io.ReadFull(conn, buf[:n]); err != nil {
			return err
		}
		s.deliver(buf[:n])
	}
}

func (s *stream) deliver(msg []byte) {
	if len(msg) < headerSize || msg[2]&0x80 == 0 {
		return
	}
	id := binary.BigEndian.Uint16(msg)
	s.mu.Lock()
	a := s.pending[id]
	delete(s.pending, id)
	s.mu.Unlock()
	if a == nil {
		return
	}
	switch a.match(msg) {
	case matchExact:
	case matchFolded:
		s.up.noteFolding() // nobody else can have sent this
	case matchNone:
		a.failed(time.Now(), fmt.Errorf("answers another question than was asked"), nil)
		return
	}
	a.answered(time.Now(), msg, nil)
}

// end fails what waits: the connection is gone. The next question makes another.
func (s *stream) end(queue chan []byte, now time.Time, err error) {
	var lost map[uint16]*attempt
	s.mu.Lock()
	if s.queue == queue {
		lost = s.pending
		s.queue, s.pending = nil, nil
	}
	s.mu.Unlock()
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	for _, a := range lost {
		a.failed(now, err, nil)
	}
}

func (s *stream) sweep(now time.Time) {
	var lost []*attempt
	s.mu.Lock()
	for id, a := range s.pending {
		if now.Sub(a.sent) > s.r.config().Timeout {
			delete(s.pending, id)
			lost = append(lost, a)
		}
	}
	s.mu.Unlock()
	for _, a := range lost {
		a.failed(now, errTimeout, nil)
	}
}
