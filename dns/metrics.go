package dns

import (
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests *prometheus.CounterVec
	silent   *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	panics   prometheus.Counter
	conns    prometheus.Gauge
	refused  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waggle_dns_requests_total", Help: "Queries answered, by protocol, type asked and rcode of the answer.",
		}, []string{"proto", "type", "rcode"}),
		silent: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waggle_dns_ignored_total", Help: "Packets that deserved no answer: responses, and what is no DNS message.",
		}, []string{"proto"}),
		// From 4 µs, a small answer, to 65 ms, a machine that is out of breath.
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "waggle_dns_request_duration_seconds", Help: "Time from a query being read to its answer being ready.",
			Buckets: prometheus.ExponentialBuckets(4e-6, 4, 8),
		}, []string{"proto"}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_dns_panics_total", Help: "Queries that ended in a panic and were answered SERVFAIL."}),
		conns: f.NewGauge(prometheus.GaugeOpts{
			Name: "waggle_dns_tcp_connections", Help: "TCP connections open."}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_dns_tcp_refused_total", Help: "TCP connections closed at once because too many were open."}),
	}
}

// count notes one packet and the reply to it, nil for none.
func (m *metrics) count(proto string, reply *dns.Msg, took time.Duration) {
	m.seconds.WithLabelValues(proto).Observe(took.Seconds())
	if reply == nil {
		m.silent.WithLabelValues(proto).Inc()
		return
	}
	asked := "none"
	if len(reply.Question) > 0 {
		asked = typeLabel(reply.Question[0].Qtype)
	}
	m.requests.WithLabelValues(proto, asked, rcodeLabel(reply.Rcode)).Inc()
}

// typeLabel keeps the number of time series small whatever clients ask for.
func typeLabel(t uint16) string {
	switch t {
	case dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSOA, dns.TypeNS, dns.TypePTR, dns.TypeTXT, dns.TypeHTTPS, dns.TypeANY:
		return dns.TypeToString[t]
	}
	return "other"
}

func rcodeLabel(rcode int) string {
	if rcode == dns.RcodeBadVers {
		return "BADVERS" // the library calls it BADSIG, which has the same number
	}
	return dns.RcodeToString[rcode]
}
