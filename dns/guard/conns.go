package guard

import (
	"net/netip"
	"sync"
)

// Connections counts who holds how many. It is safe for concurrent use.
type Connections struct {
	all, each int

	mu   sync.Mutex // guards the following
	open int
	of   map[netip.Addr]int
}

// NewConnections returns a count of at most all connections, each of them from
// one address; 0 for each is no limit but all.
func NewConnections(all, each int) *Connections {
	if each == 0 {
		each = all
	}
	return &Connections{all: all, each: each, of: map[netip.Addr]int{}}
}

// Take counts a connection from client and reports whether there may be one
// more. If so, Release follows once it has ended.
func (c *Connections) Take(client netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open >= c.all || c.of[client] >= c.each {
		return false
	}
	c.open++
	c.of[client]++
	return true
}

// Release counts one connection from client less.
func (c *Connections) Release(client netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if c.of[client]--; c.of[client] == 0 {
		delete(c.of, client)
	}
}

// Crowded reports whether most places are taken, so that idle clients should be
// sent away sooner (RFC 7828 section 3.4).
func (c *Connections) Crowded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open > c.all/4*3
}
