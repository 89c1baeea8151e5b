//go:build vmtest

package bench

import (
	"net/netip"
	"os"
	"strconv"
	"testing"

	"go.uber.org/zap"

	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/lb/ipvs"
	"waggle/model"
	"waggle/vip"
)

// vmVIPs is how many VIPs there are, of a hundred backends each.
const vmVIPs = 100

// TestBalancersSideBySide measures in one boot of a machine. Clients and backends
// are in namespaces joined by a link, since IPVS does nothing for loopback. IPVS
// and its rules of netfilter are in namespaces of their own, with a direct
// client as well, so that what others pay for them is seen.
func TestBalancersSideBySide(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("BENCH_ROUNDS"))
	if err != nil || rounds < 1 {
		t.Fatalf("BENCH_ROUNDS: %v", err)
	}
	node, dests := joined(t, backends)
	all := []*rival{{name: "direct", base: "direct", crew: hire(t, node, "", dests)}}
	add := func(name string, c crew) { all = append(all, &rival{name: name, base: "direct", crew: c}) }
	cgroup, vips := balance(t, vmVIPs, dests, lb.Random)
	add("eBPF, lean", hire(t, node, cgroup, vips))
	cgroup, vips = balance(t, vmVIPs, dests, lb.LeastActive)
	add("eBPF, tracked", hire(t, node, cgroup, vips))
	node, dests = joined(t, backends)
	add("IPVS", hire(t, node, "", byIPVS(t, node, dests)))
	add("beside IPVS", hire(t, node, "", dests))
	for _, c := range all {
		c.took, c.ratios = map[string]sample{}, map[string][]float64{}
	}
	for _, kind := range []string{"connect", "rr", "bulk"} {
		for i := range rounds {
			round(t, all, kind, i)
		}
	}
	report(all)
}

// byIPVS makes VIPs in the namespace that lead to dests.
func byIPVS(t *testing.T, node *testnet.Namespace, dests []netip.AddrPort) (vips []netip.AddrPort) {
	t.Helper()
	list := alike(dests)
	services := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	for i := range vmVIPs {
		f := vip.Frontend{Addr: numbered(i), Proto: model.TCP}
		services.Set(f, &lb.Service{Frontend: f, Backends: list})
		vips = append(vips, f.Addr)
	}
	var plane *ipvs.Dataplane
	node.Must(t, func() (err error) {
		plane, err = ipvs.Open(ipvs.Config{Node4: netip.MustParseAddr("10.77.0.1")}, zap.NewNop(), nil)
		return err
	})
	t.Cleanup(func() {
		if err := plane.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := plane.Apply(t.Context(), &lb.Plan{Services: services.Groups()}); err != nil {
		t.Fatal(err)
	}
	return vips
}
