package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"waggle/vip"
)

// maxServiceSeries is how many services have series of their own. Where there
// are more, all of them do without; the sums stay.
const maxServiceSeries = 10_000

// services shows the rows of the Table that the kernel has. It works them out
// when it is asked for them.
type services struct {
	state                     func() *State
	info, backends, all, idle *prometheus.Desc
}

func newServices(state func() *State) *services {
	return &services{
		state:    state,
		info:     prometheus.NewDesc("waggle_service_info", "The name of a VIP, 1: joins with counters by vip and protocol.", []string{"vip", "protocol", "service"}, nil),
		backends: prometheus.NewDesc("waggle_service_backends", "Backends of a VIP by state: up, draining, unhealthy.", []string{"vip", "protocol", "state"}, nil),
		all:      prometheus.NewDesc("waggle_backends", "Backends of all VIPs by state.", []string{"state"}, nil),
		idle:     prometheus.NewDesc("waggle_services_without_backends", "VIPs of which no backend is up.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *services) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.info, c.backends, c.all, c.idle} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *services) Collect(out chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, n int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	states := [...]vip.State{vip.Up, vip.Draining, vip.Unhealthy}
	sum, idle := map[vip.State]int{}, 0
	if s := c.state(); s != nil && s.Applied != nil {
		each := s.Applied.Services.Len() <= maxServiceSeries
		for f, row := range s.Applied.Services.All() {
			n := map[vip.State]int{}
			for _, b := range row.Backends {
				n[b.State]++
				sum[b.State]++
			}
			if n[vip.Up] == 0 {
				idle++
			}
			if !each {
				continue
			}
			addr, proto := f.Addr.String(), f.Proto.String()
			put(c.info, 1, addr, proto, row.Name)
			for _, st := range states {
				put(c.backends, n[st], addr, proto, st.String())
			}
		}
	}
	for _, st := range states {
		put(c.all, sum[st], st.String())
	}
	put(c.idle, idle)
}
