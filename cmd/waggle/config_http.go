package main

import (
	"net"
	"strconv"
	"strings"
	"time"

	"waggle/api"
)

// httpConfig is where the HTTP interface is.
type httpConfig struct {
	Socket    string `yaml:"socket" help:"Unix socket of the HTTP interface; empty for none"`
	Listen    string `yaml:"listen" help:"TCP address of the HTTP interface, host:port; empty for none"`
	DCOS      string `yaml:"dcos" help:"TCP address where /v1 is that of DC/OS' daemon, host:port, theirs being 127.0.0.1:62080; empty for none"`
	Enumerate bool   `yaml:"enumerate" help:"serve /v1/enumerate and /v1/axfr as mesos-dns does"`
}

func defaultHTTPConfig() httpConfig {
	return httpConfig{Socket: "/run/waggle/waggle.sock", Listen: "127.0.0.1:8123", Enumerate: true}
}

func (c fileConfig) http() api.Config {
	names := c.agent().DNS
	return api.Config{
		Socket: c.HTTP.Socket, Listen: c.HTTP.Listen, DCOS: c.HTTP.DCOS, VIPZone: vipZone(names),
		NodeAddrs: names.NodeAddrs, PublicAddrs: names.PublicAddrs,
		Version: readVersion().Version, MesosDNS: c.mesosDNS(), CryptoID: c.DNS.CryptoID,
	}
}

// mesosDNS is c in the words of mesos-dns; secrets stay out.
func (c fileConfig) mesosDNS() api.MesosDNS {
	d := c.DNS
	sec := func(t time.Duration) uint32 { return uint32(t / time.Second) }
	m := api.MesosDNS{
		RefreshSeconds: int(sec(c.Mesos.PollInterval)), Timeout: int(sec(d.Forward.Timeout)),
		TTL: sec(d.TTL), SRVRecordDefaultWeight: d.SRVWeight,
		SOARefresh: sec(d.SOA.Refresh), SOARetry: sec(d.SOA.Retry), SOAExpire: sec(d.SOA.Expire), SOAMinttl: sec(d.SOA.Minimum),
		SOAMname: strings.TrimSuffix(d.SOA.MName, ".") + ".",
		SOARname: strings.ReplaceAll(strings.TrimSuffix(d.SOA.RName, "."), "@", ".") + ".",
		Masters:  []string{}, ZoneResolvers: map[string][]string{}, Resolvers: d.Forward.Upstreams,
		IPSources: d.IPSources, Zk: c.Mesos.ZK.String(), Domain: strings.ToLower(d.Domain),
		RecurseOn: d.Forward.On, DnsOn: true, HttpOn: c.HTTP.Listen != "", ExternalOn: d.Forward.On,
		EnforceRFC952: d.RFC952, SetTruncateBit: true, EnumerationOn: c.HTTP.Enumerate, MesosHTTPSOn: c.Mesos.HTTPS,
	}
	for _, master := range c.Mesos.Masters {
		m.Masters = append(m.Masters, master[strings.LastIndexByte(master, '@')+1:])
	}
	for _, z := range d.Forward.Zones {
		zone, server, _ := strings.Cut(z, "=")
		m.ZoneResolvers[zone] = append(m.ZoneResolvers[zone], server)
	}
	if addrs := d.addrPorts(ignore); len(addrs) > 0 {
		m.Listener, m.Port = addrs[0].Addr().String(), int(addrs[0].Port())
	}
	host, port, err := net.SplitHostPort(c.HTTP.Listen)
	if n, bad := strconv.Atoi(port); err == nil && bad == nil {
		m.HTTPListener, m.HttpPort = host, n
	}
	return m
}
