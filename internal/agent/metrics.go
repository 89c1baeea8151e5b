package agent

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	turns        prometheus.Counter
	applyErrors  prometheus.Counter
	drained      prometheus.Counter
	disconnected prometheus.Counter
	turn         prometheus.Histogram
	convergence  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, a *Agent) *metrics {
	f := promauto.With(reg)
	// From 50 µs, a turn that changes one app, to 13 s, a first picture of a
	// very large cluster.
	buckets := prometheus.ExponentialBuckets(50e-6, 4, 10)
	m := &metrics{
		turns: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_turns_total", Help: "Turns of the pipeline."}),
		applyErrors: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_apply_errors_total", Help: "Turns after which the kernel was not up to date."}),
		drained: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_drains_ended_total", Help: "Backends of services whose drain ended."}),
		disconnected: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_drain_sockets_ended_total", Help: "Sockets that were ended because the drain of their backend was over."}),
		turn: f.NewHistogram(prometheus.HistogramOpts{
			Name: "waggle_turn_duration_seconds", Help: "Time one turn of the pipeline took.", Buckets: buckets}),
		convergence: f.NewHistogram(prometheus.HistogramOpts{
			Name: "waggle_convergence_seconds", Help: "Time from a Snapshot's publication to its names and VIPs being served.", Buckets: buckets}),
	}
	gauge := func(name, help string, value func(*State) float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if s := a.State(); s != nil {
				return value(s)
			}
			return 0
		})
	}
	gauge("waggle_apps", "Apps in the Snapshot.", func(s *State) float64 { return float64(s.Snapshot.Apps.Len()) })
	gauge("waggle_services", "Services in the Table.", func(s *State) float64 { return float64(s.Table.Services.Len()) })
	gauge("waggle_drains", "Backends of services that are draining.", func(s *State) float64 {
		if s.Plan == nil {
			return 0
		}
		return float64(len(s.Plan.Draining()))
	})
	for reason, slow := range map[string]bool{"failures": false, "latency": true} {
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "waggle_backends_ejected", Help: "Backends of services that get no new connections because connects to them failed or took too long.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(a.State().ejected(slow)) })
	}
	gauge("waggle_services_failed", "Services that the kernel could not take as they should be, for lack of room say; each is a problem.", func(s *State) float64 {
		return float64(len(s.Failed))
	})
	gauge("waggle_problems", "Problems in the input, each of which costs only itself.", func(s *State) float64 {
		return float64(len(s.Problems()))
	})
	gauge("waggle_snapshot_published_timestamp_seconds", "When the newest Snapshot was published.", func(s *State) float64 {
		return float64(s.Published.UnixMilli()) / 1e3
	})
	if reg != nil {
		reg.MustRegister(newServices(a.State))
	}
	return m
}
