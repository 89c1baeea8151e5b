package watcher

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	lookupTimeout = 5 * time.Second
	lookupsAtOnce = 8
)

// Lookup returns the addresses of a host name. It must not ask this daemon, which
// may be the node's resolver.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// SystemLookup asks the system's resolver.
func SystemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// LookupAll asks for each host once, some at a time, however many wait for it, and returns
// addresses by id. What cannot be found is left out.
func LookupAll(ctx context.Context, lookup Lookup, hosts map[string]string) map[string]netip.Addr {
	ids := map[string][]string{}
	for id, host := range hosts {
		ids[host] = append(ids[host], id)
	}
	var (
		mu    sync.Mutex // guards found
		found = map[string]netip.Addr{}
		g     errgroup.Group
	)
	g.SetLimit(lookupsAtOnce)
	for host, ids := range ids {
		g.Go(func() error {
			one, cancel := context.WithTimeout(ctx, lookupTimeout)
			defer cancel()
			addrs, err := lookup(one, host)
			if err != nil || len(addrs) == 0 {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			for _, id := range ids {
				found[id] = addrs[0].Unmap()
			}
			return nil
		})
	}
	_ = g.Wait() // they return none
	return found
}
