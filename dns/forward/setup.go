package forward

import (
	"crypto/x509"
	"maps"
	"reflect"
	"slices"
	"time"
)

// setup is what a configuration makes. It is replaced whole, and a question
// keeps the one that it came to.
type setup struct {
	cfg       Config
	roots     *x509.CertPool
	router    *router
	cache     *cache
	upstreams []*upstream            // in the order they are configured
	zones     map[*upstream][]string // that each is asked for
}

// Reconfigure has questions that come from now on answered by cfg and roots, as
// New has them; those on their way go on as they are. A server that stays keeps
// its sockets and what is known of it. What is remembered stays as long as the
// same servers are asked for the same names. An error changes nothing.
func (r *Resolver) Reconfigure(cfg Config, roots *x509.CertPool) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	known := maps.Clone(r.leaving)
	var cache *cache
	was := r.now.Load()
	if was != nil {
		for _, u := range was.upstreams {
			known[u.Upstream] = leaver{u, time.Now().Add(was.cfg.Timeout + was.cfg.AttemptTimeout)}
		}
		if sameAnswers(cfg, was.cfg) {
			cache = was.cache
		}
	}
	s, err := r.newSetup(cfg, roots, cache, known)
	if err != nil {
		return err
	}
	r.now.Store(s)
	for _, u := range s.upstreams {
		delete(known, u.Upstream)
	}
	r.leaving = known
	if was != nil && was.cache != s.cache {
		was.cache.close()
	}
	return nil
}

// leaver is an upstream that no setup has any more, and until when questions may
// wait for it.
type leaver struct {
	*upstream
	until time.Time
}

// sameAnswers reports whether what is remembered by one configuration is right
// by the other.
func sameAnswers(a, b Config) bool {
	return slices.Equal(a.Upstreams, b.Upstreams) && slices.Equal(a.Local, b.Local) && reflect.DeepEqual(a.Zones, b.Zones) &&
		a.AnswerBytes == b.AnswerBytes && a.NegativeBytes == b.NegativeBytes
}

// newSetup makes a setup with the upstreams of known, and with c if that is not
// nil.
func (r *Resolver) newSetup(cfg Config, roots *x509.CertPool, c *cache, known map[Upstream]leaver) (_ *setup, err error) {
	s := &setup{cfg: cfg, roots: roots, cache: c, zones: map[*upstream][]string{}}
	made := map[Upstream]*upstream{}
	find := func(u Upstream) *upstream {
		if made[u] == nil {
			made[u] = known[u].upstream
		}
		if made[u] == nil {
			made[u] = r.newUpstream(u, cfg.Sockets)
		}
		return made[u]
	}
	groups := map[string]*group{}
	for name, list := range cfg.Zones {
		groups[name] = s.group(name, list, find)
	}
	if len(cfg.Upstreams) > 0 {
		groups["."] = s.group(".", cfg.Upstreams, find)
	}
	if s.router, err = newRouter(cfg, groups); err == nil && c == nil {
		s.cache, err = newCache(cfg)
	}
	return s, err
}

// group makes a group of a list: one server is one upstream, with one health, in
// however many zones it is.
func (s *setup) group(zone string, list []Upstream, find func(Upstream) *upstream) *group {
	g := &group{}
	for _, one := range list {
		u := find(one)
		if slices.Contains(g.upstreams, u) {
			continue
		}
		g.upstreams = append(g.upstreams, u)
		if len(s.zones[u]) == 0 {
			s.upstreams = append(s.upstreams, u)
		}
		s.zones[u] = append(s.zones[u], zone)
	}
	return g
}

func (r *Resolver) newUpstream(one Upstream, sockets int) *upstream {
	addr := one.Addr.Addr()
	u := &upstream{
		Upstream: one, config: r.config, index: r.made,
		near: addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast(),
	}
	r.made++
	u.counts.rtt = r.metrics.rtt.WithLabelValues(one.String())
	u.stream = &stream{up: u, r: r}
	if one.TLSName == "" {
		u.udp = &pool{up: u, r: r, sockets: make([]*socket, sockets)}
	}
	return u
}

// sweep fails what has waited too long for an upstream, and lets go of those
// that nobody waits for any more.
func (r *Resolver) sweep(now time.Time) {
	r.changing.Lock()
	defer r.changing.Unlock()
	for _, u := range r.now.Load().upstreams {
		u.sweep(now)
	}
	for key, u := range r.leaving {
		u.sweep(now)
		if now.After(u.until) {
			u.close()
			delete(r.leaving, key)
			r.metrics.rtt.DeleteLabelValues(key.String())
		}
	}
}
