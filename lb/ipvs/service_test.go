package ipvs

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

func frontend(addr string, proto model.Proto) vip.Frontend {
	return vip.Frontend{Addr: netip.MustParseAddrPort(addr), Proto: proto}
}

func dests(list ...string) map[netip.AddrPort]int {
	out := map[netip.AddrPort]int{}
	for _, text := range list {
		addr, weight, ok := strings.Cut(text, " ")
		n := 1
		if ok {
			n, _ = strconv.Atoi(strings.TrimPrefix(weight, "w"))
		}
		out[netip.MustParseAddrPort(addr)] = n
	}
	return out
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new *service
		want     []edit
	}{
		{"nothing stays nothing", nil, nil, nil},
		{"a service comes before its backends", nil, &service{sched: "wrr", dests: dests("10.0.0.1:1 w3")},
			[]edit{{kind: addService}, {addDest, netip.MustParseAddrPort("10.0.0.1:1"), 3}}},
		{"a service goes with all it has", &service{dests: dests("10.0.0.1:1")}, nil, []edit{{kind: delService}}},
		{"equal is left alone", &service{sched: "wrr", dests: dests("10.0.0.1:1")}, &service{sched: "wrr", dests: dests("10.0.0.1:1")}, nil},
		{"who comes does so before who goes", &service{dests: dests("10.0.0.1:1")}, &service{dests: dests("10.0.0.2:1")},
			[]edit{{addDest, netip.MustParseAddrPort("10.0.0.2:1"), 1}, {kind: delDest, dest: netip.MustParseAddrPort("10.0.0.1:1")}}},
		{"drained is set to nothing, not taken away", &service{dests: dests("10.0.0.1:1 w5")}, &service{dests: dests("10.0.0.1:1 w0")},
			[]edit{{setDest, netip.MustParseAddrPort("10.0.0.1:1"), 0}}},
		{"another scheduler", &service{sched: "wrr"}, &service{sched: "wlc"}, []edit{{kind: setService}}},
		{"affinity", &service{flags: mark}, &service{flags: mark | flagPersistent, timeout: 60}, []edit{{kind: setService}}},
	} {
		if d := cmp.Diff(c.want, edits(c.old, c.new), cmp.AllowUnexported(edit{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("%s (-want +got): %s", c.name, d)
		}
	}
}

// TestAWalkOfEditsEndsWhereItShould plays random changes on a model of what the
// kernel does with each edit.
func TestAWalkOfEditsEndsWhereItShould(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var kernel *service
	for range 5000 {
		var want *service
		if rnd.IntN(5) > 0 {
			want = &service{sched: []string{"wrr", "wlc"}[rnd.IntN(2)], flags: mark, timeout: uint32(rnd.IntN(2)), dests: map[netip.AddrPort]int{}}
			for range rnd.IntN(6) {
				want.dests[netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(8))}), 80)] = rnd.IntN(3)
			}
		}
		for _, e := range edits(kernel, want) {
			kernel = play(t, kernel, want, e)
		}
		if d := cmp.Diff(want, kernel, cmp.AllowUnexported(service{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Fatalf("(-want +got): %s", d)
		}
	}
}

// play is what the kernel does: it refuses what is there twice or not at all.
func play(t *testing.T, kernel, want *service, e edit) *service {
	t.Helper()
	if (e.kind == addService) != (kernel == nil) {
		t.Fatalf("%v with service %v", e, kernel)
	}
	switch e.kind {
	case addService:
		return &service{sched: want.sched, flags: want.flags, timeout: want.timeout, dests: map[netip.AddrPort]int{}}
	case delService:
		return nil
	}
	next := &service{sched: kernel.sched, flags: kernel.flags, timeout: kernel.timeout, dests: maps.Clone(kernel.dests)}
	_, there := kernel.dests[e.dest]
	switch e.kind {
	case setService:
		next.sched, next.flags, next.timeout = want.sched, want.flags, want.timeout
	case addDest, setDest:
		if there == (e.kind == addDest) {
			t.Fatalf("%v with %v", e, kernel.dests)
		}
		next.dests[e.dest] = e.weight
	case delDest:
		if !there {
			t.Fatalf("%v with %v", e, kernel.dests)
		}
		delete(next.dests, e.dest)
	}
	return next
}

func TestAPlansServiceInIPVS(t *testing.T) {
	one, two := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:1")
	got, err := wanted(&lb.Service{Backends: []lb.Backend{{Addr: one, Weight: 5}}, Choice: lb.LeastActive}, []lb.Backend{{Addr: two}, {Addr: one}}, true)
	want := service{sched: "wlc", flags: mark, dests: map[netip.AddrPort]int{one: 5, two: 0}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(service{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" || err != nil {
		t.Errorf("%v (-want +got): %s", err, d)
	}
	if _, err := wanted(&lb.Service{Allow: []lb.Client{{Cgroup: "x"}}}, nil, true); !errors.Is(err, lb.ErrUnsupported) {
		t.Errorf("a service that not everyone may use: %v", err)
	}
}

func TestServicesGoToTheKernelsFormAndBack(t *testing.T) {
	for _, f := range []vip.Frontend{
		frontend("11.0.0.1:80", model.TCP), frontend("11.0.0.1:53", model.UDP), frontend("[fd01:c::1]:80", model.TCP),
	} {
		w, err := wanted(&lb.Service{Frontend: f, Affinity: lb.Affinity{By: lb.ByCgroup, Timeout: time.Minute}}, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		k := kernelService(f, &w)
		k.Flags |= flagHashed // which the kernel adds
		back, s, ok := fromKernel(k)
		if !ok || back != f || s.flags != w.flags || s.timeout != 60 || s.sched != w.sched {
			t.Errorf("%v: %v %+v %v", f, back, s, ok)
		}
	}
	k := kernelService(frontend("11.0.0.1:80", model.TCP), &service{})
	k.FWMark = 7
	if _, _, ok := fromKernel(k); ok {
		t.Error("a service of a firewall mark is taken for one of an address")
	}
	k.FWMark, k.Protocol = 0, unix.IPPROTO_SCTP
	if _, _, ok := fromKernel(k); ok {
		t.Error("SCTP is taken for TCP")
	}
}
