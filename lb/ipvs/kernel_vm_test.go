//go:build vmtest

package ipvs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap/zaptest"

	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// patience bounds waits for what must happen; emulation is slow.
const patience = 60 * time.Second

// bed is a machine with IPVS (host), and one beside it with backends.
type bed struct {
	host, away *testnet.Namespace
	plan       *lb.Plan
}

var (
	hostAddr = netip.MustParsePrefix("10.77.0.1/24")
	awayAddr = netip.MustParsePrefix("10.77.0.2/24")
	host6    = netip.MustParsePrefix("fd77::1/64")
	away6    = netip.MustParsePrefix("fd77::2/64")
)

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{host: testnet.New(t), away: testnet.New(t), plan: &lb.Plan{}}
	testnet.Link(t, b.host, hostAddr, b.away, awayAddr)
	b.host.Addr(t, "wt1", host6)
	b.away.Addr(t, "wt1", away6)
	return b
}

func (b *bed) config() Config {
	return Config{Node4: hostAddr.Addr(), Node6: host6.Addr()}
}

// open opens a Dataplane in the host's namespace.
func (b *bed) open(t *testing.T, cfg Config) *Dataplane {
	t.Helper()
	var d *Dataplane
	b.host.Must(t, func() (err error) {
		d, err = Open(cfg, zaptest.NewLogger(t), nil)
		return err
	})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// named serves its own name to each connection.
func (b *bed) named(t *testing.T, ns *testnet.Namespace, addr string) netip.AddrPort {
	t.Helper()
	return ns.Serve(t, netip.MustParseAddrPort(addr), func(c net.Conn) {
		fmt.Fprintf(c, "%s from %s\n", c.LocalAddr(), c.RemoteAddr())
	})
}

// ask connects from ns and returns what it is told.
func ask(ns *testnet.Namespace, addr string) (said string, err error) {
	err = ns.Do(func() error {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			return err
		}
		defer c.Close()
		text, err := io.ReadAll(c)
		said = strings.TrimSpace(string(text))
		return err
	})
	return said, err
}

// want applies a Plan with these services, "proto addr" to backends.
func (b *bed) want(t *testing.T, d *Dataplane, services map[vip.Frontend][]lb.Backend) error {
	t.Helper()
	edit := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	for f, backends := range services {
		edit.Set(f, &lb.Service{Frontend: f, Backends: backends})
	}
	b.plan = &lb.Plan{Services: edit.Groups()}
	return d.Apply(t.Context(), b.plan)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestConnectionsGoToBackendsByWeight(t *testing.T) {
	b := newBed(t)
	d := b.open(t, b.config())
	one, two := b.named(t, b.away, awayAddr.Addr().String()+":0"), b.named(t, b.away, awayAddr.Addr().String()+":0")
	six := b.named(t, b.away, "["+away6.Addr().String()+"]:0")
	v4, v6 := frontend("11.0.0.1:80", model.TCP), frontend("[fd01:c::1]:80", model.TCP)
	must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{
		v4: {{Addr: one, Weight: 3}, {Addr: two, Weight: 1}}, v6: {{Addr: six, Weight: 1}},
	}))
	got := map[string]int{}
	for range 40 {
		said, err := ask(b.host, v4.Addr.String())
		must(t, err)
		where, from, _ := strings.Cut(said, " from ")
		got[where]++
		if !strings.HasPrefix(from, hostAddr.Addr().String()+":") {
			t.Fatalf("the backend sees %s", from)
		}
	}
	if got[one.String()] != 30 || got[two.String()] != 10 {
		t.Errorf("the shares are %v, want 3 to 1 of 40", got)
	}
	if said, err := ask(b.host, v6.Addr.String()); err != nil || !strings.HasPrefix(said, six.String()) {
		t.Errorf("over IPv6: %q, %v", said, err)
	}
}

// kernel returns what IPVS holds in the host's namespace, as people write it.
func (b *bed) kernel(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	b.host.Must(t, func() error {
		h, err := ipvs.New("")
		if err != nil {
			return err
		}
		defer h.Close()
		all, err := h.GetServices()
		for _, s := range all {
			key := net.JoinHostPort(s.Address.String(), fmt.Sprint(s.Port))
			out[key] = []string{}
			dests, err := h.GetDestinations(s)
			if err != nil {
				return err
			}
			for _, d := range dests {
				out[key] = append(out[key], fmt.Sprintf("%s:%d w%d", d.Address, d.Port, d.Weight))
			}
		}
		return err
	})
	return out
}

// outsiders does to IPVS what others may do.
func (b *bed) outsiders(t *testing.T, do func(h *ipvs.Handle) error) {
	t.Helper()
	b.host.Must(t, func() error {
		h, err := ipvs.New("")
		if err != nil {
			return err
		}
		defer h.Close()
		return do(h)
	})
}

func TestOutsideDamageIsRepaired(t *testing.T) {
	b := newBed(t)
	d := b.open(t, b.config())
	one := b.named(t, b.away, awayAddr.Addr().String()+":0")
	f := frontend("11.0.0.1:80", model.TCP)
	must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{f: {{Addr: one, Weight: 1}}}))
	for name, damage := range map[string]func(){
		"ipvsadm -C": func() { b.outsiders(t, (*ipvs.Handle).Flush) },
		"a backend gone": func() {
			b.outsiders(t, func(h *ipvs.Handle) error {
				return h.DelDestination(kernelService(f, &service{}), kernelDest(one, 0))
			})
		},
		"the route gone": func() {
			b.host.Must(t, func() error {
				r, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 255, Protocol: protoWaggle}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
				if err != nil || len(r) != 1 {
					return fmt.Errorf("%v, %w", r, err)
				}
				return netlink.RouteDel(&r[0])
			})
		},
		"the rules gone": func() {
			b.host.Must(t, func() error { _, err := removeGuard(); return err })
		},
		"the settings changed": func() {
			b.host.Must(t, func() error {
				return errors.Join(os.WriteFile(setting("conntrack"), []byte("0"), 0), os.WriteFile(setting("expire_nodest_conn"), []byte("0"), 0))
			})
		},
		"nothing": func() {},
	} {
		damage()
		must(t, d.Repair(t.Context()))
		if said, err := ask(b.host, f.Addr.String()); err != nil || !strings.HasPrefix(said, one.String()) {
			t.Errorf("after %s: %q, %v", name, said, err)
		}
		if d.host.guard.err != nil {
			t.Errorf("after %s: %v", name, d.host.guard.err)
		}
		b.host.Must(t, func() error {
			for _, s := range []string{"conntrack", "expire_nodest_conn", "expire_quiescent_template", "conn_reuse_mode"} {
				if got, err := os.ReadFile(setting(s)); err != nil || string(got) != "1\n" {
					t.Errorf("after %s: %s is %q, %v", name, s, got, err)
				}
			}
			return nil
		})
	}
}

func TestARestartSweepsWhatIsStaleAndLeavesWhatIsOthers(t *testing.T) {
	b := newBed(t)
	one := b.named(t, b.away, awayAddr.Addr().String()+":0")
	theirs := frontend("11.0.0.9:80", model.TCP)
	b.outsiders(t, func(h *ipvs.Handle) error { // as DC/OS makes it
		k := kernelService(theirs, &service{sched: "wlc"})
		if err := h.NewService(k); err != nil {
			return err
		}
		return h.NewDestination(k, kernelDest(netip.MustParseAddrPort("10.77.0.2:1"), 1))
	})
	kept, stale := frontend("11.0.0.1:80", model.TCP), frontend("11.0.0.2:80", model.TCP)
	backend := []lb.Backend{{Addr: one, Weight: 1}}
	d := b.open(t, b.config())
	err := b.want(t, d, map[vip.Frontend][]lb.Backend{kept: backend, stale: backend, theirs: backend})
	var failed *lb.ServiceError
	if !errors.Is(err, ErrForeign) || !errors.As(err, &failed) || failed.Frontend != theirs {
		t.Errorf("a service of others: %v", err)
	}
	must(t, d.Close())
	for range 3 {
		d = b.open(t, b.config())
		must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{kept: backend}))
		got := b.kernel(t)
		if len(got) != 2 || len(got["11.0.0.1:80"]) != 1 || got["11.0.0.9:80"][0] != "10.77.0.2:1 w1" {
			t.Errorf("after a restart: %v", got)
		}
		must(t, d.Close())
	}
	cfg := b.config()
	cfg.TakeOver = true
	d = b.open(t, cfg)
	must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{theirs: backend}))
	if said, err := ask(b.host, theirs.Addr.String()); err != nil || !strings.HasPrefix(said, one.String()) {
		t.Errorf("taken over: %q, %v", said, err)
	}
	must(t, d.Close())
	b.host.Must(t, func() error {
		removed, err := Unload(cfg)
		if len(removed) == 0 {
			t.Error("nothing was removed")
		}
		return err
	})
	if got := b.kernel(t); len(got) != 0 {
		t.Errorf("after Unload: %v", got)
	}
	b.host.Must(t, func() error {
		r, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: 255, Protocol: protoWaggle}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if len(r) != 0 {
			t.Errorf("after Unload: routes %v", r)
		}
		return err
	})
}

// TestAContainerIsBalancedAtOnceWhenItIsRegistered registers a namespace while
// VIPs of both families exist and do not change.
func TestAContainerIsBalancedAtOnceWhenItIsRegistered(t *testing.T) {
	b := newBed(t)
	container := testnet.New(t)
	testnet.Link(t, b.host, netip.MustParsePrefix("10.78.0.1/24"), container, netip.MustParsePrefix("10.78.0.2/24"))
	b.host.Addr(t, "wt2", netip.MustParsePrefix("fd78::1/64"))
	container.Addr(t, "wt1", netip.MustParsePrefix("fd78::2/64"))
	for _, a := range []string{"10.78.0.1", "fd78::1"} {
		container.Default(t, netip.MustParseAddr(a))
	}
	b.away.Default(t, hostAddr.Addr())
	b.away.Default(t, host6.Addr())
	b.host.Must(t, func() error {
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	})
	from := map[vip.Frontend]string{frontend("11.0.0.1:80", model.TCP): "10.78.0.2:", frontend("[fd01:c::1]:80", model.TCP): "[fd78::2]:"}
	services := map[vip.Frontend][]lb.Backend{}
	for f := range from {
		at := awayAddr.Addr()
		if f.Addr.Addr().Is6() {
			at = away6.Addr()
		}
		services[f] = []lb.Backend{{Addr: b.named(t, b.away, netip.AddrPortFrom(at, 0).String()), Weight: 1}}
	}
	cfg := b.config()
	cfg.Containers = filepath.Join(t.TempDir(), "l4lb") // which does not exist yet
	d := b.open(t, cfg)
	must(t, b.want(t, d, services))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	must(t, os.Mkdir(cfg.Containers, 0o755))
	must(t, os.WriteFile(filepath.Join(cfg.Containers, "c1"), []byte(container.File(t)), 0o600))
	for f, want := range from {
		eventually(t, f.Addr.String()+" is balanced in the container's own namespace", func() bool {
			said, err := ask(container, f.Addr.String())
			return err == nil && strings.Contains(said, " from "+want)
		})
	}
	d.mu.Lock()
	n := len(d.containers)
	d.mu.Unlock()
	if n != 1 {
		t.Errorf("%d containers", n)
	}
	must(t, os.Remove(filepath.Join(cfg.Containers, "c1")))
	eventually(t, "it is let go", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.containers) == 0
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestWhatIsForwardedIsBalancedAndAnswered sends from a namespace that is not
// registered through the host to a backend that has no way back to it.
func TestWhatIsForwardedIsBalancedAndAnswered(t *testing.T) {
	b := newBed(t)
	container := testnet.New(t)
	testnet.Link(t, b.host, netip.MustParsePrefix("10.78.0.1/24"), container, netip.MustParsePrefix("10.78.0.2/24"))
	container.Default(t, netip.MustParseAddr("10.78.0.1"))
	b.host.Must(t, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	one := b.named(t, b.away, awayAddr.Addr().String()+":0")
	f := frontend("11.0.0.1:80", model.TCP)
	d := b.open(t, b.config())
	must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{f: {{Addr: one, Weight: 1}}}))
	said, err := ask(container, f.Addr.String())
	if err != nil || !strings.Contains(said, "from "+hostAddr.Addr().String()) {
		t.Errorf("%q, %v; rules: %v", said, err, d.host.guard.err)
	}
}

// TestAPortMappingDoesNotTakeAVIPsTraffic makes the rule that container runtimes
// make for a published port, with the VIP's own number (dcos-net#138).
func TestAPortMappingDoesNotTakeAVIPsTraffic(t *testing.T) {
	b := newBed(t)
	one, mapped := b.named(t, b.away, awayAddr.Addr().String()+":0"), b.named(t, b.away, awayAddr.Addr().String()+":0")
	f := frontend("11.0.0.1:8080", model.TCP)
	d := b.open(t, b.config())
	must(t, b.want(t, d, map[vip.Frontend][]lb.Backend{f: {{Addr: one, Weight: 1}}}))
	b.host.Must(t, func() error { return mapPort(8080, mapped) })
	if said, err := ask(b.host, hostAddr.Addr().String()+":8080"); err != nil || !strings.HasPrefix(said, mapped.String()) {
		t.Fatalf("the mapping itself does not work: %q, %v", said, err)
	}
	if said, err := ask(b.host, f.Addr.String()); err != nil || !strings.HasPrefix(said, one.String()) {
		t.Errorf("the VIP leads to %q, %v; rules: %v", said, err, d.host.guard.err)
	}
}

// TestAWalkEndsWhereAFreshStartDoes changes Plans at random, with restarts and
// damage between, and compares what the kernel holds with the Plan.
func TestAWalkEndsWhereAFreshStartDoes(t *testing.T) {
	b := newBed(t)
	d := b.open(t, b.config())
	rnd := newRand()
	for range 60 {
		services := map[vip.Frontend][]lb.Backend{}
		for range rnd.IntN(6) {
			f := vip.Frontend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, 0, 0, byte(rnd.IntN(4))}), uint16(80+rnd.IntN(2))), Proto: model.TCP}
			services[f] = nil
			for i := range rnd.IntN(4) {
				services[f] = append(services[f], lb.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(2 + i)}), 80), Weight: uint16(1 + rnd.IntN(3))})
			}
		}
		switch rnd.IntN(6) {
		case 0:
			must(t, d.Close())
			d = b.open(t, b.config())
		case 1:
			b.outsiders(t, (*ipvs.Handle).Flush)
			must(t, d.Repair(t.Context()))
		}
		must(t, b.want(t, d, services))
		got, want := b.kernel(t), map[string]int{}
		for f, backends := range services {
			want[f.Addr.String()] = len(backends)
		}
		if len(got) != len(want) {
			t.Fatalf("kernel %v, want %v", got, want)
		}
		for f, n := range want {
			if len(got[f]) != n {
				t.Fatalf("%s: %v, want %d", f, got[f], n)
			}
		}
		routes, err := d.host.routes.list()
		must(t, err)
		if len(routes) != len(d.host.routes.count) {
			t.Fatalf("routes %v for %v", routes, d.host.routes.count)
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestABackendBehindAPortMappingOfThisMachine is a task of this machine that
// others reach through a port of the machine. The mapping does not look at what
// IPVS sends there.
func TestABackendBehindAPortMappingOfThisMachine(t *testing.T) {
	b := newBed(t)
	container := b.named(t, b.away, awayAddr.Addr().String()+":0")
	b.host.Must(t, func() error { return mapPort(8080, container) })
	mapped := netip.AddrPortFrom(hostAddr.Addr(), 8080)
	if said, err := ask(b.host, mapped.String()); err != nil || !strings.HasPrefix(said, container.String()) {
		t.Fatalf("the mapping itself does not work: %q, %v", said, err)
	}
	f := frontend("11.0.0.1:80", model.TCP)
	rows := model.Groups[vip.Frontend, *vip.Service]{}.Edit()
	rows.Set(f, &vip.Service{Frontend: f, Backends: []vip.Backend{{Addr: mapped, Weight: 1, Agent: hostAddr.Addr(), Inner: container}}})
	cfg := lb.DefaultConfig()
	cfg.Inner, cfg.Node = true, []netip.Addr{hostAddr.Addr()}
	d := b.open(t, b.config())
	must(t, d.Apply(t.Context(), lb.Build(nil, &vip.Table{Services: rows.Groups()}, cfg, time.Now())))
	if said, err := ask(b.host, f.Addr.String()); err != nil || !strings.HasPrefix(said, container.String()) {
		t.Errorf("the VIP leads to %q, %v", said, err)
	}
}
