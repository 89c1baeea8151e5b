package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of our own HTTP interface.
type metrics struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, f *feed) *metrics {
	with := promauto.With(reg)
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "waggle_http_streams", Help: "Clients that follow changes over HTTP.",
	}, func() float64 { return float64(f.following()) })
	return &metrics{
		requests: with.NewCounterVec(prometheus.CounterOpts{
			Name: "waggle_http_requests_total", Help: "Requests of our HTTP interface that are over, by route and status. Without a route are those that fit none, or were refused before it was looked at.",
		}, []string{"route", "code"}),
		// From 100 µs, a small list, to 1.6 s.
		took: with.NewHistogramVec(prometheus.HistogramOpts{
			Name: "waggle_http_request_duration_seconds", Help: "Time to answer requests of our HTTP interface, by route, without streams.",
			Buckets: prometheus.ExponentialBuckets(1e-4, 4, 8),
		}, []string{"route"}),
	}
}

// counted counts what next answers.
func (m *metrics) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		noted := &noted{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(noted, r)
		// The mux sets the pattern; it is one of a few, whatever clients ask for.
		route := strings.TrimPrefix(r.Pattern, "GET ")
		m.requests.WithLabelValues(route, strconv.Itoa(noted.code)).Inc()
		if route != changesPath {
			m.took.WithLabelValues(route).Observe(time.Since(start).Seconds())
		}
	})
}

// noted notes the status of an answer.
type noted struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (n *noted) WriteHeader(code int) {
	n.code = code
	n.ResponseWriter.WriteHeader(code)
}

// Unwrap lets an http.ResponseController reach the writer below.
func (n *noted) Unwrap() http.ResponseWriter { return n.ResponseWriter }
