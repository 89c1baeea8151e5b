package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestRatesAreWhatCountersGainedInASecond(t *testing.T) {
	reg := prometheus.NewRegistry()
	counter := func(name string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
		reg.MustRegister(c)
		return c
	}
	queries := counter("waggle_dns_requests_total", "proto", "rcode")
	connections := counter("waggle_ebpf_connections_total", "vip", "protocol")
	failures := counter("waggle_ebpf_failures_total", "vip", "protocol")
	connections.WithLabelValues("11.0.0.1:80", "tcp").Add(1000)
	connections.WithLabelValues("11.0.0.2:80", "tcp").Add(1000)
	m := &meter{gather: reg}
	start := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	if got := m.read(start); got.Seconds != 0 || len(got.VIPs) != 0 {
		t.Errorf("with nothing to compare: %+v", got)
	}
	queries.WithLabelValues("udp", "NOERROR").Add(30)
	queries.WithLabelValues("tcp", "NOERROR").Add(10)
	queries.WithLabelValues("udp", "NXDOMAIN").Add(4)
	connections.WithLabelValues("11.0.0.1:80", "tcp").Add(8)
	failures.WithLabelValues("11.0.0.1:80", "tcp").Add(2)
	want := Traffic{
		At: start.Add(2 * time.Second), Seconds: 2, Queries: 22, Rcodes: map[string]float64{"NOERROR": 20, "NXDOMAIN": 2},
		Forward: map[string]float64{}, VIPs: []VIPTraffic{{Address: "11.0.0.1:80", Protocol: "tcp", Connections: 4, Failed: 1}},
	}
	for _, at := range []time.Duration{2 * time.Second, 2500 * time.Millisecond} { // the second asks too soon
		if d := cmp.Diff(want, m.read(start.Add(at))); d != "" {
			t.Error(d)
		}
	}
	if got := m.read(start.Add(time.Hour)); got.Seconds != 0 {
		t.Errorf("an hour later: %+v", got)
	}
}
