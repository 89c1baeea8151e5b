package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"waggle/internal/hostnet"
	"waggle/lb"
	"waggle/vip"
)

type vipConfig struct {
	First4 netip.Addr `yaml:"first4" help:"first IPv4 address for named VIPs"`
	Last4  netip.Addr `yaml:"last4" help:"last IPv4 address for named VIPs"`
	First6 netip.Addr `yaml:"first6" help:"first IPv6 address for named VIPs"`
	Last6  netip.Addr `yaml:"last6" help:"last IPv6 address for named VIPs"`
	IPv6   bool       `yaml:"ipv6" help:"give VIPs IPv6 addresses where backends have them"`
	Route  bool       `yaml:"route" help:"make the addresses for named VIPs local, so that pings are answered and unknown ports refused at once"`

	Choice   string      `yaml:"choice" help:"how VIPs whose labels do not say choose: random or least-active"`
	Affinity string      `yaml:"affinity" help:"what keeps its backend at VIPs whose labels do not say: none, namespace, cgroup or source, and for how long, as in namespace:10m"`
	Locality string      `yaml:"locality" help:"which backends VIPs whose labels do not say prefer: none, zone or agent"`
	Drain    string      `yaml:"drain" help:"how long connections to backends taken away go on at VIPs whose labels do not say, before their clients are told; 0s for ever"`
	Allow    []string    `yaml:"allow" help:"who may connect to VIPs whose labels do not say: networks, cgroup:PATH, namespace:FILE; empty for everyone"`
	Services vipServices `yaml:"services" help:"choice, affinity, locality, drain and allow of single VIPs, whatever their labels say, by name as in web.marathon or address; as a flag {NAME: {drain: 1m}}"`
}

type ejectConfig struct {
	Every    time.Duration `yaml:"every" help:"how often backends are looked at that refuse connections, to give them none for a while; 0 never does, and saves 2 µs a connection"`
	Failures int           `yaml:"failures" help:"how many connects must fail within that time"`
	Percent  int           `yaml:"percent" help:"and which share of all connects to the backend that must be"`
	Slow     int           `yaml:"slow" help:"how many times as long as the median of the VIP's others connects to a backend must take, at two looks in a row, to be left out too; 0 leaves out none for that"`
	SlowBy   time.Duration `yaml:"slow_by" help:"and how much longer"`
	Samples  int           `yaml:"samples" help:"and how many connects there must be before each of the two looks"`
	Hold     time.Duration `yaml:"hold" help:"how long a backend gets no new connections; each next time longer"`
}

func (c ejectConfig) stage() lb.EjectConfig {
	return lb.EjectConfig{
		Every: c.Every, Failures: uint64(max(0, c.Failures)), Share: float64(c.Percent) / 100,
		Slow: float64(c.Slow), SlowBy: c.SlowBy, Samples: uint64(max(0, c.Samples)), Hold: c.Hold,
	}
}

func (c ejectConfig) check(bad func(key, format string, args ...any)) {
	if c.Every < 0 || c.Every > 0 && c.Every < 100*time.Millisecond {
		bad("lb.eject.every", "%s is less than 100ms", c.Every)
	}
	if c.Failures < 1 {
		bad("lb.eject.failures", "%d is less than 1", c.Failures)
	}
	if c.Percent < 1 || c.Percent > 100 {
		bad("lb.eject.percent", "%d is not within 1 to 100", c.Percent)
	}
	if c.Slow < 0 || c.Slow == 1 {
		bad("lb.eject.slow", "%d is neither 0 nor at least 2", c.Slow)
	}
	if c.SlowBy < 0 {
		bad("lb.eject.slow_by", "%s is less than 0s", c.SlowBy)
	}
	if c.Samples < 1 {
		bad("lb.eject.samples", "%d is less than 1", c.Samples)
	}
	if c.Hold < time.Second {
		bad("lb.eject.hold", "%s is less than 1s", c.Hold)
	}
}

func defaultEjectConfig(e lb.EjectConfig) ejectConfig {
	return ejectConfig{
		Every: e.Every, Failures: int(e.Failures), Percent: int(100 * e.Share),
		Slow: int(e.Slow), SlowBy: e.SlowBy, Samples: int(e.Samples), Hold: e.Hold,
	}
}

// vipServices are options by VIP and by name of the option.
type vipServices map[string]map[string]string

// UnmarshalText reads the form of a flag: YAML on one line.
func (s *vipServices) UnmarshalText(text []byte) error {
	var list map[string]map[string]string
	if err := yaml.Unmarshal(text, &list); err != nil {
		return err
	}
	*s = list
	return nil
}

// String returns the form of a flag.
func (s vipServices) String() string {
	if len(s) == 0 {
		return ""
	}
	var vips []string
	for name, options := range s {
		var list []string
		for o, v := range options {
			list = append(list, fmt.Sprintf("%s: %q", o, v))
		}
		slices.Sort(list)
		vips = append(vips, fmt.Sprintf("%q: {%s}", name, strings.Join(list, ", ")))
	}
	slices.Sort(vips)
	return "{" + strings.Join(vips, ", ") + "}"
}

func defaultVIPConfig(v vip.Config) vipConfig {
	return vipConfig{
		First4: v.First4, Last4: v.Last4, First6: v.First6, Last6: v.Last6, IPv6: v.IPv6, Route: true,
		Choice: "random", Affinity: "none", Locality: "none", Drain: "0s", Allow: []string{}, Services: vipServices{},
	}
}

// stage returns the configuration of the stage, and tells bad what is wrong.
func (c vipConfig) stage(bad func(key, format string, args ...any)) vip.Config {
	v := vip.Config{First4: c.First4, Last4: c.Last4, First6: c.First6, Last6: c.Last6, IPv6: c.IPv6, Services: map[string]vip.Options{}}
	set := func(o *vip.Options, key, option, value string) {
		if err := o.Set(option, value); err != nil {
			bad(key+"."+option, "%v", err)
		}
	}
	for _, o := range [][2]string{
		{"choice", c.Choice}, {"affinity", c.Affinity}, {"locality", c.Locality}, {"drain", c.Drain}, {"allow", strings.Join(c.Allow, ",")},
	} {
		if o[1] != "" {
			set(&v.Options, "vip", o[0], o[1])
		}
	}
	for name, options := range c.Services {
		key := "vip.services." + name
		id, err := vip.ServiceKey(name)
		if err != nil {
			bad(key, "%v", err)
		}
		var o vip.Options
		for option, value := range options {
			set(&o, key, option, value)
		}
		v.Services[id] = o
	}
	return v
}

// node returns the machine's own addresses.
func (c lbConfig) node(bad func(key, format string, args ...any)) []netip.Addr {
	if len(c.Node) == 0 {
		return hostnet.Addrs()
	}
	var out []netip.Addr
	for _, text := range c.Node {
		a, err := netip.ParseAddr(text)
		if err != nil {
			bad("lb.node", "%q is not an address", text)
			continue
		}
		out = append(out, a.Unmap())
	}
	return out
}

// exclude returns the clients that are left alone.
func (c lbConfig) exclude(bad func(key, format string, args ...any)) []vip.Client {
	if len(c.Exclude) == 0 {
		return nil
	}
	out, err := vip.ParseClients(strings.Join(c.Exclude, ","))
	if err != nil {
		bad("lb.exclude", "%v", err)
	}
	return out
}

// ignore drops what check has told already.
func ignore(string, string, ...any) {}
