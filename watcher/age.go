package watcher

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// AgeGauge registers, at f, how long ago a Source was last told anything: last
// returns when, zero before the first time, when the start counts. It is safe for
// concurrent use if last is.
func AgeGauge(f promauto.Factory, name, help string, last func() time.Time) {
	start := time.Now()
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		if at := last(); !at.IsZero() {
			return time.Since(at).Seconds()
		}
		return time.Since(start).Seconds()
	})
}
