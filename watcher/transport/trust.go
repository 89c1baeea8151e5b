package transport

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// trust is who may be given credentials. Its zero value trusts nobody; it is safe
// for concurrent use.
type trust struct {
	mu         sync.Mutex // guards the following
	configured map[string]trusted
	elected    map[string]trusted
}

// trusted is how a host, a key "host:port", is trusted.
type trusted struct {
	plain bool     // by http too
	names []string // that its certificate may be for, besides the host itself
}

func (t *trust) configure(hosts []Host) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.configured = trustees(hosts)
}

func (t *trust) elect(hosts []Host) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.elected = trustees(hosts)
}

func trustees(hosts []Host) map[string]trusted {
	out := map[string]trusted{}
	add := func(u *url.URL, host string, names ...string) {
		key := hostPort(host, u.Port(), u.Scheme)
		one := out[key]
		one.plain = one.plain || u.Scheme == "http"
		one.names = append(one.names, names...)
		out[key] = one
	}
	for _, h := range hosts {
		if h.Name == "" || h.Name == h.URL.Hostname() {
			add(h.URL, h.URL.Hostname())
			continue
		}
		add(h.URL, h.URL.Hostname(), h.Name)
		add(h.URL, h.Name)
	}
	return out
}

// trusts reports whether the host of u may be given credentials by its scheme.
func (t *trust) trusts(u *url.URL) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := hostPort(u.Hostname(), u.Port(), u.Scheme)
	for _, m := range []map[string]trusted{t.configured, t.elected} {
		if one, ok := m[key]; ok && (one.plain || u.Scheme == "https") {
			return true
		}
	}
	return false
}

// names are what the certificate of addr may be for besides addr; ok says whether
// it is trusted.
func (t *trust) names(addr string) (names []string, ok bool) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key := hostPort(host, port, "")
	a, inA := t.configured[key]
	b, inB := t.elected[key]
	return slices.Concat(a.names, b.names), inA || inB
}

// hostPort is the one way to write a host and its port.
func hostPort(host, port, scheme string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	}
	switch {
	case port != "":
	case scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(host, port)
}
