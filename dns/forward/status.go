package forward

import (
	"slices"
	"time"
)

// Status is how one upstream stands.
type Status struct {
	Upstream string        `json:"upstream"`
	Zones    []string      `json:"zones"`      // names it is asked for, sorted; "." is all others
	State    string        `json:"state"`      // well, unsure or resting
	Latency  time.Duration `json:"latency_ns"` // usual, 0 while unknown
	Asked    uint64        `json:"asked"`
	Failures uint64        `json:"failures"`        // of Asked, those without an answer
	Error    string        `json:"error,omitempty"` // the last one, since it last answered
}

// Status returns how the upstreams stand, in the order they were configured.
func (r *Resolver) Status() []Status {
	now, in := time.Now(), r.now.Load()
	out := make([]Status, 0, len(in.upstreams))
	for _, u := range in.upstreams {
		standing, srtt := u.standing(now)
		s := Status{
			Upstream: u.String(), Zones: slices.Sorted(slices.Values(in.zones[u])), State: [...]string{"well", "unsure", "resting"}[standing],
			Latency: srtt, Asked: u.counts.datagrams.Load() + u.counts.streamed.Load(), Failures: u.counts.failures.Load(),
		}
		u.mu.Lock()
		if u.lastErr != nil {
			s.Error = u.lastErr.Error()
		}
		u.mu.Unlock()
		out = append(out, s)
	}
	return out
}

// CacheStatus is what is remembered, and of what use that has been.
type CacheStatus struct {
	Questions     uint64  `json:"questions"` // about names of others, since the start
	Hits          uint64  `json:"hits"`      // of Questions, those answered from the cache at once
	HitRatio      float64 `json:"hit_ratio"` // Hits of Questions; 0 before the first
	Stale         uint64  `json:"stale"`     // answered from what had expired
	Answers       int     `json:"answers"`
	AnswerBytes   uint64  `json:"answer_bytes"`
	Negatives     int     `json:"negatives"`
	NegativeBytes uint64  `json:"negative_bytes"`
}

// CacheStatus returns how the cache stands.
func (r *Resolver) CacheStatus() CacheStatus {
	c := &r.metrics.results
	s := CacheStatus{Hits: c.hit.Load(), Stale: c.stale.Load()}
	s.Questions = s.Hits + c.miss.Load() + c.joined.Load()
	if s.Questions > 0 {
		s.HitRatio = float64(s.Hits) / float64(s.Questions)
	}
	cache := r.now.Load().cache
	s.Answers, s.AnswerBytes = size(cache.answers)
	s.Negatives, s.NegativeBytes = size(cache.negatives)
	return s
}
