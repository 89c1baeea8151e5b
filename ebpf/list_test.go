package ebpf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"waggle/lb"
	"waggle/model"
)

func weighted(weights ...int) *lb.Service {
	s := &lb.Service{Frontend: tcp(addr(vip4))}
	for i, w := range weights {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrPortFrom(a, 80), Weight: uint16(w)})
	}
	return s
}

func TestSlotsByWeight(t *testing.T) {
	for name, tc := range map[string]struct{ weights, want []int }{
		"none":                      {nil, nil},
		"one":                       {[]int{7}, []int{1}},
		"equal ones take one each":  {[]int{5, 5, 5}, []int{1, 1, 1}},
		"common divisors go":        {[]int{100, 200, 300}, []int{1, 2, 3}},
		"coprime ones stay":         {[]int{3, 5}, []int{3, 5}},
		"as many as may be exact":   {[]int{4095, 1}, []int{4095, 1}},
		"rounded to the nearest":    {[]int{65535, 32767}, []int{2731, 1365}},
		"small ones keep one":       {[]int{65535, 65534, 1}, []int{2048, 2048, 1}},
		"half of a slot rounded up": {[]int{16383, 16383, 6}, []int{2048, 2048, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			to, err := new(recipes).recipe(weighted(tc.weights...))
			if err != nil || to.flags != 0 {
				t.Fatalf("flags %d, %v", to.flags, err)
			}
			var got []int
			for _, sh := range to.shares {
				got = append(got, int(sh.slots))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("slots (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatCannotBeListedIsAnErrorThatNamesIt(t *testing.T) {
	udp, six, none := weighted(1), weighted(1), weighted(0)
	udp.Frontend.Proto = model.UDP
	six.Backends[0].Addr = addr("[fd00::1]:80")
	many := make([]int, maxSlots+1)
	for i := range many {
		many[i] = 1
	}
	invalid := weighted(1)
	invalid.Backends[0].Addr = netip.AddrPort{}
	for name, tc := range map[string]struct {
		service *lb.Service
		want    string
	}{
		"another protocol":       {udp, "not supported"},
		"another address family": {six, "[fd00::1]:80 is not an address of the VIP's family"},
		"no address":             {invalid, "is not an address of the VIP's family"},
		"no weight":              {none, "10.0.0.0:80 has weight 0"},
		"too many":               {weighted(many...), "65536 backends take 65536 slots"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := new(recipes).recipe(tc.service); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
	mapped := weighted(1)
	mapped.Frontend = tcp(addr(vip6))
	mapped.Backends[0].Addr = addr("[::ffff:10.0.0.1]:80")
	if _, err := new(recipes).recipe(mapped); err == nil {
		t.Error("a v4-mapped backend is taken for IPv6")
	}
}

func TestKeysGoThereAndBack(t *testing.T) {
	four, six := newFormat4(), newFormat6()
	for _, a := range []string{"11.0.0.1:80", "255.254.253.252:65535", "0.0.0.0:0", "[fd01:203:405:607:809:a0b:c0d:e0f]:443", "[::]:1"} {
		for _, proto := range []model.Proto{model.TCP, model.UDP} {
			want := tcp(addr(a))
			want.Proto = proto
			got, ours := six.frontend(six.key(want))
			if want.Addr.Addr().Is4() {
				got, ours = four.frontend(four.key(want))
			}
			if got != want || !ours {
				t.Errorf("%v became %v, %v", want, got, ours)
			}
		}
	}
	if _, ours := four.frontend(bpfVip4Key{Scope: 1}); ours {
		t.Error("a scope is taken for ours")
	}
}

// TestTheMemoryLayoutIsThePrograms holds what mapped needs: elements of the
// array maps are padded to 8 bytes by the kernel.
func TestTheMemoryLayoutIsThePrograms(t *testing.T) {
	for _, tc := range []struct {
		name      string
		got, want uintptr
	}{
		{"service", unsafe.Sizeof(bpfService{}), 16},
		{"two slots", unsafe.Sizeof(bpfSlots{}), 8},
		{"backend", unsafe.Sizeof(bpfBackend{}), 64},
		{"key of an IPv4 VIP", unsafe.Sizeof(bpfVip4Key{}), 8},
		{"key of an IPv6 VIP", unsafe.Sizeof(bpfVip6Key{}), 20},
	} {
		if tc.got != tc.want {
			t.Errorf("%s is %d bytes, want %d", tc.name, tc.got, tc.want)
		}
	}
	d := newDescriptor(extent{0x01020304, 0x0506}, 0x0708)
	if want := descriptor(0x0708_0506_01020304); d != want || d.list() != (extent{0x01020304, 0x0506}) {
		t.Errorf("descriptor %x, want %x", d, want)
	}
}

func BenchmarkRecipe(b *testing.B) {
	r := new(recipes)
	for _, n := range []int{1, 100} {
		weights := make([]int, n)
		for i := range weights {
			weights[i] = 1
		}
		b.Run(fmt.Sprint(n, " backends"), func(b *testing.B) {
			s := weighted(weights...)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.recipe(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
