package file

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	reads    prometheus.Counter
	tasks    prometheus.Gauge
	problems prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		reads: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_file_reads_total", Help: "Times the files were looked at."}),
		tasks: f.NewGauge(prometheus.GaugeOpts{
			Name: "waggle_file_tasks", Help: "Tasks described in files."}),
		problems: f.NewGauge(prometheus.GaugeOpts{
			Name: "waggle_file_problems", Help: "Files and entries that could not be read."}),
	}
}
