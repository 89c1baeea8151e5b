package ebpf

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"

	"waggle/lb"
	"waggle/vip"
)

// collector reads the kernel's counters when it is asked for them.
type collector struct {
	reg prometheus.Registerer // nil for none

	connections, refusals, denied, failures                *prometheus.Desc // by service
	backend, backendFailures, active, latency              *prometheus.Desc // by backend
	services, size, free, waits, events, repairs, selfTest *prometheus.Desc

	// mu guards plane, which is nil once it is closed.
	mu    sync.Mutex
	plane *Dataplane
}

func newMetrics(reg prometheus.Registerer, d *Dataplane) (*collector, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("waggle_ebpf_"+name, help, labels, nil)
	}
	c := &collector{
		reg:             reg,
		plane:           d,
		connections:     desc("connections_total", "Connections sent to a backend; for UDP, sockets.", "vip", "protocol"),
		refusals:        desc("refusals_total", "Connections refused for lack of a backend.", "vip", "protocol"),
		denied:          desc("denied_total", "Connections of clients that may not connect.", "vip", "protocol"),
		failures:        desc("failures_total", "Connections that a backend refused or did not answer, where watched.", "vip", "protocol"),
		backend:         desc("backend_connections_total", "Connections sent to this backend since it joined the service.", "vip", "protocol", "backend"),
		backendFailures: desc("backend_failures_total", "Connections that this backend refused or did not answer, where watched.", "vip", "protocol", "backend"),
		active:          desc("backend_active", "Open sockets to this backend, where counted.", "vip", "protocol", "backend"),
		latency:         desc("backend_connect_seconds", "Time to connect, averaged over about the last eight, where watched.", "vip", "protocol", "backend"),
		services:        desc("services", "Services the kernel holds."),
		size:            desc("size", "Entries that a kernel map has room for.", "map"),
		free:            desc("free", "Entries of a kernel map that are not in use.", "map"),
		waits:           desc("waits_total", "Waits for running programs, so that what they read can be used again."),
		events:          desc("events_total", "Events told by the kernel, at most one a second for each service and CPU.", "what"),
		selfTest:        desc("selftest_ok", "Whether a process in a cgroup of its own got through a VIP at the last try."),
		repairs:         desc("repairs_total", "Programs and pins that somebody else removed and that were put back."),
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
	for _, d := range []*prometheus.Desc{
		c.connections, c.refusals, c.denied, c.failures, c.backend, c.backendFailures, c.active, c.latency,
		c.services, c.size, c.free, c.waits, c.events, c.repairs, c.selfTest,
	} {
		out <- d
	}
}

// maxBackendSeries is how many backends have series of their own. Where there
// are more, all of them do without.
const maxBackendSeries = 10_000

// Collect implements prometheus.Collector. It looks at the kernel without
// keeping Apply from its work.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.plane
	if d == nil {
		return
	}
	counts, err := d.counted()
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.connections, err)
		return
	}
	put := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
	}
	put(c.services, prometheus.GaugeValue, float64(len(counts.services)))
	for name, r := range counts.room {
		put(c.size, prometheus.GaugeValue, float64(r.size), name)
		put(c.free, prometheus.GaugeValue, float64(r.free), name)
	}
	put(c.waits, prometheus.CounterValue, float64(counts.waits))
	put(c.repairs, prometheus.CounterValue, float64(counts.repairs))
	if t := d.probe.result(); t != nil {
		ok := 0.0
		if t.Error == "" {
			ok = 1
		}
		put(c.selfTest, prometheus.GaugeValue, ok)
	}
	for _, what := range []string{NoBackend, Denied, FailedConnect} {
		put(c.events, prometheus.CounterValue, float64(counts.events[what]), what)
	}
	for _, s := range counts.services {
		labels := []string{s.frontend.Addr.String(), s.frontend.Proto.String()}
		put(c.connections, prometheus.CounterValue, float64(s.connections), labels...)
		put(c.refusals, prometheus.CounterValue, float64(s.Refusals), labels...)
		put(c.denied, prometheus.CounterValue, float64(s.Denied), labels...)
		put(c.failures, prometheus.CounterValue, float64(s.Failures), labels...)
		for _, b := range s.backends {
			labels := append(labels, b.Addr.String())
			put(c.backend, prometheus.CounterValue, float64(b.Connections), labels...)
			put(c.backendFailures, prometheus.CounterValue, float64(b.Failures), labels...)
			put(c.active, prometheus.GaugeValue, float64(b.Active), labels...)
			put(c.latency, prometheus.GaugeValue, b.Latency.Seconds(), labels...)
		}
	}
}

// serviceCounts is what the programs counted of one service.
type serviceCounts struct {
	bpfCounters
	frontend    vip.Frontend
	connections uint64
	backends    []lb.BackendStats // nil where there are too many of them
}

type counts struct {
	services       []serviceCounts
	room           map[string]room // by map
	events         map[string]uint64
	waits, repairs uint64
}

// room is how many entries a map has and how many are not in use.
type room struct{ size, free int }

// counted reads what is counted. It keeps Apply waiting only while it reads
// memory.
func (d *Dataplane) counted() (counts, error) {
	d.mu.Lock()
	s := d.services
	if s == nil {
		d.mu.Unlock()
		return counts{}, nil
	}
	held := d.heldLocked()
	c := counts{waits: s.waits, repairs: d.repairs, services: make([]serviceCounts, 0, len(held))}
	allow := int(d.objs.Allow.MaxEntries())
	c.room = map[string]room{
		bpfMapServices: {len(s.elems), s.freeIDs.room()}, bpfMapSlots: {len(s.slots), s.freeSlots.room()},
		bpfMapBackends: {len(s.backends), s.freeBackends.room()}, bpfMapAllow: {allow, allow - s.allow.n},
	}
	few := len(s.backends)-c.room[bpfMapBackends].free <= maxBackendSeries
	for f, id := range held {
		one := serviceCounts{frontend: f, connections: s.elems[id].Departed}
		for b := range s.stats(id) {
			one.connections += b.Connections
			if few {
				one.backends = append(one.backends, b)
			}
		}
		c.services = append(c.services, one)
	}
	d.mu.Unlock()
	var perCPU []bpfCounters
	for i := range c.services {
		one := &c.services[i]
		if err := d.objs.Counts.Lookup(held[one.frontend], &perCPU); err != nil {
			return c, err
		}
		for _, n := range perCPU {
			one.Refusals += n.Refusals
			one.Denied += n.Denied
			one.Failures += n.Failures
		}
	}
	remembered, err := d.clients()
	if err != nil {
		return c, err
	}
	size := int(d.objs.Clients.MaxEntries())
	c.room[bpfMapClients] = room{size, size - remembered}
	d.events.mu.Lock()
	c.events = maps.Clone(d.events.counts)
	d.events.mu.Unlock()
	return c, nil
}

// clients counts the clients of services with affinity that are remembered. The
// kernel does not say how many there are, but lists them, 0.1 µs each.
func (d *Dataplane) clients() (n int, err error) {
	keys, clients := make([]bpfClientKey, 4096), make([]bpfClient, 4096)
	cursor := new(ebpf.MapBatchCursor)
	for {
		some, err := d.objs.Clients.BatchLookup(cursor, keys, clients, nil)
		n += some
		if errors.Is(err, ebpf.ErrKeyNotExist) { // which says that this was all
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("count clients: %w", err)
		}
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
