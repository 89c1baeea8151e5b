package ebpf

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// values flattens what a registry gathers to "name{labels}" and value.
func values(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			name := strings.TrimPrefix(f.GetName(), "waggle_ebpf_")
			out[fmt.Sprintf("%s{%s}", name, strings.Join(labels, ","))] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

func TestMetricsAreWhatTheKernelCounted(t *testing.T) {
	b := newBed(t)
	reg := prometheus.NewPedanticRegistry()
	d := b.openWith(t, reg)
	to4, to6 := b.sink(t, "127.0.0.1:0"), b.sink(t, "[::1]:0")
	apply(t, d, service(vip4, to4, to4), service(vip6, to6), service("11.0.0.2:80"))
	for connectTo, times := range map[string]int{vip4: 5, vip6: 3, "11.0.0.2:80": 2} {
		for range times {
			if _, err := b.peer(addr(connectTo)); err != nil && !isRefused(err) {
				t.Fatal(err)
			}
		}
	}
	clients := float64(d.objs.Clients.MaxEntries()) // 6.1 makes small ones larger
	want := map[string]float64{
		"connections_total{tcp,11.0.0.1:80}":  5,
		"connections_total{tcp,[fd01::1]:80}": 3,
		"connections_total{tcp,11.0.0.2:80}":  0,
		"refusals_total{tcp,11.0.0.1:80}":     0,
		"refusals_total{tcp,[fd01::1]:80}":    0,
		"refusals_total{tcp,11.0.0.2:80}":     2,
		"services{}":                          3,
		"free{slots}":                         float64(b.cfg.Slots - 2), // one service is a row
		"free{backends}":                      float64(b.cfg.Backends - 2),
		"free{services}":                      float64(b.cfg.Services - 3),
		"free{allow}":                         float64(b.cfg.Allow),
		"free{clients}":                       clients,
		"size{slots}":                         float64(b.cfg.Slots),
		"size{backends}":                      float64(b.cfg.Backends),
		"size{services}":                      float64(b.cfg.Services),
		"size{allow}":                         float64(b.cfg.Allow),
		"size{clients}":                       clients,
		"waits_total{}":                       0,
		"repairs_total{}":                     0,
	}
	for f, to := range map[string]string{vip4: to4.String(), vip6: to6.String()} {
		labels := fmt.Sprintf("{%s,tcp,%s}", to, f)
		want["backend_connections_total"+labels] = want["connections_total{tcp,"+f+"}"]
		want["backend_failures_total"+labels], want["backend_active"+labels], want["backend_connect_seconds"+labels] = 0, 0, 0
	}
	for _, f := range []string{vip4, vip6, "11.0.0.2:80"} {
		want["denied_total{tcp,"+f+"}"], want["failures_total{tcp,"+f+"}"] = 0, 0
	}
	for _, what := range []string{NoBackend, Denied, FailedConnect} {
		want["events_total{"+what+"}"] = 0
	}
	got := values(t, reg)
	// The kernel tells of a refusal in its own time.
	delete(want, "events_total{no backend}")
	delete(got, "events_total{no backend}")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	// A service that takes over the id of another starts from zero.
	apply(t, d)
	for i := range b.cfg.Services {
		apply(t, d, service(fmt.Sprintf("11.0.1.%d:80", i)))
	}
	for name, v := range values(t, reg) {
		if strings.HasPrefix(name, "connections") && v != 0 || strings.HasPrefix(name, "refusals") && v != 0 {
			t.Errorf("%s is %v", name, v)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if left := values(t, reg); len(left) > 0 {
		t.Errorf("metrics after Close: %v", left)
	}
	b.openWith(t, reg) // registers anew
}
