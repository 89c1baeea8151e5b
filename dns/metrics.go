package dns

import (
	"math/bits"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	panics  prometheus.Counter
	conns   prometheus.Gauge
	refused prometheus.Counter
	lost    prometheus.Counter
	dropped prometheus.Counter

	zones  func() []string // apexes by number
	kernel Kernel          // counts apart; nil for none

	mu      sync.Mutex // guards the following
	tallies []*tally
}

func newMetrics(reg prometheus.Registerer, zones func() []string, kernel Kernel) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		zones: zones, kernel: kernel,
		dropped: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_dns_dropped_total", Help: "Unusual queries that got no answer because too many were waiting."}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_dns_panics_total", Help: "Queries that ended in a panic and were answered SERVFAIL."}),
		conns: f.NewGauge(prometheus.GaugeOpts{
			Name: "waggle_dns_tcp_connections", Help: "TCP connections open."}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_dns_tcp_refused_total", Help: "TCP connections closed at once because too many were open, or too many of one client."}),
		lost: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_dns_log_dropped_total", Help: "Queries picked for the query log that it could not keep up with."}),
	}
	if reg != nil {
		reg.MustRegister(m)
	}
	return m
}

// The tables that queries are counted in: each name has its number.
var (
	countedTypes = [...]uint16{
		0, dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSOA, dns.TypeNS, dns.TypePTR, dns.TypeTXT, dns.TypeCNAME,
		dns.TypeHTTPS, dns.TypeANY, dns.TypeAXFR,
	}
	countedRcodes = [...]int{
		-1, dns.RcodeSuccess, dns.RcodeFormatError, dns.RcodeServerFailure, dns.RcodeNameError, dns.RcodeNotImplemented,
		dns.RcodeRefused, dns.RcodeBadVers,
	}
)

// maxZones is how many zones are counted apart; number 0 is no zone of ours.
const maxZones = 16

// Latency is counted in buckets of 4 µs times powers of 4, up to 65 ms.
const (
	firstBucket = 4 * time.Microsecond
	bucketCount = 8
)

// fate is what became of a packet besides being answered.
type fate int

const (
	ignored  fate = iota // deserved no answer
	denied               // from a network that may not ask
	cutShort             // answered with TC to slow its network down
	dropped              // not answered to slow its network down
	fates
)

// tally counts for one worker, so that workers do not share cache lines: adding
// to one costs a few ns. It is safe for concurrent use all the same.
type tally struct {
	proto    string
	answered [maxZones][len(countedTypes)][len(countedRcodes)]atomic.Uint64
	fates    [fates]atomic.Uint64
	took     [bucketCount + 1]atomic.Uint64
	nanos    atomic.Uint64
}

// newTally returns a tally whose counts are shown.
func (m *metrics) newTally(proto string) *tally {
	t := &tally{proto: proto}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tallies = append(m.tallies, t)
	return t
}

// answer counts n replies to queries for one type in one zone, by its number.
func (t *tally) answer(zone int, qtype uint16, rcode int, n uint64) {
	t.answered[min(zone, maxZones-1)][typeIndex(qtype)][rcodeIndex(rcode)].Add(n)
}

// note counts a packet that was not simply answered.
func (t *tally) note(f fate) { t.fates[f].Add(1) }

// observe counts n replies that took as long.
func (t *tally) observe(took time.Duration, n uint64) {
	b := (bits.Len64(uint64(max(0, took-1)/firstBucket)) + 1) / 2
	t.took[min(b, bucketCount)].Add(n)
	t.nanos.Add(uint64(took) * n)
}

func typeIndex(t uint16) int {
	for i, c := range countedTypes {
		if c == t {
			return i
		}
	}
	return 0
}

func rcodeIndex(rcode int) int {
	for i, c := range countedRcodes {
		if c == rcode {
			return i
		}
	}
	return 0
}

func (m *metrics) descs() (requests, fated, seconds *prometheus.Desc) {
	return prometheus.NewDesc("waggle_dns_requests_total", "Queries answered, by protocol, zone, type asked and rcode of the answer.", []string{"proto", "zone", "type", "rcode"}, nil),
		prometheus.NewDesc("waggle_dns_unanswered_total", "Packets by what became of them instead of an answer: ignored (no query), denied (network may not ask), cut or dropped (too many replies).", []string{"proto", "reason"}, nil),
		prometheus.NewDesc("waggle_dns_request_duration_seconds", "Time from a query being read to its answer being ready, of one in 64 of the usual queries over UDP and of all others.", []string{"proto"}, nil)
}

// Describe is for prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	a, b, c := m.descs()
	out <- a
	out <- b
	out <- c
}

// Collect sums the tallies, for prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	tallies := m.tallies
	m.mu.Unlock()
	requests, fated, seconds := m.descs()
	zones := append([]string{"none"}, m.zones()...)
	for _, proto := range []string{protoUDP, protoTCP} {
		var sum tally
		for _, t := range tallies {
			if t.proto == proto {
				sum.add(t)
			}
		}
		if proto == protoUDP && m.kernel != nil {
			sum.addKernel(m.kernel.Counts())
		}
		for zone := range sum.answered {
			for rrtype := range sum.answered[zone] {
				for rcode := range sum.answered[zone][rrtype] {
					if n := sum.answered[zone][rrtype][rcode].Load(); n > 0 {
						out <- prometheus.MustNewConstMetric(requests, prometheus.CounterValue, float64(n),
							proto, zoneLabel(zones, zone), typeLabel(countedTypes[rrtype]), rcodeLabel(countedRcodes[rcode]))
					}
				}
			}
		}
		for f, reason := range [fates]string{"ignored", "denied", "cut", "dropped"} {
			out <- prometheus.MustNewConstMetric(fated, prometheus.CounterValue, float64(sum.fates[f].Load()), proto, reason)
		}
		out <- sum.histogram(seconds)
	}
}

// add adds another tally, all that has been counted in it by now.
func (t *tally) add(other *tally) {
	for i := range t.answered {
		for j := range t.answered[i] {
			for k := range t.answered[i][j] {
				t.answered[i][j][k].Add(other.answered[i][j][k].Load())
			}
		}
	}
	for i := range t.fates {
		t.fates[i].Add(other.fates[i].Load())
	}
	for i := range t.took {
		t.took[i].Add(other.took[i].Load())
	}
	t.nanos.Add(other.nanos.Load())
	t.proto = other.proto
}

// addKernel adds what the kernel has answered.
func (t *tally) addKernel(counts []uint64) {
	for i, n := range counts {
		rcode, rest := i%len(countedRcodes), i/len(countedRcodes)
		t.answered[rest/len(countedTypes)][rest%len(countedTypes)][rcode].Add(n)
	}
}

func (t *tally) histogram(desc *prometheus.Desc) prometheus.Metric {
	buckets, total := map[float64]uint64{}, uint64(0)
	for i := range bucketCount {
		total += t.took[i].Load()
		buckets[(firstBucket << (2 * i)).Seconds()] = total
	}
	total += t.took[bucketCount].Load()
	return prometheus.MustNewConstHistogram(desc, total, time.Duration(t.nanos.Load()).Seconds(), buckets, t.proto)
}

func zoneLabel(zones []string, i int) string {
	if i < len(zones) {
		return zones[i]
	}
	return "other"
}

func typeLabel(t uint16) string {
	if t == 0 {
		return "other"
	}
	return dns.TypeToString[t]
}

func rcodeLabel(rcode int) string {
	switch name, ok := dns.RcodeToString[rcode]; {
	case rcode == dns.RcodeBadVers:
		return "BADVERS" // the library calls it BADSIG, which has the same number
	case ok:
		return name
	case rcode < 0:
		return "other"
	}
	return strconv.Itoa(rcode)
}
