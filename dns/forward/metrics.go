package forward

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// results count questions by what became of them.
type results struct {
	hit, stale, miss, joined, local, refused, looped, shed, failed prometheus.Counter
}

type metrics struct {
	results    results
	prefetched prometheus.Counter
	spoofed    prometheus.Counter
	malformed  prometheus.Counter
	truncated  prometheus.Counter
	attempts   *prometheus.CounterVec
	failures   *prometheus.CounterVec
	rtt        *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, r *Resolver) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	by := f.NewCounterVec(prometheus.CounterOpts{
		Name: "waggle_forward_requests_total",
		Help: "Questions about names that are not ours: hit, answered from the cache; stale, from what had expired; miss, by asking; joined, with one being asked; local, that never leave; refused, nobody to ask; looped, our own; shed, too many of one client; failed, nobody answered.",
	}, []string{"result"})
	m := &metrics{
		results: results{
			hit: by.WithLabelValues("hit"), stale: by.WithLabelValues("stale"), miss: by.WithLabelValues("miss"),
			joined: by.WithLabelValues("joined"), local: by.WithLabelValues("local"), refused: by.WithLabelValues("refused"),
			looped: by.WithLabelValues("looped"), shed: by.WithLabelValues("shed"), failed: by.WithLabelValues("failed"),
		},
		prefetched: counter("waggle_forward_prefetches_total", "Answers asked for anew before they expired."),
		spoofed:    counter("waggle_forward_mismatches_total", "Messages from an upstream's address that answer nothing we asked: guesses of somebody else, or late."),
		malformed:  counter("waggle_forward_malformed_total", "Answers of upstreams that could not be read."),
		truncated:  counter("waggle_forward_truncated_total", "Answers of upstreams that were asked for again over TCP."),
		attempts: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waggle_forward_attempts_total", Help: "Questions sent to an upstream, by transport."}, []string{"upstream", "proto"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waggle_forward_failures_total", Help: "Questions that an upstream did not answer."}, []string{"upstream"}),
		// From 100 µs, a server next door, to 1.6 s.
		rtt: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "waggle_forward_upstream_duration_seconds", Help: "Time an upstream took to answer.",
			Buckets: prometheus.ExponentialBuckets(1e-4, 4, 8)}, []string{"upstream"}),
	}
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

// counts are the metrics of one upstream. Looking them up by their labels takes
// longer than all else that is done for an answer.
type counts struct {
	datagrams, streamed, failures prometheus.Counter
	rtt                           prometheus.Observer
}

func (m *metrics) of(u *upstream) counts {
	name, stream := u.String(), "tcp"
	if u.TLSName != "" {
		stream = "tls"
	}
	c := counts{
		streamed: m.attempts.WithLabelValues(name, stream),
		failures: m.failures.WithLabelValues(name), rtt: m.rtt.WithLabelValues(name),
	}
	if u.udp != nil {
		c.datagrams = m.attempts.WithLabelValues(name, "udp")
	}
	return c
}

func (c *counts) asked(stream bool) {
	if stream {
		c.streamed.Inc()
	} else {
		c.datagrams.Inc()
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

// Status is how one upstream stands.
type Status struct {
	Upstream string        `json:"upstream"`
	State    string        `json:"state"` // well, unsure or resting
	Latency  time.Duration `json:"latency_ns"`
	Error    string        `json:"error,omitempty"` // the last one, since it last answered
}

// Status returns how the upstreams stand, in the order they were configured.
func (r *Resolver) Status() []Status {
	now := time.Now()
	out := make([]Status, 0, len(r.upstreams))
	for _, u := range r.upstreams {
		standing, srtt := u.standing(now)
		s := Status{Upstream: u.String(), State: [...]string{"well", "unsure", "resting"}[standing], Latency: srtt}
		u.mu.Lock()
		if u.lastErr != nil {
			s.Error = u.lastErr.Error()
		}
		u.mu.Unlock()
		out = append(out, s)
	}
	return out
}
