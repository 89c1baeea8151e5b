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

	"go.uber.org/zap"
)

const protoTCP = "tcp"

func tcpNetwork(addr netip.AddrPort) string {
	if addr.Addr().Is6() {
		return "tcp"
	}
	return "tcp4"
}

// serveTCP accepts connections until l is closed, then waits for them to end.
func (s *Server) serveTCP(ctx context.Context, l *net.TCPListener) error {
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
		select {
		case s.slots <- struct{}{}:
			conns.Go(func() {
				s.metrics.conns.Inc()
				s.serveConn(ctx, conn)
				<-s.slots
				s.metrics.conns.Dec()
			})
		default:
			s.metrics.refused.Inc()
			_ = conn.Close()
		}
	}
}

// serveConn answers the queries on conn in order, as many as the client sends
// (RFC 7766 section 6.2.1), until it stays silent or sends no DNS message.
func (s *Server) serveConn(ctx context.Context, conn *net.TCPConn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	in := bufio.NewReader(conn)
	client := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	r := responder{s: s, proto: protoTCP}
	var frame, room []byte
	for {
		if err := conn.SetDeadline(time.Now().Add(s.cfg.Idle)); err != nil {
			return
		}
		var err error
		if frame, err = readFrame(in, frame); err != nil {
			return
		}
		// One write, so that length and message are not two packets.
		out, later := r.answer(room[:0], frame, client)
		if later {
			out = s.handle(frame, protoTCP)
		}
		if out == nil {
			return
		}
		room = out
		sized := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(out)), uint16(len(out)))
		if _, err := conn.Write(append(sized, out...)); err != nil {
			s.log.Debug("write DNS answer", zap.Stringer("client", client), zap.Error(err))
			return
		}
	}
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
