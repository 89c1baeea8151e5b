package dns

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// numbered returns a query with the id n.
func numbered(t testing.TB, n int, name string) []byte {
	t.Helper()
	return pack(t, ask(name, dns.TypeA, func(q *dns.Msg) { q.Id = uint16(n) }))
}

// readReply returns the next reply on a TCP connection.
func readReply(t testing.TB, conn net.Conn) *dns.Msg {
	t.Helper()
	raw, err := readFrame(conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, raw)
}

// assertAnswers checks that the server answers another client.
func assertAnswers(t testing.TB, s *Server) {
	t.Helper()
	conn := dial(t, protoTCP, s.Addrs()[0])
	if _, err := conn.Write(frame(numbered(t, 7, nameA))); err != nil {
		t.Fatal(err)
	}
	if r := readReply(t, conn); r.Id != 7 || len(r.Answer) != 1 {
		t.Errorf("got %v", r)
	}
}

// assertClosed checks that the server closes a connection.
func assertClosed(t testing.TB, conn net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, conn); err != nil && !isReset(err) || n != 0 {
		t.Errorf("%d octets and %v instead of the end", n, err)
	}
}

// isReset reports whether the other side closed with data of ours unread.
func isReset(err error) bool {
	var ne net.Error
	return err != nil && !(errors.As(err, &ne) && ne.Timeout())
}

func TestTCPConnections(t *testing.T) {
	z := testZone()
	s := serve(t, DefaultServerConfig(), func() *Zone { return z }, nil)

	t.Run("fifty queries in one write are answered in order", func(t *testing.T) {
		conn := dial(t, protoTCP, s.Addrs()[0])
		var all []byte
		for i := range 50 {
			all = append(all, frame(numbered(t, i, nameA))...)
		}
		if _, err := conn.Write(all); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if r := readReply(t, conn); int(r.Id) != i || len(r.Answer) != 1 {
				t.Fatalf("reply %d is %v", i, r)
			}
		}
	})

	t.Run("a query may come byte by byte, and another after it", func(t *testing.T) {
		conn := dial(t, protoTCP, s.Addrs()[0])
		for i := range 2 {
			for _, b := range frame(numbered(t, i, nameA)) {
				if _, err := conn.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			if r := readReply(t, conn); int(r.Id) != i {
				t.Errorf("got %v", r)
			}
		}
	})

	t.Run("an answer arrives after the client has stopped sending", func(t *testing.T) {
		conn := dial(t, protoTCP, s.Addrs()[0])
		if _, err := conn.Write(frame(numbered(t, 9, nameA))); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if r := readReply(t, conn); r.Id != 9 {
			t.Errorf("got %v", r)
		}
		assertClosed(t, conn)
	})

	for name, junk := range map[string][]byte{
		"a frame of no length":    {0, 0},
		"a frame of three octets": {0, 3, 1, 2, 3},
		"a response":              frame(setByte(numbered(t, 1, nameA), 2, 0x81)),
	} {
		t.Run(name+" ends the connection, and no other", func(t *testing.T) {
			conn := dial(t, protoTCP, s.Addrs()[0])
			if _, err := conn.Write(junk); err != nil {
				t.Fatal(err)
			}
			assertClosed(t, conn)
			assertAnswers(t, s)
		})
	}

	t.Run("forty silent connections do not keep others out", func(t *testing.T) {
		for range 40 {
			dial(t, protoTCP, s.Addrs()[0])
		}
		cut := dial(t, protoTCP, s.Addrs()[0])
		if _, err := cut.Write([]byte{0, 40, 1}); err != nil {
			t.Fatal(err)
		}
		assertAnswers(t, s)
	})
}

func TestASilentConnectionIsClosed(t *testing.T) {
	z := testZone()
	cfg := DefaultServerConfig()
	cfg.Idle = 20 * time.Millisecond
	s := serve(t, cfg, func() *Zone { return z }, nil)
	assertClosed(t, dial(t, protoTCP, s.Addrs()[0]))
	half := dial(t, protoTCP, s.Addrs()[0])
	if _, err := half.Write([]byte{0, 40, 1}); err != nil {
		t.Fatal(err)
	}
	assertClosed(t, half)
}

func TestConnectionsAreLimited(t *testing.T) {
	z := testZone()
	cfg := DefaultServerConfig()
	cfg.Connections = 2
	s := serve(t, cfg, func() *Zone { return z }, nil)
	var open []net.Conn
	for i := range 2 {
		conn := dial(t, protoTCP, s.Addrs()[0])
		if _, err := conn.Write(frame(numbered(t, i, nameA))); err != nil {
			t.Fatal(err)
		}
		readReply(t, conn)
		open = append(open, conn)
	}
	assertClosed(t, dial(t, protoTCP, s.Addrs()[0]))
	if got := testutil.ToFloat64(s.metrics.refused); got != 1 {
		t.Errorf("%v connections refused", got)
	}
	if got := testutil.ToFloat64(s.metrics.conns); got != 2 {
		t.Errorf("%v connections open", got)
	}
	_ = open[0].Close()
	for deadline := time.Now().Add(patience); testutil.ToFloat64(s.metrics.conns) != 1; {
		if time.Now().After(deadline) {
			t.Fatal("a closed connection keeps its place")
		}
		<-time.After(time.Millisecond)
	}
	assertAnswers(t, s)
}

func TestQueriesInFlightFromOneUDPSocket(t *testing.T) {
	z := testZone()
	s := serve(t, DefaultServerConfig(), func() *Zone { return z }, nil)
	conn := dial(t, protoUDP, s.Addrs()[0])
	for i := range 200 {
		name := nameA
		if i%2 == 1 {
			name = nameNX
		}
		if _, err := conn.Write(numbered(t, i, name)); err != nil {
			t.Fatal(err)
		}
	}
	var ids []int
	buf := make([]byte, maxUDP)
	for range 200 {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		r := unpack(t, buf[:n])
		if want := []string{nameA, nameNX}[r.Id%2]; r.Question[0].Name != want {
			t.Errorf("%d is answered about %s", r.Id, r.Question[0].Name)
		}
		ids = append(ids, int(binary.BigEndian.Uint16(buf)))
	}
	slices.Sort(ids)
	for i, id := range ids {
		if id != i {
			t.Fatalf("ids are %v", ids)
		}
	}
}
