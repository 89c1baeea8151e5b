package ebpf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"waggle/lb"
	"waggle/vip"
)

// TestAFullMapCostsWholeServicesAndSaysSo fills each map: what does not fit is
// as it was before, wholly, what else was wanted is done, the error names the
// map, a metric shows that it is full, and once there is room all is made good.
func TestAFullMapCostsWholeServicesAndSaysSo(t *testing.T) {
	backends := func(from, n int) (out []netip.AddrPort) {
		for i := range n {
			out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(from + i)}), 80))
		}
		return out
	}
	allowed := func(s *lb.Service, cookies ...int) *lb.Service {
		for _, c := range cookies {
			s.Allow = append(s.Allow, lb.Client{Namespace: fmt.Sprint(c)})
		}
		return s
	}
	weighted := func(s *lb.Service, weights ...uint16) *lb.Service {
		for i, w := range weights {
			s.Backends[i].Weight = w
		}
		return s
	}
	for name, tt := range map[string]struct {
		small                 func(*Config)
		before, after, enough []*lb.Service
		failed                string // frontend; after has it second or it is new
	}{
		"services": {
			func(c *Config) { c.Services = 2 },
			[]*lb.Service{service("11.0.0.1:80", backends(1, 1)...)},
			[]*lb.Service{service("11.0.0.1:80", backends(2, 2)...), service("11.0.0.2:80", backends(1, 1)...), service("[fd01::1]:80")},
			[]*lb.Service{service("11.0.0.1:80", backends(2, 2)...), service("[fd01::1]:80")},
			"[fd01::1]:80",
		},
		"backends": {
			func(c *Config) { c.Backends = 6 },
			[]*lb.Service{service("11.0.0.1:80", backends(1, 1)...), service("11.0.0.2:80", backends(1, 2)...)},
			[]*lb.Service{service("11.0.0.1:80", backends(2, 1)...), service("11.0.0.2:80", backends(1, 9)...)},
			[]*lb.Service{service("11.0.0.1:80", backends(2, 1)...), service("11.0.0.2:80", backends(5, 2)...)},
			"11.0.0.2:80",
		},
		"slots": {
			func(c *Config) { c.Slots = 20 },
			[]*lb.Service{service("11.0.0.1:80", backends(1, 1)...), weighted(service("11.0.0.2:80", backends(1, 2)...), 1, 2)},
			[]*lb.Service{service("11.0.0.1:80", backends(2, 1)...), weighted(service("11.0.0.2:80", backends(1, 2)...), 1, 30)},
			[]*lb.Service{service("11.0.0.1:80", backends(2, 1)...), weighted(service("11.0.0.2:80", backends(1, 2)...), 1, 3)},
			"11.0.0.2:80",
		},
		"clients that may connect": {
			func(c *Config) { c.Allow = 4 },
			[]*lb.Service{service("11.0.0.1:80", backends(1, 1)...), allowed(service("11.0.0.2:80", backends(1, 2)...), 1, 2)},
			[]*lb.Service{service("11.0.0.1:80", backends(2, 1)...), allowed(service("11.0.0.2:80", backends(1, 3)...), 3, 4, 5, 6)},
			[]*lb.Service{service("11.0.0.1:80", backends(2, 1)...), allowed(service("11.0.0.2:80", backends(1, 3)...), 3, 4)},
			"11.0.0.2:80",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			tt.small(&b.cfg)
			d := plainNames(b.open(t))
			apply(t, d, tt.before...)
			want := wantState(plan(tt.before...))
			for f, s := range wantState(plan(tt.after...)) {
				if f.Addr != addr(tt.failed) {
					want[f] = s
				}
			}
			for range 2 { // and at the next try
				failed := serviceErrors(t, d.Apply(t.Context(), plan(tt.after...)))
				if err := failed[tcp(addr(tt.failed))]; len(failed) != 1 || err == nil || !strings.Contains(err.Error(), name+": ") {
					t.Fatalf("failed: %v, want %s for lack of %s", failed, tt.failed, name)
				}
				sameState(t, want, kernelState(t, d))
				checkRoom(t, d)
			}
			apply(t, d, tt.enough...)
			sameState(t, wantState(plan(tt.enough...)), kernelState(t, d))
			checkRoom(t, d)
		})
	}
}

// The maps of VIPs have as many entries as there are services, so that only
// somebody else can fill them.
func TestFullMapsOfVIPsCostWholeServices(t *testing.T) {
	b := newBed(t)
	b.cfg.Services = 4
	d := b.open(t)
	apply(t, d, service("11.0.0.1:80"), service("[fd01::1]:80"))
	for i := range 3 {
		if err := d.objs.Vip4.Put(bpfVip4Key{Addr: uint32(i), Scope: 1}, uint32(0)); err != nil {
			t.Fatal(err)
		}
		if err := d.objs.Vip6.Put(bpfVip6Key{Addr: [4]uint32{uint32(i)}, Scope: 1}, uint32(0)); err != nil {
			t.Fatal(err)
		}
	}
	all := plan(service("11.0.0.1:80", addr("10.0.0.1:1")), service("[fd01::1]:80"), service("11.0.0.2:80"), service("[fd01::2]:80"))
	failed := serviceErrors(t, d.Apply(t.Context(), all))
	for f, want := range map[vip.Frontend]string{tcp(addr("11.0.0.2:80")): "IPv4 VIPs: ", tcp(addr("[fd01::2]:80")): "IPv6 VIPs: "} {
		if err := failed[f]; len(failed) != 2 || err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("failed: %v, want %v for lack of %s", failed, f, want)
		}
	}
	if err := d.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	sameState(t, wantState(all), kernelState(t, d))
	checkRoom(t, d)
}

// TestOldestClientsAreForgotten: the map of clients is never too full for one
// more, and says how full it is.
func TestOldestClientsAreForgotten(t *testing.T) {
	b := newBed(t)
	reg := prometheus.NewPedanticRegistry()
	d := b.openWith(t, reg)
	size := int(d.objs.Clients.MaxEntries()) // 6.1 makes small ones larger
	free := func() int { return int(values(t, reg)["free{clients}"]) }
	if got := free(); got != size {
		t.Errorf("%d clients are free of %d", got, size)
	}
	for i := range 3 * size {
		if err := d.objs.Clients.Put(bpfClientKey{Service: uint32(i)}, bpfClient{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := free(); got < 0 || got > size*3/4 {
		t.Errorf("%d clients are free of %d after many more than that", got, size)
	}
}
