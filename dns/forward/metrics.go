package forward

import (
	"sync/atomic"

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
		for _, u := range r.upstreams {
			if u.udp != nil {
				n += u.udp.open()
			}
		}
		return float64(n)
	})
	gauge("waggle_forward_answers", "Answers remembered.", func() float64 { n, _ := size(r.cache.answers); return float64(n) })
	gauge("waggle_forward_answer_bytes", "Memory of the answers remembered.", func() float64 { _, n := size(r.cache.answers); return float64(n) })
	gauge("waggle_forward_negatives", "Negative answers remembered.", func() float64 { n, _ := size(r.cache.negatives); return float64(n) })
	gauge("waggle_forward_negative_bytes", "Memory of the negative answers remembered.", func() float64 { _, n := size(r.cache.negatives); return float64(n) })
	if reg != nil {
		reg.MustRegister(&health{r: r, up: prometheus.NewDesc("waggle_forward_upstream_up",
			"Whether an upstream answers: 1 well, 0.5 unsure, 0 left alone.", []string{"upstream"}, nil)})
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
		show(f, prometheus.CounterOpts{
			Name:        "waggle_forward_requests_total",
			Help:        "Questions about names that are not ours: hit, answered from the cache; stale, from what had expired; miss, by asking; joined, with one being asked; local, that never leave; refused, nobody to ask; looped, our own; shed, too many of one client; failed, nobody answered.",
			ConstLabels: prometheus.Labels{"result": result},
		}, c)
	}
}

func show(f promauto.Factory, opts prometheus.CounterOpts, c *count) {
	f.NewCounterFunc(opts, func() float64 { return float64(c.Load()) })
}

// counts are the metrics of one upstream. Looking them up by their labels takes
// longer than all else that is done for an answer.
type counts struct {
	datagrams, streamed, failures count
	rtt                           prometheus.Observer
}

// showUpstream shows the counts of u.
func (m *metrics) showUpstream(reg prometheus.Registerer, u *upstream) {
	f := promauto.With(reg)
	name, stream := u.String(), "tcp"
	if u.TLSName != "" {
		stream = "tls"
	}
	attempts := func(proto string, c *count) {
		show(f, prometheus.CounterOpts{
			Name: "waggle_forward_attempts_total", Help: "Questions sent to an upstream, by transport.",
			ConstLabels: prometheus.Labels{"upstream": name, "proto": proto},
		}, c)
	}
	attempts(stream, &u.counts.streamed)
	if u.udp != nil {
		attempts("udp", &u.counts.datagrams)
	}
	show(f, prometheus.CounterOpts{
		Name: "waggle_forward_failures_total", Help: "Questions that an upstream did not answer.",
		ConstLabels: prometheus.Labels{"upstream": name},
	}, &u.counts.failures)
	u.counts.rtt = m.rtt.WithLabelValues(name)
}

func (c *counts) asked(stream bool) {
	if stream {
		c.streamed.inc()
	} else {
		c.datagrams.inc()
	}
}

// health collects how the upstreams stand at the time of a scrape.
type health struct {
	r  *Resolver
	up *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (h *health) Describe(ch chan<- *prometheus.Desc) { ch <- h.up }

// Collect implements prometheus.Collector.
func (h *health) Collect(ch chan<- prometheus.Metric) {
	for _, s := range h.r.Status() {
		value := map[string]float64{"well": 1, "unsure": 0.5}[s.State]
		ch <- prometheus.MustNewConstMetric(h.up, prometheus.GaugeValue, value, s.Upstream)
	}
}
