package ebpf

import (
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the kernel's counters when it is asked for them.
type collector struct {
	reg prometheus.Registerer // nil for none

	connections, refusals, services, free, waits *prometheus.Desc

	// mu guards plane, which is nil once it is closed.
	mu    sync.Mutex
	plane *Dataplane
}

func newMetrics(reg prometheus.Registerer, d *Dataplane) (*collector, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("waggle_ebpf_"+name, help, labels, nil)
	}
	c := &collector{
		reg:         reg,
		plane:       d,
		connections: desc("connections_total", "Connections sent to a backend.", "vip", "protocol"),
		refusals:    desc("refusals_total", "Connections refused for lack of a backend.", "vip", "protocol"),
		services:    desc("services", "Services the kernel holds."),
		free:        desc("free", "Entries of a kernel map that are not in use.", "map"),
		waits:       desc("waits_total", "Waits for running programs, so that what they read can be used again."),
	}
	if reg == nil {
		return c, nil
	}
	if err := reg.Register(c); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return c, nil
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.refusals, c.services, c.free, c.waits} {
		out <- d
	}
}

// Collect implements prometheus.Collector. It looks at the kernel without
// keeping Apply from its work.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.plane
	if d == nil {
		return
	}
	d.mu.Lock()
	held := d.heldLocked()
	free := map[string]int{bpfMapSvc: d.services.ids.room(), bpfMapSlot4: d.v4.slots.room(), bpfMapSlot6: d.v6.slots.room()}
	waits := d.services.waits
	d.mu.Unlock()

	gauge := func(desc *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(desc *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(c.services, len(held))
	for name, n := range free {
		gauge(c.free, n, name)
	}
	counter(c.waits, waits)
	var perCPU []bpfCounters
	for f, id := range held {
		if err := d.objs.StSvc.Lookup(id, &perCPU); err != nil {
			out <- prometheus.NewInvalidMetric(c.connections, err)
			return
		}
		var sum bpfCounters
		for _, n := range perCPU {
			sum.Connections += n.Connections
			sum.Refusals += n.Refusals
		}
		counter(c.connections, sum.Connections, f.Addr.String(), f.Proto.String())
		counter(c.refusals, sum.Refusals, f.Addr.String(), f.Proto.String())
	}
}

// close ends what the collector has to say. A nil collector has nothing to say.
func (c *collector) close() {
	if c == nil {
		return
	}
	if c.reg != nil {
		c.reg.Unregister(c)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plane = nil
}
