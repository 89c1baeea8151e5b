package hostnet

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOurOwnAddressesAreNoUpstreams(t *testing.T) {
	const conf = `# by hand
search mesos
nameserver 198.51.100.1
nameserver 10.0.0.2
nameserver not-an-address
nameserver
nameserver ::ffff:10.0.0.3
nameserver fe80::1%eth0
options timeout:1
`
	ours := netip.MustParseAddrPort("198.51.100.1:53")
	got, err := parseResolvConf(strings.NewReader(conf), func(a netip.AddrPort) bool { return a == ours })
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.AddrPort{
		netip.MustParseAddrPort("10.0.0.2:53"),
		netip.MustParseAddrPort("10.0.0.3:53"),
		netip.MustParseAddrPort("[fe80::1%eth0]:53"),
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestAMissingResolvConfIsNoServers(t *testing.T) {
	got, err := Upstreams(filepath.Join(t.TempDir(), "none"), func(netip.AddrPort) bool { return false })
	if got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestLookupWithoutServers(t *testing.T) {
	r := NewResolver(nil)
	got, err := r.Lookup(context.Background(), "::ffff:10.1.2.3")
	if err != nil || len(got) != 1 || got[0] != netip.MustParseAddr("10.1.2.3") {
		t.Errorf("a literal: got %v, %v", got, err)
	}
	if _, err := r.Lookup(context.Background(), "waggle.invalid"); err == nil || !strings.Contains(err.Error(), ErrNoServers.Error()) {
		t.Errorf("a name: got %v, want %v", err, ErrNoServers)
	}
	if got, err := r.Lookup(context.Background(), "localhost"); err != nil || !got[0].IsLoopback() {
		t.Errorf("localhost is in /etc/hosts: got %v, %v", got, err)
	}
}
