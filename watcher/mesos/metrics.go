package mesos

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"waggle/watcher"
)

type metrics struct {
	events     *prometheus.CounterVec
	bytes      prometheus.Counter
	reconnects prometheus.Counter
	unknown    prometheus.Counter
	published  prometheus.Counter
	polls      prometheus.Counter
	connected  prometheus.Gauge
	tasks      prometheus.Gauge
	agents     prometheus.Gauge
	frameworks prometheus.Gauge
	problems   prometheus.Gauge
	heldAgents prometheus.Gauge
	heldTasks  prometheus.Gauge
}

// newMetrics registers the metrics at reg, which may be nil. last returns when
// the last event came, zero before the first.
func newMetrics(reg prometheus.Registerer, last func() time.Time) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "waggle_mesos_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "waggle_mesos_" + name, Help: help})
	}
	watcher.AgeGauge(f, "waggle_mesos_age_seconds",
		"Time since the last event, heartbeats included; since the start before the first.", last)
	return &metrics{
		events: f.NewCounterVec(prometheus.CounterOpts{
			Name: "waggle_mesos_events_total", Help: "Events received and taken, by type."}, []string{"type"}),
		bytes:      counter("received_bytes_total", "Bytes of events received."),
		reconnects: counter("reconnects_total", "Tries to follow a master that ended, however long they went well."),
		unknown:    counter("unknown_task_updates_total", "Updates for tasks that were never described."),
		polls:      counter("polls_total", "Times that the whole state was asked for and read."),
		published:  counter("snapshots_total", "Snapshots published."),
		connected:  gauge("connected", "1 while an event stream has delivered its first picture and is alive."),
		tasks:      gauge("tasks", "Tasks known, terminal ones that a master still lists included."),
		agents:     gauge("agents", "Agents known."),
		frameworks: gauge("frameworks", "Frameworks known."),
		heldAgents: gauge("held_agents", "Agents that a new master has not heard from yet."),
		heldTasks:  gauge("held_tasks", "Tasks served as they were last known, since their agent is held."),
		problems:   gauge("problems", "What could not be read or used of what the master says, now."),
	}
}
