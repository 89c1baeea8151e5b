package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// sample collects durations.
type sample []time.Duration

// at returns the value that a fraction q of the sample does not exceed.
func (s sample) at(q float64) time.Duration {
	s = slices.Sorted(slices.Values(s))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// report adds the median and the 99th percentile in milliseconds.
func (s sample) report(b *testing.B, name string) {
	for _, q := range []int{50, 99} {
		b.ReportMetric(s.at(float64(q)/100).Seconds()*1e3, fmt.Sprintf("p%d-%s-ms", q, name))
	}
}

// ratios collects ratios of two things measured in turn.
type ratios []float64

// report adds the quartiles.
func (r ratios) report(b *testing.B, name string) {
	r = slices.Sorted(slices.Values(r))
	for _, q := range []int{25, 50, 75} {
		b.ReportMetric(r[len(r)*q/100], fmt.Sprintf("p%d-%s", q, name))
	}
}
