package mesos

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"

	"waggle/watcher/transport"
	"waggle/watcher/zk"
)

// Election tells who leads some other way than by asking masters: zk.Detector
// is one.
type Election interface {
	// Run calls elected with all masters, the leader first, whenever they have
	// changed, until ctx ends. It says nothing while it does not know.
	Run(ctx context.Context, elected func([]zk.Member)) error
}

// masters are whom to ask: those elected, the leader first, then those that are
// configured. It is safe for concurrent use.
type masters struct {
	scheme     string // of those elected
	configured []*url.URL
	given      []netip.AddrPort // those configured by address

	mu      sync.Mutex // guards the following
	elected []zk.Member
	news    chan struct{} // closed and replaced when another leads
	known   chan struct{} // closed once there is anybody to ask
}

func newMasters(scheme string, configured []*url.URL, given []netip.AddrPort) *masters {
	m := &masters{scheme: scheme, configured: configured, given: given, news: make(chan struct{}), known: make(chan struct{})}
	if len(configured) > 0 {
		close(m.known)
	}
	return m
}

// elect takes the outcome of an election and reports whether another leads.
func (m *masters) elect(members []zk.Member) (another bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.elected) == 0 && len(m.configured) == 0 {
		close(m.known)
	}
	another = len(m.elected) == 0 || m.elected[0].Addr != members[0].Addr || m.elected[0].ID != members[0].ID
	m.elected = members
	if another {
		close(m.news)
		m.news = make(chan struct{})
	}
	return another
}

// urls are the masters to ask, the likeliest leader first.
func (m *masters) urls() []*url.URL {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*url.URL
	for _, e := range m.elected {
		out = append(out, &url.URL{Scheme: m.scheme, Host: e.Addr})
	}
	for _, u := range m.configured {
		if !slices.ContainsFunc(out, func(o *url.URL) bool { return *o == *u }) {
			out = append(out, u)
		}
	}
	return out
}

// hosts are elected masters, by address and by name.
func (m *masters) hosts(elected []zk.Member) []transport.Host {
	var out []transport.Host
	for _, e := range elected {
		out = append(out, transport.Host{URL: &url.URL{Scheme: m.scheme, Host: e.Addr}, Name: e.Hostname})
	}
	return out
}

// addrs are the masters that are known by address: those elected, or else those
// configured.
func (m *masters) addrs() []netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.elected) == 0 {
		return m.given
	}
	var out []netip.AddrPort
	for _, e := range m.elected {
		if a, err := netip.ParseAddrPort(e.Addr); err == nil {
			out = append(out, a)
		}
	}
	return slices.Clip(out)
}

// leads reports whether the master asked at host, which answered from peer, is
// the elected leader, as far as an election has said.
func (m *masters) leads(host string, peer netip.AddrPort) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.elected) == 0 {
		return true
	}
	leader := m.elected[0]
	if host == leader.Addr || peer.String() == leader.Addr {
		return true
	}
	_, port, err := net.SplitHostPort(leader.Addr)
	return err == nil && host == net.JoinHostPort(leader.Hostname, port)
}

// changed is closed when another leads than when it was called.
func (m *masters) changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.news
}
