package zk

import (
	"time"

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

// newMetrics registers the metrics at reg, which may be nil. status returns what
// is seen.
func newMetrics(reg prometheus.Registerer, status func() Status) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "waggle_zookeeper_unseen_seconds", Help: "Time for which there has been no session; 0 while there is one.",
	}, func() float64 {
		s := status()
		if s.Connected {
			return 0
		}
		return time.Since(s.Changed).Seconds()
	})
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
