package zk

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	connected prometheus.Gauge
	members   prometheus.Gauge
	elections prometheus.Counter
	sessions  prometheus.Counter
	errors    prometheus.Counter
}

// newMetrics registers the metrics at reg, which may be nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "waggle_zookeeper_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "waggle_zookeeper_" + name, Help: help})
	}
	return &metrics{
		connected: gauge("connected", "1 while there is a session with a ZooKeeper server."),
		members:   gauge("members", "Candidates in the last answer, the leader included."),
		elections: counter("elections_total", "Leaders seen, the first included."),
		sessions:  counter("sessions_total", "Sessions had, one for each connection."),
		errors:    counter("errors_total", "Tries to read the election that failed."),
	}
}
