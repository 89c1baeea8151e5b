package dnscheck

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

func streamChecks() []Check {
	stream := func(id, rfc, says string, session func(*Peer, Transport) error) Check {
		return Check{ID: id, RFC: rfc, Says: says, only: TCP, session: session}
	}
	return []Check{
		stream("tcp-bytes", "7766 8", "a query sent octet by octet is answered", inPieces(1)),
		stream("tcp-pieces", "7766 8", "a query in pieces of three octets is answered", inPieces(3)),
		stream("tcp-pipeline", "7766 6.2.1.1", "fifty queries in one write get fifty answers, each id once", pipelined(50, host(typeA))),
		stream("tcp-pipeline-large", "7766 6.2.1.1", "twenty queries for a large set in one write are all answered", pipelined(20, big())),
		stream("tcp-reuse", "7766 6.2.1", "a connection takes a second query after a while", reused(300*time.Millisecond)),
		stream("tcp-mixed", "7766 6.2.1.1", "hits, misses and refusals on one connection are each answered", mixedStream),
		stream("tcp-half-close", "7766 6.2.4, 9210", "an answer arrives after the client has stopped sending", halfClosed),
		stream("tcp-zero", "7766 8", "a message of no octets does not hurt others", junk([]byte{0, 0})),
		stream("tcp-three", "7766 8", "a message of three octets does not hurt others", junk([]byte{0, 3, 1, 2, 3})),
		stream("tcp-cut", "7766 8", "a message that is cut does not hurt others", junk([]byte{0, 40, 1, 2, 3})),
		stream("tcp-length-only", "7766 8", "half a length does not hurt others", junk([]byte{0})),
		stream("tcp-noise", "7766 8", "noise does not hurt others", junk(bytes.Repeat([]byte{0xa5, 0x5a, 0xff}, 4000))),
		stream("tcp-many", "7766 6.2.2, 9210 4", "forty idle connections do not keep another out", crowded),
		stream("tcp-abort", "7766 6.2.4", "clients that reset their connections do not hurt", aborted),
		stream("tcp-segment", "7766 8", "an answer's length and message come in one segment", oneSegment),
	}
}

// onStream runs a session on a connection of its own.
func onStream(p *Peer, do func(net.Conn) error) error {
	conn, err := dial(p, TCP)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(conn)
}

// reply reads the next message and checks it.
func reply(conn net.Conn, query []byte, w want) error {
	raw, err := readFrame(conn)
	if err != nil {
		return err
	}
	r, err := Parse(raw)
	if err == nil {
		err = sameExchange(query, r)
	}
	if err == nil {
		err = w(query, r)
	}
	return err
}

func inPieces(size int) func(*Peer, Transport) error {
	return func(p *Peer, _ Transport) error {
		return onStream(p, func(conn net.Conn) error {
			query := host(typeA)(p.Names)
			for rest := frame(query); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				if _, err := conn.Write(rest[:min(size, len(rest))]); err != nil {
					return err
				}
			}
			return reply(conn, query, isAnswer)
		})
	}
}

func pipelined(n int, query func(Names) []byte) func(*Peer, Transport) error {
	return func(p *Peer, _ Transport) error {
		return onStream(p, func(conn net.Conn) error {
			var out []byte
			for i := range n {
				out = append(out, frame(id(uint16(i))(query(p.Names)))...)
			}
			if _, err := conn.Write(out); err != nil {
				return err
			}
			seen := map[uint16]bool{}
			for range n {
				raw, err := readFrame(conn)
				if err != nil {
					return fmt.Errorf("after %d replies: %w", len(seen), err)
				}
				r, err := Parse(raw)
				if err != nil {
					return err
				}
				if r.ID >= uint16(n) || seen[r.ID] || len(r.Answer) == 0 {
					return fmt.Errorf("reply %x", raw)
				}
				seen[r.ID] = true
			}
			return nil
		})
	}
}

func reused(after time.Duration) func(*Peer, Transport) error {
	return func(p *Peer, _ Transport) error {
		return onStream(p, func(conn net.Conn) error {
			query := host(typeA)(p.Names)
			for range 2 {
				if _, err := conn.Write(frame(query)); err != nil {
					return err
				}
				if err := reply(conn, query, isAnswer); err != nil {
					return err
				}
				<-time.After(after)
			}
			return nil
		})
	}
}

func mixedStream(p *Peer, _ Transport) error {
	return onStream(p, func(conn net.Conn) error {
		for i, c := range []struct {
			query func(Names) []byte
			want  want
		}{
			{host(typeA), isAnswer}, {missing(typeA), isNXDomain}, {host(65280), isNoData},
			{big(), atLeast(200)}, {fixed(wire("www.example.org."), typeA), notOurs}, {host(typeA), isAnswer},
		} {
			query := c.query(p.Names)
			if _, err := conn.Write(frame(query)); err != nil {
				return err
			}
			if err := reply(conn, query, c.want); err != nil {
				return fmt.Errorf("query %d: %w", i, err)
			}
		}
		return nil
	})
}

func halfClosed(p *Peer, _ Transport) error {
	return onStream(p, func(conn net.Conn) error {
		query := host(typeA)(p.Names)
		if _, err := conn.Write(frame(query)); err != nil {
			return err
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		return reply(conn, query, isAnswer)
	})
}

// junk sends data on a connection that stays open while others are served.
func junk(data []byte) func(*Peer, Transport) error {
	return func(p *Peer, _ Transport) error {
		return onStream(p, func(conn net.Conn) error {
			if _, err := conn.Write(data); err != nil {
				return err
			}
			return p.alive()
		})
	}
}

func crowded(p *Peer, _ Transport) error {
	for range 40 {
		conn, err := dial(p, TCP)
		if err != nil {
			return err
		}
		defer conn.Close()
	}
	return p.alive()
}

func aborted(p *Peer, _ Transport) error {
	for range 20 {
		err := onStream(p, func(conn net.Conn) error {
			if _, err := conn.Write(frame(big()(p.Names))); err != nil {
				return err
			}
			return conn.(*net.TCPConn).SetLinger(0)
		})
		if err != nil {
			return err
		}
	}
	return p.alive()
}

func oneSegment(p *Peer, _ Transport) error {
	return onStream(p, func(conn net.Conn) error {
		if _, err := conn.Write(frame(host(typeA)(p.Names))); err != nil {
			return err
		}
		buf := make([]byte, 65535)
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if n < 2 || n != 2+int(be16(buf)) {
			return fmt.Errorf("first %d octets of a message of %d", n, be16(buf))
		}
		return nil
	})
}

func idleCheck() Check {
	return Check{ID: "tcp-idle", RFC: "7766 6.2.3", Says: "an idle connection is closed", only: TCP, session: func(p *Peer, _ Transport) error {
		return onStream(p, func(conn net.Conn) error {
			if err := conn.SetDeadline(time.Now().Add(p.Idle + patience)); err != nil {
				return err
			}
			_, err := conn.Read(make([]byte, 1))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.New("it stays open")
			}
			return nil
		})
	}}
}

func floodChecks() []Check {
	return []Check{
		{ID: "parallel", RFC: "1035 4.2.1", Says: "200 queries from one socket are each answered once", only: UDP, session: parallel},
		{ID: "duplicates", RFC: "1035 4.2.1", Says: "the same query twice gets two answers", only: UDP, session: duplicates},
	}
}

// parallel sends queries at random for two names; each reply must be about the
// name that was asked under its id.
func parallel(p *Peer, _ Transport) error {
	conn, err := dial(p, UDP)
	if err != nil {
		return err
	}
	defer conn.Close()
	pending := map[uint16][]byte{}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range uint16(200) {
		query := host(typeA, id(i))(p.Names)
		if rng.IntN(2) == 0 {
			query = missing(typeA, id(i))(p.Names)
		}
		pending[i] = query
		if _, err := conn.Write(query); err != nil {
			return err
		}
	}
	buf := make([]byte, 65535)
	for len(pending) > 0 {
		n, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("%d without a reply: %w", len(pending), err)
		}
		r, err := Parse(buf[:n])
		if err != nil {
			return err
		}
		query := pending[r.ID]
		if query == nil {
			return fmt.Errorf("a reply with id %d that nobody waits for", r.ID)
		}
		if err := echoed(query, r); err != nil {
			return err
		}
		delete(pending, r.ID)
	}
	return nil
}

func duplicates(p *Peer, _ Transport) error {
	conn, err := dial(p, UDP)
	if err != nil {
		return err
	}
	defer conn.Close()
	query := host(typeA)(p.Names)
	for range 2 {
		if _, err := conn.Write(query); err != nil {
			return err
		}
	}
	buf := make([]byte, 65535)
	for range 2 {
		if _, err := io.ReadAtLeast(conn, buf, 1); err != nil {
			return err
		}
	}
	return nil
}
