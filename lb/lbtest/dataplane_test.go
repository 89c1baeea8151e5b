package lbtest

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

var (
	web  = vip.Frontend{Addr: netip.MustParseAddrPort("11.0.0.1:80"), Proto: model.TCP}
	mail = vip.Frontend{Addr: netip.MustParseAddrPort("11.0.0.2:25"), Proto: model.TCP}
	one  = lb.Backend{Addr: netip.MustParseAddrPort("10.0.0.1:8080"), Weight: 1}
	two  = lb.Backend{Addr: netip.MustParseAddrPort("10.0.0.2:8080"), Weight: 3}
)

func plan(services ...*lb.Service) *lb.Plan {
	e := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	for _, s := range services {
		e.Set(s.Frontend, s)
	}
	return &lb.Plan{Services: e.Groups()}
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestOneFrontendFailsAndIsLeftAsItWas(t *testing.T) {
	d, full := New(), errors.New("map full")
	before := plan(&lb.Service{Frontend: web, Backends: []lb.Backend{one}})
	after := plan(&lb.Service{Frontend: web, Backends: []lb.Backend{two}}, &lb.Service{Frontend: mail, Backends: []lb.Backend{two}})
	if err := d.Apply(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	d.Fail(full, web)
	err := d.Apply(t.Context(), after)
	var failed *lb.ServiceError
	if !errors.As(err, &failed) || failed.Frontend != web || !errors.Is(err, full) {
		t.Errorf("Apply = %v, want a ServiceError of %v", err, web)
	}
	same(t, "web", []lb.Backend{one}, d.Backends(web))
	same(t, "mail", []lb.Backend{two}, d.Backends(mail))
	d.Fail(nil)
	if err := d.Apply(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	same(t, "web after the retry", []lb.Backend{two}, d.Backends(web))
	if n := len(d.Plans()); n != 3 {
		t.Errorf("%d plans recorded, want 3", n)
	}
}

func TestAWholeApplyFails(t *testing.T) {
	d, gone := New(), errors.New("kernel gone")
	d.Fail(gone)
	if err := d.Apply(t.Context(), plan(&lb.Service{Frontend: web})); err != gone {
		t.Errorf("Apply = %v", err)
	}
	if d.Has(web) || len(d.Plans()) != 0 {
		t.Error("a failed Plan is held")
	}
	d.Fail(nil)
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	if d.Apply(t.Context(), plan()) == nil {
		t.Error("Apply works after Close")
	}
}

func TestConnectionsGoByWeightOrAreRefusedOrPass(t *testing.T) {
	d := New()
	if err := d.Apply(t.Context(), plan(&lb.Service{Frontend: web, Backends: []lb.Backend{one, two}}, &lb.Service{Frontend: mail})); err != nil {
		t.Fatal(err)
	}
	got := map[netip.AddrPort]int{}
	for range 4000 {
		to, err := d.Connect(web)
		if err != nil {
			t.Fatal(err)
		}
		got[to]++
	}
	if n := got[two.Addr]; len(got) != 2 || n < 2800 || n > 3200 {
		t.Errorf("connections: %v, want about one to three", got)
	}
	if _, err := d.Connect(mail); !errors.Is(err, ErrRefused) {
		t.Errorf("without backends: %v", err)
	}
	other := vip.Frontend{Addr: netip.MustParseAddrPort("192.0.2.1:80"), Proto: model.TCP}
	if to, err := d.Connect(other); err != nil || to != other.Addr {
		t.Errorf("what is no service: %v, %v", to, err)
	}
}
