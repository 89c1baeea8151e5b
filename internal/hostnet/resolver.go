// Package hostnet knows the machine's own network: which DNS servers it is
// configured to ask and which addresses are its own. It knows nothing of
// clusters, names or balancing.
package hostnet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// ResolvConf is where the system's resolver configuration is read from.
const ResolvConf = "/etc/resolv.conf"

// ErrNoServers is returned by a Resolver that has nobody to ask.
var ErrNoServers = errors.New("no DNS server left to ask but ourselves")

// Resolver looks names up for the daemon itself: in /etc/hosts, then at the
// system's DNS servers less those that are the daemon. A node's resolver asks
// waggle for everything, so asking it back would wait for an answer that
// depends on the very name asked for. It is safe for concurrent use.
type Resolver struct {
	net net.Resolver
}

// NewResolver returns a Resolver that asks servers, in random order, with a
// deadline of 2 s for each. Without servers only /etc/hosts and address
// literals resolve, everything else fails with ErrNoServers.
func NewResolver(servers []netip.AddrPort) *Resolver {
	r := &Resolver{}
	r.net.PreferGo = true
	r.net.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		if len(servers) == 0 {
			return nil, ErrNoServers
		}
		d := net.Dialer{Timeout: 2 * time.Second}
		return d.DialContext(ctx, network, servers[rand.IntN(len(servers))].String())
	}
	return r
}

// Lookup returns the addresses of host, unmapped, in the order found.
func (r *Resolver) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	addrs, err := r.net.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// Upstreams returns the DNS servers of the resolver configuration at path
// (resolv.conf(5)) that own does not claim. Lines that cannot be read are
// skipped, a missing file is no servers.
func Upstreams(path string, own func(netip.AddrPort) bool) ([]netip.AddrPort, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read resolver configuration: %w", err)
	}
	defer f.Close()
	return parseResolvConf(f, own)
}

func parseResolvConf(r io.Reader, own func(netip.AddrPort) bool) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(fields[1])
		if err != nil {
			continue
		}
		if ap := netip.AddrPortFrom(a.Unmap(), 53); !own(ap) {
			out = append(out, ap)
		}
	}
	return out, sc.Err()
}
