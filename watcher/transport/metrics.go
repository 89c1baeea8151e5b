package transport

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	logins *prometheus.CounterVec
	stale  prometheus.Counter
}

// newMetrics registers the metrics of source at reg, which may be nil.
func newMetrics(reg prometheus.Registerer, source string) *metrics {
	f := promauto.With(reg)
	of := prometheus.Labels{"source": source}
	return &metrics{
		logins: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waggle_transport_logins_total", Help: "Logins of the service account, by result.", ConstLabels: of,
		}, []string{"result"}),
		stale: f.NewCounter(prometheus.CounterOpts{
			Name: "waggle_transport_unusable_files_total", ConstLabels: of,
			Help: "Times that a file with credentials or certificates could not be used any more, and its last content was.",
		}),
	}
}

func (m *metrics) loggedIn(err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.logins.WithLabelValues(result).Inc()
}
