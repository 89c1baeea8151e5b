package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/dns/wire"
)

const protoTCP = "tcp"

func tcpNetwork(addr netip.AddrPort) string {
	if addr.Addr().Is6() {
		return "tcp"
	}
	return "tcp4"
}

// serveTCP accepts connections until l is closed, then waits for them to end.
func (s *Server) serveTCP(ctx context.Context, l *net.TCPListener, t *tally) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			if s.ended(ctx, "accept TCP", err) {
				return nil
			}
			continue
		}
		client := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		if !s.gate.conns.Take(client.Addr()) {
			s.metrics.refused.Inc()
			_ = conn.Close()
			continue
		}
		conns.Go(func() {
			s.metrics.conns.Inc()
			s.serveConn(ctx, conn, client, t)
			s.gate.conns.Release(client.Addr())
			s.metrics.conns.Dec()
		})
	}
}

// idle is how long a connection may go without a query now.
func (s *Server) idle() time.Duration {
	if s.gate.conns.Crowded() {
		return s.cfg.Idle / 10
	}
	return s.cfg.Idle
}

// serveConn answers the queries on conn in order, as many as the client sends
// (RFC 7766 section 6.2.1), until it stays silent or sends no DNS message. One
// query is in work at a time, so a client that does not read its answers fills
// its own buffers only.
func (s *Server) serveConn(ctx context.Context, conn *net.TCPConn, client netip.AddrPort, t *tally) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	in := bufio.NewReader(conn)
	out := &patient{conn, s.cfg.Idle}
	r := newResponder(s, t, 1)
	var frame, room []byte
	for {
		if err := conn.SetReadDeadline(time.Now().Add(s.idle())); err != nil {
			return
		}
		var err error
		if frame, err = readFrame(in, frame); err != nil {
			return
		}
		reply, by := r.answerNow(room[:0], frame, client)
		done := false
		switch {
		case by == wire.Foreign:
			reply = s.await(ctx, frame, client, t, s.forward)
		case by == wire.Slow:
			done, err = s.transfer(frame, client, out, t)
			switch {
			case done:
			case s.forwards(frame):
				reply = s.await(ctx, frame, client, t, s.forward)
			default:
				reply = s.await(ctx, frame, client, t, s.handle)
			}
		}
		if !done {
			if reply == nil {
				return
			}
			room = reply
			err = writeFrame(out, reply)
		}
		if err != nil {
			s.log.Debug("write DNS answer", zap.Stringer("client", client), zap.Error(err))
			return
		}
	}
}

// patient gives each write its own time.
type patient struct {
	*net.TCPConn
	idle time.Duration
}

// Write writes b within that time.
func (p *patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(p.idle)); err != nil {
		return 0, err
	}
	return p.TCPConn.Write(b)
}

// transfer answers packet if that asks for a zone which client may have.
func (s *Server) transfer(packet []byte, client netip.AddrPort, out io.Writer, t *tally) (done bool, err error) {
	if !s.gate.transfers(client.Addr()) {
		return false, nil
	}
	q, z := asksTransfer(packet), s.zone()
	if q == nil || z == nil {
		return false, nil
	}
	start := time.Now()
	known, err := transfer(z, q, out)
	if known {
		t.answer(zoneNumber(z, q), q.Question[0].Qtype, dns.RcodeSuccess, 1)
		t.observe(time.Since(start), 1)
		s.log.Info("zone transferred", zap.Stringer("client", client), zap.String("zone", q.Question[0].Name), zap.Error(err))
	}
	return known, err
}

// readFrame reads one message behind its length, into buf if that is large
// enough.
func readFrame(in io.Reader, buf []byte) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return buf, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err := io.ReadFull(in, buf[:n])
	return buf[:n], err
}
