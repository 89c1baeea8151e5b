package lb

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"time"

	"waggle/vip"
)

// EjectConfig says when a backend that clients of this node cannot connect to gets no new
// connections for a while, though the scheduler thinks it is well.
type EjectConfig struct {
	// Every is how often the counters are looked at; 0 ejects nothing.
	Every time.Duration
	// Failures of connects within Every eject a backend if they are at least
	// Share of all its connects: few catch a fault sooner and noise as well.
	Failures uint64
	Share    float64
	// Slow ejects a backend as well if connects to it take more than Slow times as
	// long as the median of its service's others, and SlowBy longer, at two looks
	// in a row with Samples connects before each; 0 ejects none for that. With a low
	// Slow one that is far away is taken for one that is ill; SlowBy is what nobody
	// minds. It takes three backends that are connected to.
	Slow    float64
	SlowBy  time.Duration
	Samples uint64
	// Hold is how long a backend is out the first time, and how much longer
	// each next time, up to ten times that.
	Hold time.Duration
}

// DefaultEjectConfig returns no ejection, and once Every is set five failures
// that are half of all connects for 30 s. Slow ones stay; once Slow is set they
// must take 20 ms longer, by 10 connects each time.
func DefaultEjectConfig() EjectConfig {
	return EjectConfig{Failures: 5, Share: 0.5, SlowBy: 20 * time.Millisecond, Samples: 10, Hold: 30 * time.Second}
}

// Ejection says since when and until when a backend is out, and why: Failed of
// the Connects that were seen at the look that ejected it, or, where Usual is not
// 0, that they took Latency and those to others Usual.
type Ejection struct {
	Since, Until     time.Time
	Failed, Connects uint64
	Latency, Usual   time.Duration
}

// Slow reports whether the backend is out for being slow.
func (e Ejection) Slow() bool { return e.Usual > 0 }

// Reason says why the backend is out.
func (e Ejection) Reason() string {
	if e.Slow() {
		return fmt.Sprintf("connects take %s, to others %s", e.Latency.Round(10*time.Microsecond), e.Usual.Round(10*time.Microsecond))
	}
	return fmt.Sprintf("%d of %d connects failed", e.Failed, e.Connects)
}

// Ejections are the backends that are out, by service. It is immutable; nil is
// none.
type Ejections struct {
	out map[vip.Frontend]map[netip.AddrPort]Ejection
}

// All yields every backend that is out.
func (e *Ejections) All() iter.Seq2[vip.Frontend, map[netip.AddrPort]Ejection] {
	if e == nil {
		return func(func(vip.Frontend, map[netip.AddrPort]Ejection) bool) {}
	}
	return maps.All(e.out)
}

// of returns the backends of a service that are out.
func (e *Ejections) of(f vip.Frontend) map[netip.AddrPort]Ejection {
	if e == nil {
		return nil
	}
	return e.out[f]
}

// has reports whether a backend is out.
func (e *Ejections) has(f vip.Frontend, addr netip.AddrPort) bool {
	_, out := e.of(f)[addr]
	return out
}

// count returns how many backends of row are out.
func (e *Ejections) count(row *vip.Service) int {
	n := 0
	for _, b := range row.Backends {
		if e.has(row.Frontend, b.Addr) {
			n++
		}
	}
	return n
}

// mostOut is how many of n backends may be out at once: a third.
func mostOut(n int) int { return n / 3 }

// Ejector decides who is out from what the kernel counts. It is for one
// goroutine.
type Ejector struct {
	cfg   EjectConfig
	seen  map[place]BackendStats
	paces map[place]pace
	past  map[place]offence
	now   *Ejections
}

// place is a backend of a service.
type place struct {
	frontend vip.Frontend
	addr     netip.AddrPort
}

// offence remembers how often a backend was out, and until when.
type offence struct {
	times int
	until time.Time
}

// NewEjector returns one that has seen nothing.
func NewEjector(cfg EjectConfig) *Ejector {
	return &Ejector{cfg: cfg, past: map[place]offence{}}
}

// Observe takes the counters as they are at the time now and returns who is
// out: the same pointer as before where nothing changed. Counters of a service
// come one after the other, as a Dataplane yields them; those who are out have
// none.
func (e *Ejector) Observe(stats iter.Seq2[vip.Frontend, BackendStats], now time.Time) *Ejections {
	out := map[vip.Frontend]map[netip.AddrPort]Ejection{}
	for f, list := range e.now.All() {
		for addr, ejection := range list {
			if ejection.Until.After(now) {
				put(out, f, addr, ejection)
			}
		}
	}
	for f, list := range e.judge(stats) {
		for _, s := range list.bad {
			if len(out[f]) >= mostOut(list.all+len(e.now.of(f))) {
				break
			}
			if _, already := out[f][s.addr]; already {
				continue
			}
			at := place{f, s.addr}
			o := e.past[at]
			o.times = min(o.times+1, 10)
			o.until = now.Add(time.Duration(o.times) * e.cfg.Hold)
			e.past[at] = o
			delete(e.paces, at)
			s.why.Since, s.why.Until = now, o.until
			put(out, f, s.addr, s.why)
		}
	}
	// Who behaved for as long again as it was out starts anew.
	maps.DeleteFunc(e.past, func(_ place, o offence) bool { return now.After(o.until.Add(time.Duration(o.times) * e.cfg.Hold)) })
	if !e.same(out) {
		e.now = &Ejections{out}
	}
	return e.now
}

// verdict is what Observe thinks of a service: those that should be out, those who
// fail before those who are slow.
type verdict struct {
	all int // that are counted
	bad []suspect
}

type suspect struct {
	addr netip.AddrPort
	why  Ejection
}

// judge compares the counters with those of the last look.
func (e *Ejector) judge(stats iter.Seq2[vip.Frontend, BackendStats]) map[vip.Frontend]*verdict {
	out, seen, paces := map[vip.Frontend]*verdict{}, map[place]BackendStats{}, map[place]pace{}
	var of vip.Frontend
	var list []BackendStats // of the service of
	late := func() {
		if e.cfg.Slow <= 0 {
			return
		}
		for _, s := range e.slow(of, list, paces) {
			out[of].bad = append(out[of].bad, suspect{s.Addr, Ejection{Connects: s.Connections, Latency: s.Latency, Usual: s.usual}})
		}
	}
	for f, s := range stats {
		if f != of {
			late()
			of, list = f, list[:0]
		}
		list = append(list, s)
		v := out[f]
		if v == nil {
			v = &verdict{}
			out[f] = v
		}
		at := place{f, s.Addr}
		v.all++
		seen[at] = s
		if lately := since(e.seen[at], s); e.fails(lately) {
			v.bad = append(v.bad, suspect{s.Addr, Ejection{Failed: uint64(lately.Failures), Connects: lately.Connections}})
		}
	}
	late()
	e.seen, e.paces = seen, paces
	return out
}

func (e *Ejector) same(out map[vip.Frontend]map[netip.AddrPort]Ejection) bool {
	if e.now == nil {
		return len(out) == 0
	}
	return maps.EqualFunc(e.now.out, out, func(a, b map[netip.AddrPort]Ejection) bool { return maps.Equal(a, b) })
}

// since returns what was counted between was and is. Counters that fell belong
// to a backend that joined anew.
func since(was, is BackendStats) BackendStats {
	if is.Connections >= was.Connections && is.Failures >= was.Failures {
		is.Connections -= was.Connections
		is.Failures -= was.Failures
	}
	return is
}

// fails reports whether too many connects failed of those counted.
func (e *Ejector) fails(s BackendStats) bool {
	failed := uint64(s.Failures)
	return failed >= e.cfg.Failures && float64(failed) >= e.cfg.Share*float64(s.Connections)
}

func put(out map[vip.Frontend]map[netip.AddrPort]Ejection, f vip.Frontend, addr netip.AddrPort, e Ejection) {
	if out[f] == nil {
		out[f] = map[netip.AddrPort]Ejection{}
	}
	out[f][addr] = e
}
