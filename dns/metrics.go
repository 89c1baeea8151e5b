package dns

import (
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// quickCounters are the counters of one protocol, by type and rcode, once they
// have counted something.
type quickCounters [len(typeLabels)][16]atomic.Pointer[prometheus.Counter]

type metrics struct {
	quickUDP, quickTCP quickCounters

	requests *prometheus.CounterVec
	silent   *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	dropped  prometheus.Counter
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
		dropped: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_dns_dropped_total", Help: "Unusual queries that got no answer because too many were waiting."}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_dns_panics_total", Help: "Queries that ended in a panic and were answered SERVFAIL."}),
		conns: f.NewGauge(prometheus.GaugeOpts{
			Name: "waggle_dns_tcp_connections", Help: "TCP connections open."}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_dns_tcp_refused_total", Help: "TCP connections closed at once because too many were open."}),
	}
}

// quick notes one query that was answered at once. It looks its counter up
// by number, because looking it up by label takes as long as an answer.
func (m *metrics) quick(proto string, rrtype uint16, rcode int) {
	of := &m.quickUDP
	if proto == protoTCP {
		of = &m.quickTCP
	}
	label := typeNumber(rrtype)
	slot := &of[label][rcode]
	counter := slot.Load()
	if counter == nil {
		c := m.requests.WithLabelValues(proto, typeLabels[label], rcodeLabel(rcode))
		counter = &c
		slot.Store(counter)
	}
	(*counter).Inc()
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

// typeLabels are the types that are counted by name, and at last all others:
// that keeps the number of time series small whatever clients ask for.
var typeLabels = [...]string{"A", "AAAA", "SRV", "SOA", "NS", "PTR", "TXT", "HTTPS", "ANY", "other"}

// typeNumber returns the place of t in typeLabels.
func typeNumber(t uint16) int {
	switch t {
	case dns.TypeA:
		return 0
	case dns.TypeAAAA:
		return 1
	case dns.TypeSRV:
		return 2
	case dns.TypeSOA:
		return 3
	case dns.TypeNS:
		return 4
	case dns.TypePTR:
		return 5
	case dns.TypeTXT:
		return 6
	case dns.TypeHTTPS:
		return 7
	case dns.TypeANY:
		return 8
	}
	return len(typeLabels) - 1
}

func typeLabel(t uint16) string { return typeLabels[typeNumber(t)] }

func rcodeLabel(rcode int) string {
	if rcode == dns.RcodeBadVers {
		return "BADVERS" // the library calls it BADSIG, which has the same number
	}
	return dns.RcodeToString[rcode]
}
