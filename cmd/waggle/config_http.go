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
	TokenFile string `yaml:"token_file" help:"file with a token on each line, one of which clients need where http.listen or http.dcos is not loopback"`

	TLS httpTLSConfig `yaml:"tls"`
}

type httpTLSConfig struct {
	Cert     string `yaml:"cert" help:"PEM file with the certificate of this server, needed where http.listen or http.dcos is not loopback"`
	Key      string `yaml:"key" help:"PEM file with its key"`
	ClientCA string `yaml:"client_ca" help:"PEM file with the authorities of certificates that let clients in without a token"`
}

// check tells bad what is wrong with c, by key.
func (c httpConfig) check(bad func(key, format string, args ...any)) {
	open := false
	for key, addr := range map[string]string{"http.listen": c.Listen, "http.dcos": c.DCOS} {
		if addr == "" {
			continue
		}
		own, err := api.Loopback(addr)
		if err != nil {
			bad(key, "%v", err)
			continue
		}
		if open = open || !own; own {
			continue
		}
		if c.TLS.Cert == "" || c.TLS.Key == "" {
			bad(key, "%s is not loopback, so it needs http.tls.cert and http.tls.key", addr)
		}
		if c.TLS.ClientCA == "" && c.TokenFile == "" {
			bad(key, "%s is not loopback, so it needs http.token_file or http.tls.client_ca", addr)
		}
	}
	if !open {
		return
	}
	a := c.access()
	for key, only := range map[string]api.Access{
		"http.tls.cert": {Cert: a.Cert, Key: a.Key}, "http.tls.client_ca": {ClientCA: a.ClientCA}, "http.token_file": {TokenFile: a.TokenFile},
	} {
		if only == (api.Access{}) {
			continue
		}
		if err := only.CheckFiles(); err != nil {
			bad(key, "%v", err)
		}
	}
}

func (c httpConfig) access() api.Access {
	return api.Access{Cert: c.TLS.Cert, Key: c.TLS.Key, ClientCA: c.TLS.ClientCA, TokenFile: c.TokenFile}
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
		Access: c.HTTP.access(),
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
