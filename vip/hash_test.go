package vip

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHomesAreThoseOfDCOS(t *testing.T) {
	pool4 := func(first, last string) pool {
		return newPool(netip.MustParseAddr(first), netip.MustParseAddr(last), hash4)
	}
	for _, c := range dcosCases(t, "hash") {
		t.Run(c.Name, func(t *testing.T) {
			var in struct {
				Name    string
				V4      []string `json:"v4_range"`
				V6      []string `json:"v6_range"`
				Address string
			}
			var want struct {
				Phash2 *uint32 `json:"phash2_32bit"`
				IPv4   string
				IPv6   string
				Odd    string `json:"ipv4_if_max_is_11.255.255.254"`
				Next   string
			}
			c.decode(t, &in, &want)
			if want.Phash2 != nil && phash2(in.Name) != *want.Phash2 {
				t.Errorf("phash2 is %d, want %d", phash2(in.Name), *want.Phash2)
			}
			check := func(p pool, want string) {
				t.Helper()
				if got := p.home(in.Name); want != "" && got.String() != want {
					t.Errorf("home is %s, want %s", got, want)
				}
			}
			check(pool4("11.0.0.0", "11.255.255.254"), want.Odd)
			if in.V4 != nil {
				check(pool4(in.V4[0], in.V4[1]), want.IPv4)
			}
			if in.V6 != nil {
				check(newPool(netip.MustParseAddr(in.V6[0]), netip.MustParseAddr(in.V6[1]), hash6), want.IPv6)
			}
			if in.Address != "" {
				p := nextPool(netip.MustParseAddr(in.Address))
				if got := p.next(netip.MustParseAddr(in.Address)); got.String() != want.Next {
					t.Errorf("next is %s, want %s", got, want.Next)
				}
			}
		})
	}
}

// nextPool returns the default pool of a's family.
func nextPool(a netip.Addr) pool {
	c := DefaultConfig()
	if a.Is4() {
		return newPool(c.First4, c.Last4, hash4)
	}
	return newPool(c.First6, c.Last6, hash6)
}

// TestHashesOfTheFactSheet holds the figures of the fact sheet that the conformance
// data leaves out, so that the hash is tested without that data too.
func TestHashesOfTheFactSheet(t *testing.T) {
	want := map[string]uint32{
		"": 147926629, "web.marathon": 3470861299, "namedvip.marathon": 1248974997, "app.marathon": 246131777,
		"baz.qux": 2489270397, "0123456789a": 2623845368, "0123456789ab": 3739239162, "0123456789abc": 873230043,
	}
	got := map[string]uint32{}
	for name := range want {
		got[name] = phash2(name)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAPoolWrapsFromItsLastAddressToItsFirst(t *testing.T) {
	p := newPool(netip.MustParseAddr("11.0.0.254"), netip.MustParseAddr("11.0.1.1"), hash4)
	var got []string
	for a, i := p.first, 0; i < 5; a, i = p.next(a), i+1 {
		got = append(got, a.String())
	}
	if d := cmp.Diff([]string{"11.0.0.254", "11.0.0.255", "11.0.1.0", "11.0.1.1", "11.0.0.254"}, got); d != "" {
		t.Error(d)
	}
}
