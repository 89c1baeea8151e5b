package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"waggle/api"
)

// mesosDNSConfig is what we take over from a mesos-dns config.json. Its keys
// match in any letter case, and those it does not know are ignored, as
// mesos-dns does; encoding/json behaves just so.
type mesosDNSConfig struct {
	Masters                []string
	Domain                 string
	Listener               string
	Port                   int
	TTL                    int64
	HTTPOn                 bool
	HTTPListener           string
	HTTPPort               int
	IPSources              []string
	EnforceRFC952          bool
	SRVRecordDefaultWeight uint16
	SOAMName               string
	SOARName               string
	SOARefresh             int64
	SOARetry               int64
	SOAExpire              int64
	MesosHTTPSOn           bool
	CACertFile             string
	CertFile               string
	KeyFile                string
	MesosAuthentication    string
	IAMConfigFile          string
	Zk                     string
	ExternalOn             bool
	Resolvers              []string
	ZoneResolvers          map[string][]string
	EnumerationOn          bool
}

// readMesosDNS lays a mesos-dns config.json, read from name, over cfg, with
// mesos-dns' own defaults for what it leaves out.
func readMesosDNS(text []byte, name string, cfg *fileConfig) error {
	m := mesosDNSConfig{
		Domain: "mesos", Listener: "0.0.0.0", Port: 53, TTL: 60,
		HTTPOn: true, HTTPListener: "0.0.0.0", HTTPPort: 8123,
		IPSources:              []string{"netinfo", "mesos", "host"},
		SRVRecordDefaultWeight: 1,
		SOAMName:               "ns1.mesos", SOARName: "root.ns1.mesos",
		SOARefresh: 60, SOARetry: 600, SOAExpire: 86400,
		ExternalOn: true, EnumerationOn: true,
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("read as a mesos-dns configuration: %w", err)
	}
	cfg.Mesos.Masters, cfg.Mesos.ZK, cfg.Mesos.HTTPS = m.Masters, zkURL(m.Zk), m.MesosHTTPSOn
	if m.MesosHTTPSOn {
		for i, a := range m.Masters {
			cfg.Mesos.Masters[i] = "https://" + a
		}
	}
	if err := m.credentials(name, &cfg.Mesos); err != nil {
		return err
	}
	seconds := func(n int64) time.Duration { return time.Duration(n) * time.Second }
	d := &cfg.DNS
	d.Listen = []string{net.JoinHostPort(m.Listener, strconv.Itoa(m.Port))}
	d.Domain = strings.ToLower(m.Domain)
	d.TTL = seconds(m.TTL)
	d.IPSources, d.Exact = m.IPSources, true
	d.RFC952 = m.EnforceRFC952
	d.SRVWeight = m.SRVRecordDefaultWeight
	d.SOA = soaConfig{
		MName: m.SOAMName, RName: strings.ReplaceAll(m.SOARName, "@", "."),
		Refresh: seconds(m.SOARefresh), Retry: seconds(m.SOARetry), Expire: seconds(m.SOAExpire),
		Minimum: seconds(m.TTL), // mesos-dns ignores its SOAMinttl and uses ttl
	}
	d.Forward.On, d.Forward.Upstreams = m.ExternalOn, append([]string{}, m.Resolvers...)
	for zone, servers := range m.ZoneResolvers {
		for _, server := range servers {
			d.Forward.Zones = append(d.Forward.Zones, zone+"="+server)
		}
	}
	slices.Sort(d.Forward.Zones)
	cfg.HTTP.Listen, cfg.HTTP.Enumerate = "", m.EnumerationOn
	if m.HTTPOn {
		cfg.HTTP.Listen = net.JoinHostPort(m.HTTPListener, strconv.Itoa(m.HTTPPort))
		// mesos-dns is open to all; we are so to this machine alone without TLS.
		if own, err := api.Loopback(cfg.HTTP.Listen); err == nil && !own {
			cfg.HTTP.Listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(m.HTTPPort))
		}
	}
	return nil
}

// credentials takes over how masters are spoken to. A secret in the configuration
// itself stays there, as in any file that has credentials.
func (m mesosDNSConfig) credentials(name string, cfg *mesosConfig) error {
	cfg.TLS = tlsConfig{
		CAFile: m.CACertFile, CertFile: m.CertFile, KeyFile: m.KeyFile,
		Verify: m.CACertFile != "", // mesos-dns believes any certificate without
	}
	switch m.MesosAuthentication {
	case "":
	case "basic":
		cfg.Auth.CredentialsFile = name
	case "iam":
		if m.IAMConfigFile == "" {
			return errors.New("mesosAuthentication is iam without an IAMConfigFile")
		}
		cfg.Auth.ServiceAccount = m.IAMConfigFile
	default:
		return fmt.Errorf("mesosAuthentication %q is neither basic nor iam", m.MesosAuthentication)
	}
	return nil
}
