package ipvs

import (
	"github.com/prometheus/client_golang/prometheus"
)

// collector reads what the kernel has counted at the time of a scrape.
type collector struct {
	d           *Dataplane
	reg         prometheus.Registerer
	connections *prometheus.Desc
	services    *prometheus.Desc
	foreign     *prometheus.Desc
	containers  *prometheus.Desc
}

func newMetrics(reg prometheus.Registerer, d *Dataplane) (*collector, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	c := &collector{
		d: d, reg: reg,
		connections: desc("waggle_ipvs_connections_total", "Connections of this machine's namespace to each VIP.", "vip", "proto"),
		services:    desc("waggle_ipvs_services", "Services of ours in this machine's namespace."),
		foreign:     desc("waggle_ipvs_foreign_services", "Services that somebody else has put there."),
		containers:  desc("waggle_ipvs_containers", "Containers balanced in namespaces of their own."),
	}
	if reg == nil {
		return c, nil
	}
	return c, reg.Register(c)
}

func (c *collector) close() {
	if c != nil && c.reg != nil {
		c.reg.Unregister(c)
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.services, c.foreign, c.containers} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	s := c.d.host
	if s == nil {
		return
	}
	gauge := func(desc *prometheus.Desc, n int) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n))
	}
	gauge(c.services, len(s.held))
	gauge(c.foreign, len(s.foreign))
	gauge(c.containers, len(c.d.containers))
	all, err := s.ipvs.GetServices()
	if err != nil {
		return // shown by what is missing
	}
	for _, k := range all {
		if f, svc, ok := fromKernel(k); ok && svc.flags&mark != 0 {
			ch <- prometheus.MustNewConstMetric(c.connections, prometheus.CounterValue, float64(k.Stats.Connections), f.Addr.String(), f.Proto.String())
		}
	}
}
