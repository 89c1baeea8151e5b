package vip

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfigs(t *testing.T) {
	addr := netip.MustParseAddr
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"the default", func(*Config) {}, ""},
		{"two addresses are enough", func(c *Config) { c.First4, c.Last4 = addr("10.0.0.1"), addr("10.0.0.2") }, ""},
		{"one is not", func(c *Config) { c.First4, c.Last4 = addr("10.0.0.1"), addr("10.0.0.1") },
			"range of named VIPs 10.0.0.1-10.0.0.1: the last address is not above the first"},
		{"turned round", func(c *Config) { c.First4 = addr("12.0.0.0") },
			"range of named VIPs 12.0.0.0-11.255.255.255: the last address is not above the first"},
		{"no address", func(c *Config) { c.Last4 = netip.Addr{} }, "range of named VIPs 11.0.0.0-invalid IP: invalid IP is not an IPv4 address"},
		{"families mixed, both wrong", func(c *Config) { c.First4, c.First6 = c.First6, c.First4 },
			"range of named VIPs fd01:c::-11.255.255.255: fd01:c:: is not an IPv4 address\n" +
				"range of named VIPs 11.0.0.0-fd01:c::ffff:ffff:ffff:ffff: 11.0.0.0 is not an IPv6 address"},
		{"a mapped address is not IPv6", func(c *Config) { c.First6, c.Last6 = addr("::ffff:11.0.0.0"), addr("::ffff:11.0.0.9") },
			"range of named VIPs ::ffff:11.0.0.0-::ffff:11.0.0.9: ::ffff:11.0.0.0 is not an IPv6 address"},
		{"an IPv6 range wider than a /64", func(c *Config) { c.Last6 = addr("fd01:f::") }, ""},
		{"without IPv6 its range does not matter", func(c *Config) { c.IPv6, c.First6 = false, netip.Addr{} }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			tt.change(&cfg)
			got := ""
			if err := cfg.Check(); err != nil {
				got = err.Error()
			} else {
				Build(nil, snapshotOf(appOf("a", newTask("a", 1, []string{"9.0.0.1", "fd00::1"}, "/web:80"))), cfg)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("error (-want +got):\n%s", d)
			}
		})
	}
}
