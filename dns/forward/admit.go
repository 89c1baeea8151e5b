package forward

import (
	"net/netip"
	"sync"
)

// admission bounds the questions that wait, and keeps one client from taking
// the places of all others. It is safe for concurrent use.
type admission struct {
	mu      sync.Mutex // guards the following
	total   int
	clients map[netip.Addr]int
}

func newAdmission() *admission {
	return &admission{clients: map[netip.Addr]int{}}
}

// party is what counts as one client: an IPv4 address or an IPv6 /64, which
// one host can fill.
func party(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() || !a.IsValid() {
		return a
	}
	p, _ := a.Prefix(64)
	return p.Addr()
}

// enter takes a place for a client and reports whether there was one. A client
// may hold limit divided by the number of clients that wait, itself included; the
// sum is at most twice limit, since shares shrink as clients come.
func (a *admission) enter(client netip.Addr, limit int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	holds, waits := a.clients[client]
	n := len(a.clients)
	if !waits {
		n++
	}
	if holds >= max(1, limit/n) || a.total >= 2*limit {
		return false
	}
	a.clients[client] = holds + 1
	a.total++
	return true
}

// leave gives a place back.
func (a *admission) leave(client netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	if a.clients[client]--; a.clients[client] == 0 {
		delete(a.clients, client)
	}
}

func (a *admission) waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}
