package api

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Traffic is what has gone through since a while before, per second.
type Traffic struct {
	At time.Time `json:"at"`
	// Seconds is how long it was counted for; 0 when there is nothing to compare
	// with yet, and then there are no rates.
	Seconds float64            `json:"seconds"`
	Queries float64            `json:"queries"` // DNS
	Rcodes  map[string]float64 `json:"rcodes"`  // of them by the code of the answer
	Forward map[string]float64 `json:"forward"` // questions about names of others, by what became of them
	VIPs    []VIPTraffic       `json:"vips"`    // those that were used
}

// VIPTraffic is what has gone through one VIP, per second.
type VIPTraffic struct {
	Address     string  `json:"address"` // with the port, as in host:port
	Protocol    string  `json:"protocol"`
	Connections float64 `json:"connections"`
	Refused     float64 `json:"refused"` // for lack of a backend, or because the client may not
	Failed      float64 `json:"failed"`  // where watched
}

// meter makes rates of counters. It is safe for concurrent use.
type meter struct {
	gather prometheus.Gatherer

	mu      sync.Mutex // guards the following
	at      time.Time
	before  map[sample]float64
	traffic Traffic
}

// sample is one counter: its metric, and those labels that tell it from others
// of it. What differs in other labels is one sum.
type sample struct{ metric, label, proto string }

// The counters that are read, by the labels that tell theirs apart.
var metered = map[string][2]string{
	"waggle_dns_requests_total":     {"rcode"},
	"waggle_forward_requests_total": {"result"},
	"waggle_ebpf_connections_total": {"vip", "protocol"},
	"waggle_ebpf_refusals_total":    {"vip", "protocol"},
	"waggle_ebpf_denied_total":      {"vip", "protocol"},
	"waggle_ebpf_failures_total":    {"vip", "protocol"},
	"waggle_ipvs_connections_total": {"vip", "proto"},
}

const (
	meterEvery = time.Second
	// meterStale is from when on counters are too old to compare with: a rate
	// over so long says nothing about now.
	meterStale = 30 * time.Second
)

// read returns the traffic up to now. All that ask within a second get the same.
func (m *meter) read(now time.Time) Traffic {
	m.mu.Lock()
	defer m.mu.Unlock()
	took := now.Sub(m.at)
	if took < meterEvery {
		return m.traffic
	}
	counted := m.count()
	t := Traffic{At: now, Rcodes: map[string]float64{}, Forward: map[string]float64{}, VIPs: []VIPTraffic{}}
	if m.before != nil && took < meterStale {
		t.Seconds = took.Seconds()
		t.compare(m.before, counted)
	}
	m.at, m.before, m.traffic = now, counted, t
	return t
}

func (m *meter) count() map[sample]float64 {
	out := map[sample]float64{}
	families, _ := m.gather.Gather() // what could be gathered is there in spite of an error
	for _, f := range families {
		labels, ok := metered[f.GetName()]
		if !ok {
			continue
		}
		for _, one := range f.GetMetric() {
			s := sample{f.GetName(), labelOf(one, labels[0]), labelOf(one, labels[1])}
			out[s] += one.GetCounter().GetValue()
		}
	}
	return out
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// compare sets the rates.
func (t *Traffic) compare(before, now map[sample]float64) {
	vips := map[[2]string]*VIPTraffic{}
	for s, n := range now {
		rate := (n - before[s]) / t.Seconds
		if rate <= 0 { // nothing, or a counter that began anew
			continue
		}
		switch s.metric {
		case "waggle_dns_requests_total":
			t.Queries += rate
			t.Rcodes[s.label] += rate
			continue
		case "waggle_forward_requests_total":
			t.Forward[s.label] += rate
			continue
		}
		v := vips[[2]string{s.label, s.proto}]
		if v == nil {
			v = &VIPTraffic{Address: s.label, Protocol: s.proto}
			vips[[2]string{s.label, s.proto}] = v
		}
		switch s.metric {
		case "waggle_ebpf_refusals_total", "waggle_ebpf_denied_total":
			v.Refused += rate
		case "waggle_ebpf_failures_total":
			v.Failed += rate
		default:
			v.Connections += rate
		}
	}
	for _, v := range vips {
		t.VIPs = append(t.VIPs, *v)
	}
	slices.SortFunc(t.VIPs, func(a, b VIPTraffic) int { return strings.Compare(a.Address+a.Protocol, b.Address+b.Protocol) })
}
