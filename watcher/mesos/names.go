package mesos

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"waggle/watcher"
)

const lookupRetry = 30 * time.Second

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
		s.found(watcher.LookupAll(ctx, s.cfg.Resolve, hosts))
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
