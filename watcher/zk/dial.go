package zk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// hosts hands the client the servers in turn. The client's own provider looks
// names up once, through the node's resolver, which may be waggle; ours leaves
// that to dial.
type hosts struct {
	mu      sync.Mutex // guards the following
	servers []string
	next    int
	failed  int // servers in vain since the last success
}

// Init shuffles the servers, lest all nodes begin with the same.
func (h *hosts) Init(servers []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers = servers
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	return nil
}

// Len returns how many servers there are.
func (h *hosts) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.servers)
}

// Next returns the next server, and whether all were tried in vain.
func (h *hosts) Next() (server string, retryStart bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	server = h.servers[h.next%len(h.servers)]
	h.next++
	retryStart = h.failed > 0 && h.failed%len(h.servers) == 0
	h.failed++
	return server, retryStart
}

// Connected notes that a session could be had.
func (h *hosts) Connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = 0
}

// rounds returns how often all servers were tried in vain.
func (h *hosts) rounds() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(0, h.failed-1) / max(1, len(h.servers))
}

// dialer makes the connections of one client, one at a time.
type dialer struct {
	ctx   context.Context // of the session; the library passes none
	cfg   Config
	hosts *hosts
	// failed is called with why a server could not be reached.
	failed func(error)

	mu   sync.Mutex // guards conn
	conn net.Conn   // the last one
}

// dial has the library's signature; its timeout of 1 s is replaced by ours. Each
// round in vain makes it wait longer, at random, on top of the library's fixed
// second: thousands of nodes must not knock together at servers that come back.
func (d *dialer) dial(network, server string, _ time.Duration) (net.Conn, error) {
	c, err := d.connect(network, server)
	if err != nil {
		d.failed(err)
	}
	return c, err
}

func (d *dialer) connect(network, server string) (net.Conn, error) {
	d.close()
	if rounds := d.hosts.rounds(); rounds > 0 {
		most := min(d.cfg.MinBackoff<<min(rounds-1, 16), d.cfg.MaxBackoff)
		wait := time.NewTimer(rand.N(most + 1))
		defer wait.Stop()
		select {
		case <-d.ctx.Done():
		case <-wait.C:
		}
	}
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	addrs, err := d.lookup(host)
	if err != nil {
		return nil, err
	}
	nd := net.Dialer{Timeout: d.cfg.DialTimeout}
	err = fmt.Errorf("%s has no address", host)
	for _, a := range addrs {
		var c net.Conn
		if c, err = nd.DialContext(d.ctx, network, net.JoinHostPort(a.String(), port)); err != nil {
			continue // the last one's reason says enough
		}
		g := &guarded{Conn: c}
		// Until a session is had, which the library would wait ten times longer for.
		_ = c.SetDeadline(time.Now().Add(d.cfg.HandshakeTimeout))
		d.mu.Lock()
		defer d.mu.Unlock()
		d.conn = g
		return g, nil
	}
	return nil, err
}

func (d *dialer) lookup(host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(d.ctx, d.cfg.DialTimeout)
	defer cancel()
	addrs, err := d.cfg.Resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs, nil
}

func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close() // mostly closed already
		d.conn = nil
	}
}

const (
	// sendBuffer holds what we ever ask, by far; the library's own is 1.5 MB.
	sendBuffer = 16 << 10
	// minFrame is the header of every answer; the library takes it for granted
	// and would panic without.
	minFrame = 16
	// maxFrame is above the 1 MiB that servers allow themselves, and far below
	// what four bytes of something else than ZooKeeper say.
	maxFrame = 4 << 20
)

// guarded is a connection that refuses frames no ZooKeeper sends and keeps the
// deadline of the handshake until the first frame has come.
type guarded struct {
	net.Conn
	header      [4]byte
	have        int // bytes of header
	rest        int // bytes of the frame not read yet
	established bool
}

// Read reads up to the end of a frame or of its length.
func (g *guarded) Read(p []byte) (int, error) {
	if g.rest > 0 {
		n, err := g.Conn.Read(p[:min(len(p), g.rest)])
		if g.rest -= n; g.rest == 0 && !g.established {
			g.established = true
			return n, errors.Join(err, g.SetDeadline(time.Time{}))
		}
		return n, err
	}
	n, err := g.Conn.Read(p[:min(len(p), len(g.header)-g.have)])
	g.have += copy(g.header[g.have:], p[:n])
	if g.have < len(g.header) {
		return n, err
	}
	size := binary.BigEndian.Uint32(g.header[:])
	if size < minFrame || size > maxFrame {
		return n, fmt.Errorf("no ZooKeeper at %s: it sent a frame of %d bytes", g.RemoteAddr(), size)
	}
	g.have, g.rest = 0, int(size)
	return n, err
}

// SetReadDeadline does nothing before a session is had.
func (g *guarded) SetReadDeadline(t time.Time) error {
	if !g.established {
		return nil
	}
	return g.Conn.SetReadDeadline(t)
}

// SetWriteDeadline does nothing before a session is had.
func (g *guarded) SetWriteDeadline(t time.Time) error {
	if !g.established {
		return nil
	}
	return g.Conn.SetWriteDeadline(t)
}
