//go:build vmtest

package ipvs

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// TestCasesOfDCOSInAKernel runs those of dcosInMachine.
func TestCasesOfDCOSInAKernel(t *testing.T) {
	cases := dcosCases(t)
	run := map[string]func(t *testing.T, c dcosCase){
		"kernel/ipset-family":        addressesByFamily,
		"kernel/ipvs-add":            serviceIsAdded,
		"kernel/ipvs-v6":             serviceOfIPv6ComesAndGoes,
		"kernel/new-netns":           newNamespaceIsComplete,
		"kernel/restart-x3":          threeStarts,
		"kernel/route-host":          routeOfTheHost,
		"kernel/stale-after-restart": staleIsRemoved,
		"manager/route-shared":       routeIsShared,
	}
	if d := cmp.Diff(dcosInMachine, slices.Sorted(maps.Keys(run))); d != "" {
		t.Fatalf("(-want +got): %s", d)
	}
	for name, f := range run {
		t.Run(name, func(t *testing.T) { f(t, cases[name]) })
	}
}

// parse reads "tcp ADDR:PORT".
func parse(text string) vip.Frontend {
	proto, addr, _ := strings.Cut(text, " ")
	if proto == "udp" {
		return frontend(addr, model.UDP)
	}
	return frontend(addr, model.TCP)
}

// localRoutes are those in the host's table of local addresses to what is not on
// its links, as ip-route(8) writes them.
func (b *bed) localRoutes(t *testing.T) (out []string) {
	t.Helper()
	b.host.Must(t, func() error {
		list, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Protocol: protoWaggle}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		for _, r := range list {
			link, err := netlink.LinkByIndex(r.LinkIndex)
			if err != nil {
				return err
			}
			out = append(out, fmt.Sprintf("%s %s dev %s scope %s", netlinkType(r.Type), r.Dst.IP, link.Attrs().Name, r.Scope))
		}
		return err
	})
	return out
}

func netlinkType(t int) string {
	if t == unix.RTN_LOCAL {
		return "local"
	}
	return fmt.Sprint(t)
}

// backendOf is somebody, for what nobody connects to.
func backendOf(addr string) []lb.Backend {
	return []lb.Backend{{Addr: netip.MustParseAddrPort(addr), Weight: 1}}
}

// routeOfTheHost: as in DC/OS, but on lo: a link for VIPs is not needed.
func routeOfTheHost(t *testing.T, c dcosCase) {
	var input struct {
		Route string `json:"add_route"`
	}
	var expect map[string]string
	c.into(t, &input, &expect)
	b := newBed(t)
	d := b.open(t, b.config())
	f := frontend(input.Route+":80", model.TCP)
	must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{f: backendOf("10.77.0.2:80")}))
	want := strings.ReplaceAll(expect["ip route show table local"], "minuteman", "lo")
	if d := cmp.Diff([]string{want}, b.localRoutes(t)); d != "" {
		t.Errorf("(-want +got): %s", d)
	}
	must(t, b.want(t, d, nil))
	if got := b.localRoutes(t); expect["after_remove"] != "absent" || len(got) != 0 {
		t.Errorf("after the VIP was removed: %v", got)
	}
}

// serviceIsAdded: but for the scheduler, which is wrr unless the VIP asks for
// the least busy backend: weights mean shares.
func serviceIsAdded(t *testing.T, c dcosCase) {
	var input struct {
		Service string `json:"add_service"`
	}
	var expect struct {
		Save      string `json:"ipvsadm-save"`
		Scheduler string
	}
	c.into(t, &input, &expect)
	b := newBed(t)
	d := b.open(t, b.config())
	f := parse(input.Service)
	edit := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	edit.Set(f, &lb.Service{Frontend: f, Choice: lb.LeastActive})
	must(t, d.Apply(t.Context(), &lb.Plan{Services: edit.Groups()}))
	b.outsiders(t, func(h *ipvs.Handle) error {
		all, err := h.GetServices()
		if err != nil || len(all) != 1 {
			return fmt.Errorf("%v, %w", all, err)
		}
		got := fmt.Sprintf("-A -t %s:%d", all[0].Address, all[0].Port)
		if got != expect.Save || all[0].SchedName != expect.Scheduler {
			t.Errorf("%s -s %s, want %s -s %s", got, all[0].SchedName, expect.Save, expect.Scheduler)
		}
		return nil
	})
}

// serviceOfIPv6ComesAndGoes: with the backend, without it, without the VIP.
func serviceOfIPv6ComesAndGoes(t *testing.T, c dcosCase) {
	var input struct{ VIP string }
	var expect struct{ Results []string }
	c.into(t, &input, &expect)
	b := newBed(t)
	d := b.open(t, b.config())
	f := parse(input.VIP)
	one := lb.Backend{Addr: b.named(t, b.away, "["+away6.Addr().String()+"]:0"), Weight: 1}
	for i, services := range []map[vip.Frontend][]lb.Backend{{f: {one}}, {f: nil}, {}} {
		must(t, b.want(t, d, services))
		_, err := ask(b.host, f.Addr.String())
		if want := expect.Results[i] == "ok"; (err == nil) != want {
			t.Errorf("step %d: %v, want %s", i, err, expect.Results[i])
		}
	}
}

func threeStarts(t *testing.T, c dcosCase) {
	var input struct {
		StartStop int `json:"start_stop"`
	}
	var expect struct{ Errors int }
	c.into(t, &input, &expect)
	b := newBed(t)
	f := frontend("11.0.0.1:80", model.TCP)
	failed := 0
	for range input.StartStop {
		d := b.open(t, b.config())
		if b.want(t, d, map[vip.Frontend][]lb.Backend{f: backendOf("10.77.0.2:80")}) != nil || d.Close() != nil {
			failed++
		}
	}
	if failed != expect.Errors {
		t.Errorf("%d starts failed", failed)
	}
}

// addressesByFamily: what keeps port mappings off VIPs is a set for each family.
func addressesByFamily(t *testing.T, c dcosCase) {
	var input struct{ VIPs []string }
	var expect map[string][]string
	c.into(t, &input, &expect)
	b := newBed(t)
	d := b.open(t, b.config())
	must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{
		parse(input.VIPs[0]): backendOf("10.77.0.2:80"), parse(input.VIPs[1]): backendOf("[fd77::2]:80"),
	}))
	got := map[string][]string{}
	for i, name := range []string{"dcos-l4lb", "dcos-l4lb-ipv6"} {
		conn, err := d.host.guard.conn()
		must(t, err)
		elements, err := conn.GetSetElements(d.host.guard.tables[i].vips)
		must(t, err)
		for _, e := range elements {
			a, _ := netip.AddrFromSlice(e.Key)
			for f := range d.plan.Services.All() {
				if f.Addr.Addr() == a {
					got[name] = append(got[name], fmt.Sprintf("%s,%s:%d", a, f.Proto, f.Addr.Port()))
				}
			}
		}
	}
	if d := cmp.Diff(expect, got); d != "" {
		t.Errorf("(-want +got): %s", d)
	}
}

func staleIsRemoved(t *testing.T, c dcosCase) {
	var input struct{}
	var expect struct{ Wanted string }
	c.into(t, &input, &expect)
	b := newBed(t)
	d := b.open(t, b.config())
	must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{frontend("11.0.0.1:80", model.TCP): backendOf("10.77.0.2:80")}))
	must(t, d.Close())
	d = b.open(t, b.config())
	must(t, b.want(t, d, nil))
	if got := b.kernel(t); expect.Wanted != "removed at start" || len(got)+len(b.localRoutes(t)) != 0 {
		t.Errorf("after a restart: %v", got)
	}
}

// newNamespaceIsComplete is registered while the VIP exists and does not change.
func newNamespaceIsComplete(t *testing.T, c dcosCase) {
	var input struct{}
	var expect struct{ Wanted string }
	c.into(t, &input, &expect)
	b := newBed(t)
	d := b.open(t, b.config())
	must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{frontend("11.0.0.1:80", model.TCP): backendOf("10.77.0.2:80")}))
	container := testnet.New(t)
	s, err := openSpace("c", container.File(t), d.cfg, d.log)
	must(t, err)
	d.mu.Lock()
	d.containers["c"] = s
	d.inContainer(t.Context(), s)
	d.mu.Unlock()
	all, err := s.ipvs.GetServices()
	if err != nil || len(all) != 1 || expect.Wanted != "complete at once" {
		t.Errorf("%v, %v", all, err)
	}
}

func routeIsShared(t *testing.T, c dcosCase) {
	var input struct {
		VIPs    []string
		Removed string
	}
	var expect map[string]string
	c.into(t, &input, &expect)
	b := newBed(t)
	d := b.open(t, b.config())
	services := map[vip.Frontend][]lb.Backend{}
	for _, v := range input.VIPs {
		services[parse(v)] = backendOf("10.77.0.2:80")
	}
	must(t, b.want(t, d, services))
	delete(services, parse(input.Removed))
	must(t, b.want(t, d, services))
	if got := b.localRoutes(t); len(got) != 1 || expect["route_11.0.0.1"] != "stays" {
		t.Errorf("routes %v", got)
	}
}

// others are what DC/OS' daemon has in the kernel: a link with the routes of
// VIPs, rules of netfilter, services of IPVS.
func (b *bed) others(t *testing.T) (state func() []string) {
	t.Helper()
	b.host.Must(t, func() error {
		link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "minuteman"}}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{
			Dst: hostNet(netip.MustParseAddr("11.0.0.9")), LinkIndex: link.Index, Type: unix.RTN_LOCAL,
			Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
		})
	})
	b.outsiders(t, func(h *ipvs.Handle) error {
		k := kernelService(frontend("11.0.0.9:80", model.TCP), &service{sched: "wlc"})
		if err := h.NewService(k); err != nil {
			return err
		}
		return h.NewDestination(k, kernelDest(netip.MustParseAddrPort("10.77.0.2:1"), 1))
	})
	b.host.Must(t, masqueradeAll)
	return func() (all []string) {
		for f, dests := range b.kernel(t) {
			if strings.HasPrefix(f, "11.0.0.9:") {
				all = append(all, fmt.Sprint("service ", f, dests))
			}
		}
		b.host.Must(t, func() error {
			routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
			for _, r := range routes {
				// The kernel adds its own whenever an address of a link has settled.
				if r.Protocol != protoWaggle && r.Protocol != unix.RTPROT_KERNEL {
					all = append(all, r.String())
				}
			}
			if err != nil {
				return err
			}
			c, err := nftables.New()
			if err != nil {
				return err
			}
			chains, err := c.ListChains()
			for _, chain := range chains {
				if chain.Table.Name == tableName {
					continue
				}
				rules, err := c.GetRules(chain.Table, chain)
				if err != nil {
					return err
				}
				all = append(all, fmt.Sprintf("chain %s %s: %d rules", chain.Table.Name, chain.Name, len(rules)))
			}
			return err
		})
		slices.Sort(all)
		return all
	}
}

// masqueradeAll is the rule of DC/OS, as nft(8) writes it:
//
//	table ip nat { chain translate { type nat hook postrouting priority srcnat; oifname "minuteman" masquerade } }
func masqueradeAll() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	translate(c, "nat", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte("minuteman"), make([]byte, 7)...)},
		&expr.Masq{},
	)
	return c.Flush()
}

// TestAStartBesideDCOSTouchesNothingOfIts goes through a whole life: started,
// changed, damaged and repaired, started again, unloaded.
func TestAStartBesideDCOSTouchesNothingOfIts(t *testing.T) {
	b := newBed(t)
	state := b.others(t)
	before := state()
	if len(before) < 3 {
		t.Fatalf("DC/OS has %q", before)
	}
	one, two := frontend("11.0.0.1:80", model.TCP), frontend("11.0.0.2:80", model.TCP)
	backend := backendOf("10.77.0.2:80")
	check := func(when string) {
		t.Helper()
		if d := cmp.Diff(before, state()); d != "" {
			t.Errorf("%s (-before +after): %s", when, d)
		}
	}
	for range 2 {
		d := b.open(t, b.config())
		check("started")
		must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{one: backend, two: backend}))
		check("applied")
		must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{one: backend}))
		b.outsiders(t, func(h *ipvs.Handle) error { return h.DelService(kernelService(one, &service{})) })
		must(t, d.Repair(t.Context()))
		check("repaired")
		must(t, d.Close())
	}
	b.host.Must(t, func() error { _, err := Unload(b.config()); return err })
	check("unloaded")
}
