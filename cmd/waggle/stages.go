package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"go.uber.org/zap"

	"waggle/dns"
	"waggle/ebpf"
	"waggle/internal/agent"
	"waggle/internal/hostnet"
	"waggle/lb/ipvs"
	"waggle/vip"
	"waggle/watcher/archive"
)

// defaultFileConfig collects the defaults of the stages under their keys.
func defaultFileConfig() fileConfig {
	a, p := agent.DefaultConfig(), ebpf.DefaultConfig()
	cfg := fileConfig{
		Mesos:    defaultMesosConfig(),
		Marathon: defaultMarathonConfig(),
		File:     fileSource{Paths: []string{}},
		State:    stateConfig{Dir: "/var/lib/waggle"},
		DNS: dnsConfig{
			Listen:  []string{"127.0.0.1:53"},
			Records: []string{}, Public: []string{},
			Domain: a.DNS.Domain, DCOSDomain: a.DNS.DCOSDomain,
			TTL: a.DNS.TTL, DCOSTTL: a.DNS.DCOSTTL,
			SRVWeight: a.DNS.SRVWeight, IPSources: []string{},
			SOA: soaConfig{
				MName: a.DNS.SOAMname, RName: a.DNS.SOARname, Refresh: a.DNS.SOARefresh,
				Retry: a.DNS.SOARetry, Expire: a.DNS.SOAExpire, Minimum: a.DNS.SOAMinimum,
			},
		},
		VIP: defaultVIPConfig(a.VIP),
		LB: lbConfig{
			Backend: "auto", Grace: a.LB.Grace, Peername: a.LB.Peername, Exclude: []string{}, Eject: defaultEjectConfig(a.Eject), Node: []string{},
			ShortCut: vip.ShortCutMesos,
			PinDir:   p.PinDir, SelfTest: true, IPVS: ipvsConfig{Containers: ipvs.DefaultConfig().Containers},
		},
		HTTP: defaultHTTPConfig(),
		Log:  logConfig{Level: zap.InfoLevel, Format: "console"},
	}
	defaultDNSServer(&cfg.DNS)
	return cfg
}

// check returns everything that is wrong with c, one error per key.
func (c fileConfig) check() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	c.DNS.server(bad)
	c.DNS.names(new(dns.Config), bad)
	if len(c.DNS.Listen)+len(c.DNS.Addresses) == 0 {
		bad("dns.listen", "nothing to listen on")
	}
	if c.State.Dir != "" && !filepath.IsAbs(c.State.Dir) {
		bad("state.dir", "%q is not an absolute path", c.State.Dir)
	}
	if c.DNS.Forward.On {
		c.forwarder(ownServer(c.DNS.addrPorts(ignore)), bad)
		c.DNS.Forward.roots(bad)
	}
	switch c.LB.Backend {
	case "auto", "ebpf", "ipvs", "none":
	default:
		bad("lb.backend", "%q is none of auto, ebpf, ipvs, none", c.LB.Backend)
	}
	switch c.Log.Format {
	case "console", "json":
	default:
		bad("log.format", "%q is neither console nor json", c.Log.Format)
	}
	if c.LB.Grace < c.DNS.DCOSTTL {
		bad("lb.grace", "%s is shorter than the %s that VIP names are cached", c.LB.Grace, c.DNS.DCOSTTL)
	}
	c.checkTransports(bad)
	c.HTTP.check(bad)
	c.VIP.stage(bad)
	c.LB.node(bad)
	c.LB.exclude(bad)
	c.LB.Eject.check(bad)
	stages := c.agent()
	return errors.Join(append(errs, c.Mesos.check(), c.Marathon.check(), stages.VIP.Check(), stages.DNS.Check())...)
}

// agent returns the configuration of the pipeline's stages.
func (c fileConfig) agent() agent.Config {
	a := agent.DefaultConfig()
	a.VIP = c.VIP.stage(ignore)
	a.LB.Grace, a.LB.Peername, a.LB.Node = c.LB.Grace, c.LB.Peername, c.LB.node(ignore)
	a.LB.Exclude = c.LB.exclude(ignore)
	a.VIP.Node, a.VIP.ShortCut = a.LB.Node, c.LB.ShortCut
	a.Eject = c.LB.Eject.stage()
	if c.State.Dir != "" {
		a.DrainFile = filepath.Join(c.State.Dir, "drains")
	}
	d := &a.DNS
	d.Domain, d.DCOSDomain = c.DNS.Domain, c.DNS.DCOSDomain
	d.TTL, d.DCOSTTL = c.DNS.TTL, c.DNS.DCOSTTL
	d.IPSources = nil
	for _, s := range c.DNS.IPSources {
		d.IPSources = append(d.IPSources, dns.IPSource(s))
	}
	d.EnforceRFC952, d.SRVWeight = c.DNS.RFC952, c.DNS.SRVWeight
	soa := c.DNS.SOA
	d.SOAMname, d.SOARname = soa.MName, soa.RName
	d.SOARefresh, d.SOARetry, d.SOAExpire, d.SOAMinimum = soa.Refresh, soa.Retry, soa.Expire, soa.Minimum
	d.NSAddrs = c.nsAddrs()
	c.DNS.names(d, ignore)
	d.NodeAddrs = c.thisNode()
	return a
}

// nsAddrs are the addresses of the name server itself: those listened on, or
// the machine's where that is all of them.
func (c fileConfig) nsAddrs() []netip.Addr {
	var out []netip.Addr
	for _, ap := range c.DNS.addrPorts(ignore) {
		if ap.Addr().IsUnspecified() {
			out = append(out, hostnet.Addrs()...)
		} else {
			out = append(out, ap.Addr().Unmap())
		}
	}
	return out
}

func (c fileConfig) archive() archive.Config {
	a := archive.DefaultConfig()
	a.Dir = c.State.Dir
	return a
}

func (c fileConfig) ipvs() ipvs.Config {
	v4, v6 := hostnet.Outgoing()
	return ipvs.Config{Node4: v4, Node6: v6, Containers: c.LB.IPVS.Containers, TakeOver: c.LB.IPVS.TakeOver}
}

// vipZone is the name below which named VIPs are served.
func vipZone(c dns.Config) string { return "l4lb." + c.DCOSDomain }
