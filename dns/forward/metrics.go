package forward

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// count is a counter that is shown to people too.
type count struct{ atomic.Uint64 }

func (c *count) inc() { c.Add(1) }

// results count questions by what became of them.
type results struct {
	hit, stale, miss, joined, local, refused, looped, shed, failed count
}

type metrics struct {
	results    results
	prefetched prometheus.Counter
	spoofed    prometheus.Counter
	malformed  prometheus.Counter
	truncated  prometheus.Counter
	rtt        *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, r *Resolver) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		prefetched: counter("waggle_forward_prefetches_total", "Answers asked for anew before they expired."),
		spoofed:    counter("waggle_forward_mismatches_total", "Messages from an upstream's address that answer nothing we asked: guesses of somebody else, or late."),
		malformed:  counter("waggle_forward_malformed_total", "Answers of upstreams that could not be read."),
		truncated:  counter("waggle_forward_truncated_total", "Answers of upstreams that were asked for again over TCP."),
		// From 100 µs, a server next door, to 1.6 s.
		rtt: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "waggle_forward_upstream_duration_seconds", Help: "Time an upstream took to answer.",
			Buckets: prometheus.ExponentialBuckets(1e-4, 4, 8)}, []string{"upstream"}),
	}
	m.showResults(f)
	gauge := func(name, help string, value func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	gauge("waggle_forward_waiting", "Clients' questions that wait for an upstream.", func() float64 { return float64(r.admission.waiting()) })
	gauge("waggle_forward_sockets", "UDP sockets open to upstreams.", func() float64 {
		n := 0
		for _, u := range r.now.Load().upstreams {
			if u.udp != nil {
				n += u.udp.open()
			}
		}
		return float64(n)
	})
	gauge("waggle_forward_answers", "Answers remembered.", func() float64 { n, _ := size(r.now.Load().cache.answers); return float64(n) })
	gauge("waggle_forward_answer_bytes", "Memory of the answers remembered.", func() float64 { _, n := size(r.now.Load().cache.answers); return float64(n) })
	gauge("waggle_forward_negatives", "Negative answers remembered.", func() float64 { n, _ := size(r.now.Load().cache.negatives); return float64(n) })
	gauge("waggle_forward_negative_bytes", "Memory of the negative answers remembered.", func() float64 { _, n := size(r.now.Load().cache.negatives); return float64(n) })
	if reg != nil {
		reg.MustRegister(newHealth(r))
	}
	return m
}

// showResults shows the questions by result.
func (m *metrics) showResults(f promauto.Factory) {
	r := &m.results
	for result, c := range map[string]*count{
		"hit": &r.hit, "stale": &r.stale, "miss": &r.miss, "joined": &r.joined, "local": &r.local,
		"refused": &r.refused, "looped": &r.looped, "shed": &r.shed, "failed": &r.failed,
	} {
		f.NewCounterFunc(prometheus.CounterOpts{
			Name:        "waggle_forward_requests_total",
			Help:        "Questions about names that are not ours: hit, answered from the cache; stale, from what had expired; miss, by asking; joined, with one being asked; local, that never leave; refused, nobody to ask; looped, our own; shed, too many of one client; failed, nobody answered.",
			ConstLabels: prometheus.Labels{"result": result},
		}, func() float64 { return float64(c.Load()) })
	}
}

// counts are the metrics of one upstream. Looking them up by their labels takes
// longer than all else that is done for an answer.
type counts struct {
	datagrams, streamed, failures count
	rtt                           prometheus.Observer
}

func (c *counts) asked(stream bool) {
	if stream {
		c.streamed.inc()
	} else {
		c.datagrams.inc()
	}
}

// health collects how the upstreams that are configured stand at the time of a
// scrape.
type health struct {
	r                      *Resolver
	up, attempts, failures *prometheus.Desc
}

func newHealth(r *Resolver) *health {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"upstream"}, labels...), nil)
	}
	return &health{
		r:        r,
		up:       desc("waggle_forward_upstream_up", "Whether an upstream answers: 1 well, 0.5 unsure, 0 left alone."),
		attempts: desc("waggle_forward_attempts_total", "Questions sent to an upstream, by transport.", "proto"),
		failures: desc("waggle_forward_failures_total", "Questions that an upstream did not answer."),
	}
}

// Describe implements prometheus.Collector.
func (h *health) Describe(ch chan<- *prometheus.Desc) {
	ch <- h.up
	ch <- h.attempts
	ch <- h.failures
}

// Collect implements prometheus.Collector.
func (h *health) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	for _, u := range h.r.now.Load().upstreams {
		name, stream := u.String(), "tcp"
		if u.TLSName != "" {
			stream = "tls"
		}
		count := func(desc *prometheus.Desc, c *count, labels ...string) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(c.Load()), append([]string{name}, labels...)...)
		}
		standing, _ := u.standing(now)
		ch <- prometheus.MustNewConstMetric(h.up, prometheus.GaugeValue, [...]float64{well: 1, unsure: 0.5, broken: 0}[standing], name)
		count(h.attempts, &u.counts.streamed, stream)
		if u.udp != nil {
			count(h.attempts, &u.counts.datagrams, "udp")
		}
		count(h.failures, &u.counts.failures)
	}
}
