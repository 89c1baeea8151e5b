package mesos

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	lookupTimeout = 5 * time.Second
	lookupRetry   = 30 * time.Second
	lookupsAtOnce = 8
)

// resolveNames looks up the host names of agents and frameworks that give no
// address, beside the stream, so that a slow name delays only those who need
// it. A name that cannot be found is asked for again after lookupRetry.
func (s *Source) resolveNames(ctx context.Context) error {
	asked := map[string]time.Time{} // hosts, when
	retry := time.NewTicker(lookupRetry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.lookup:
		case <-retry.C:
		}
		hosts := s.wanted(asked)
		if len(hosts) == 0 {
			continue
		}
		s.found(lookupAll(ctx, s.cfg.Resolve, hosts))
	}
}

// wanted returns the host names to look up now, by agent or framework id, and
// notes that they were asked for.
func (s *Source) wanted(asked map[string]time.Time) map[string]string {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.world == nil {
		return nil
	}
	now := time.Now()
	hosts := map[string]string{}
	for id, host := range s.world.unresolved {
		if now.Sub(asked[host]) >= lookupRetry {
			hosts[id] = host
		}
	}
	maps.DeleteFunc(asked, func(_ string, at time.Time) bool { return now.Sub(at) >= lookupRetry })
	for _, host := range hosts {
		asked[host] = now
	}
	return hosts
}

func (s *Source) found(addrs map[string]netip.Addr) {
	s.turn.Lock()
	defer s.turn.Unlock()
	for id, addr := range addrs {
		s.world.resolved(id, addr)
	}
	if s.world.publishable() {
		s.publishLocked(s.last.Leader)
	}
}

// lookupAll asks for each host once, however many wait for it, and returns
// addresses by id. What cannot be found is left out.
func lookupAll(ctx context.Context, lookup resolve, hosts map[string]string) map[string]netip.Addr {
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
