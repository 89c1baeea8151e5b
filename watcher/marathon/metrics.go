package marathon

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"waggle/watcher"
)

type metrics struct {
	events     *prometheus.CounterVec
	reads      *prometheus.CounterVec
	reconnects prometheus.Counter
	published  prometheus.Counter
	connected  prometheus.Gauge
	apps       prometheus.Gauge
}

// newMetrics registers the metrics at reg, which may be nil. last returns when
// Marathon was last heard, zero before.
func newMetrics(reg prometheus.Registerer, last func() time.Time) *metrics {
	f := promauto.With(reg)
	watcher.AgeGauge(f, "waggle_marathon_age_seconds",
		"Time since Marathon was last heard, heartbeats included; since the start before the first.", last)
	return &metrics{
		events: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waggle_marathon_events_total", Help: "Events received, by type."}, []string{"type"}),
		reads: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waggle_marathon_reads_total", Help: "Times that Marathon was asked, by what for: all, or one app or pod."}, []string{"what"}),
		reconnects: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_marathon_reconnects_total", Help: "Tries to follow a Marathon that ended, however long they went well."}),
		published: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_marathon_snapshots_total", Help: "Snapshots published."}),
		connected: f.NewGauge(prometheus.GaugeOpts{
			Name: "waggle_marathon_connected", Help: "1 while everything has been read and changes are told of."}),
		apps: f.NewGauge(prometheus.GaugeOpts{
			Name: "waggle_marathon_run_specs", Help: "Apps and pods known."}),
	}
}
