package archive

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	writes, errors, seconds prometheus.Counter
	bytes                   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, status func() Status) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "waggle_archive_restored_timestamp_seconds",
		Help: "When the Snapshot from the disk that is still served was published; 0 when none is.",
	}, func() float64 {
		if at := status().Restored; !at.IsZero() {
			return float64(at.UnixMilli()) / 1e3
		}
		return 0
	})
	return &metrics{
		writes: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_archive_writes_total", Help: "Times the Snapshot was written to the disk, in vain or not."}),
		errors: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_archive_write_errors_total", Help: "Times it could not be written."}),
		seconds: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_archive_write_seconds_total", Help: "Time spent writing the Snapshot to the disk."}),
		bytes: f.NewGauge(prometheus.GaugeOpts{
			Name: "waggle_archive_bytes", Help: "Size of the Snapshot on the disk."}),
	}
}
