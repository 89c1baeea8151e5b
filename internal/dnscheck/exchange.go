package dnscheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// patience is how long a reply may take on a machine with much else to do; try
// is when a datagram counts as lost and is sent again; grace is how much later
// than the reply to the query after it a reply is still waited for.
const (
	patience = 20 * time.Second
	try      = time.Second
	grace    = 20 * time.Millisecond
)

// sentinel is the id of queries that are surely answered. They follow those
// that may not be, to know when a reply is not coming.
const sentinel = 0xfeed

func (p *Peer) sentinel() []byte { return ask(wire(p.Names.Host), typeA, id(sentinel)) }

// exchange sends query and returns the reply, nil for none.
func exchange(p *Peer, over Transport, query []byte, s silence) ([]byte, error) {
	switch {
	case over == TCP:
		return exchangeTCP(p, query, s)
	case s == answered:
		return exchangeUDP(p, query)
	}
	return sendUDP(p, query)
}

func dial(p *Peer, over Transport) (net.Conn, error) {
	conn, err := net.DialTimeout(string(over), p.Addr.String(), patience)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(patience))
}

// exchangeUDP repeats query until it is answered. A query counts as ignored
// when the sentinel after it was answered a few times.
func exchangeUDP(p *Peer, query []byte) ([]byte, error) {
	conn, err := dial(p, UDP)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	buf := make([]byte, 65535)
	answered := 0
	for range patience / try {
		for _, out := range [][]byte{query, p.sentinel()} {
			if _, err := conn.Write(out); err != nil {
				return nil, err
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(try)); err != nil {
			return nil, err
		}
		for {
			n, err := conn.Read(buf)
			if err != nil {
				break
			}
			if n < 2 || be16(buf) != sentinel || be16(query) == sentinel {
				return buf[:n], nil
			}
			if answered++; answered > 3 {
				return nil, errors.New("no reply, although the query after it is answered")
			}
		}
	}
	return nil, errors.New("no reply")
}

// sendUDP sends query once and a sentinel after it until that is answered.
func sendUDP(p *Peer, query []byte) (reply []byte, err error) {
	conn, err := dial(p, UDP)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	alive := false
	buf := make([]byte, 65535)
	for tries := patience / try; tries > 0; {
		wait := try
		if alive {
			wait = grace
		} else if _, err := conn.Write(p.sentinel()); err != nil {
			return nil, err
		}
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return nil, err
		}
		n, err := conn.Read(buf)
		switch {
		case err != nil && alive:
			return reply, nil
		case err != nil:
			tries--
		case n >= 2 && be16(buf) == sentinel:
			alive = true
		case reply != nil:
			return nil, errors.New("more than one reply")
		default:
			reply = append([]byte{}, buf[:n]...)
		}
	}
	return nil, errors.New("the server does not answer any more")
}

// frame puts the length before a message.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
}

func readFrame(conn io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	out := make([]byte, be16(size[:]))
	_, err := io.ReadFull(conn, out)
	return out, err
}

// exchangeTCP sends query on a connection of its own. A server may close it
// instead of a reply, if silence is allowed, but must still take others.
func exchangeTCP(p *Peer, query []byte, s silence) ([]byte, error) {
	conn, err := dial(p, TCP)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	out := frame(query)
	if s != answered {
		out = append(out, frame(p.sentinel())...)
	}
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	reply, err := readFrame(conn)
	if s == answered {
		return reply, err
	}
	if err == nil && len(reply) >= 2 && be16(reply) != sentinel {
		return reply, nil
	}
	return nil, p.alive()
}

// alive checks that the server answers a new client.
func (p *Peer) alive() error {
	for _, over := range []Transport{UDP, TCP} {
		raw, err := exchange(p, over, p.sentinel(), answered)
		if err == nil {
			_, err = Parse(raw)
		}
		if err != nil {
			return fmt.Errorf("afterwards, over %s: %w", over, err)
		}
	}
	return nil
}
