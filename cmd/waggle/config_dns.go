package main

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"waggle/dns"
	"waggle/dns/guard"
	"waggle/ebpf/answers"
	"waggle/internal/hostnet"
)

// dnsLimitConfig is how fast replies over UDP may go to one network.
type dnsLimitConfig struct {
	Rate   uint16   `yaml:"rate" help:"replies of one kind (answers, missing names, errors) a second to one network over UDP; 0 for no limit"`
	Burst  uint16   `yaml:"burst" help:"replies that may go ahead of the rate"`
	Slip   uint16   `yaml:"slip" help:"one of so many held back replies is sent cut, so that a client can come by TCP; 0 for none"`
	Exempt []string `yaml:"exempt" help:"networks without a limit: prefixes, addresses, loopback, private, own"`
}

type dnsTCPConfig struct {
	Connections uint16        `yaml:"connections" help:"TCP connections open at a time"`
	PerClient   uint16        `yaml:"per_client" help:"TCP connections of one address"`
	Idle        time.Duration `yaml:"idle" help:"how long a TCP connection may be silent"`
}

type dnsLogConfig struct {
	Sample uint16        `yaml:"sample" help:"log one of so many queries; 0 for none"`
	Names  []string      `yaml:"names" help:"keep the sample to these names and what is below them"`
	Slow   time.Duration `yaml:"slow" help:"log queries that take longer; 0 for none"`
}

// maxReaders is more than any machine has a use for.
const maxReaders = 256

// maxKernelAnswers take 800 MB.
const maxKernelAnswers = 1 << 20

// defaultDNSServer lays the server's defaults under the keys of d.
func defaultDNSServer(d *dnsConfig) {
	s := dns.DefaultServerConfig()
	d.Loop, d.Readers = string(s.Loop), s.Readers
	d.Kernel = answers.DefaultConfig().Most
	d.Addresses = []string{}
	d.Allow, d.Transfer = []string{"loopback", "private", "own"}, []string{}
	d.Limit = dnsLimitConfig{Rate: s.Limit.Rate, Burst: s.Limit.Burst, Slip: s.Limit.Slip, Exempt: []string{"loopback", "own"}}
	d.TCP = dnsTCPConfig{Connections: uint16(s.Connections), PerClient: uint16(s.ConnectionsEach), Idle: s.Idle}
	d.Log = dnsLogConfig{Names: []string{}}
	d.Forward = defaultForwardConfig()
}

// server returns the configuration of the DNS server. What cannot be read is
// told to bad, by key.
func (d dnsConfig) server(bad func(key, format string, args ...any)) dns.ServerConfig {
	s := dns.DefaultServerConfig()
	s.Listen, s.Handover = d.addrPorts(bad), d.Handover
	s.Loop, s.Readers = dns.Loop(d.Loop), d.Readers
	switch s.Loop {
	case dns.LoopAuto, dns.LoopRaw, dns.LoopPlain:
	default:
		bad("dns.loop", "%q is none of auto, raw, plain", d.Loop)
	}
	if d.Readers < 1 || d.Readers > maxReaders {
		bad("dns.readers", "%d is not from 1 to %d", d.Readers, maxReaders)
	}
	if d.Kernel < 0 || d.Kernel > maxKernelAnswers {
		bad("dns.kernel_answers", "%d is not from 0 to %d", d.Kernel, maxKernelAnswers)
	}
	networks := func(key string, list []string) []netip.Prefix {
		out, err := guard.ParseNetworks(list, hostnet.Addrs())
		if err != nil {
			bad(key, "%v", err)
		}
		return append([]netip.Prefix{}, out...)
	}
	s.Allow = networks("dns.allow", d.Allow)
	s.Transfer = networks("dns.transfer", d.Transfer)
	s.Unlimited = networks("dns.limit.exempt", d.Limit.Exempt)
	s.Limit.Rate, s.Limit.Burst, s.Limit.Slip = d.Limit.Rate, d.Limit.Burst, d.Limit.Slip
	s.Connections, s.ConnectionsEach, s.Idle = int(d.TCP.Connections), int(d.TCP.PerClient), d.TCP.Idle
	if d.TCP.Connections == 0 {
		bad("dns.tcp.connections", "none would leave clients without large answers")
	}
	if d.TCP.Idle <= 0 {
		bad("dns.tcp.idle", "%s is no time to send a query in", d.TCP.Idle)
	}
	secrets, err := readSecrets(d.CookieSecrets)
	if err != nil {
		bad("dns.cookie_secrets", "%v", err)
	}
	s.CookieSecrets = secrets
	s.Log = dns.QueryLogConfig{Sample: uint32(d.Log.Sample), Names: d.Log.Names, Slow: d.Log.Slow}
	return s
}

// names sets what d says of names beside those of what runs.
func (d dnsConfig) names(to *dns.Config, bad func(key, format string, args ...any)) {
	to.Exact, to.CryptoID, to.Records = d.Exact, d.CryptoID, d.Records
	for _, text := range d.Public {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			bad("dns.public", "%q is not an address", text)
			continue
		}
		to.PublicAddrs = append(to.PublicAddrs, a.Unmap())
	}
}

// thisNode returns the addresses of this machine that others know it by: the
// configured ones, else those it speaks to the outside from.
func (c fileConfig) thisNode() (out []netip.Addr) {
	if len(c.LB.Node) > 0 {
		return c.LB.node(ignore)
	}
	v4, v6 := hostnet.Outgoing()
	for _, a := range [...]netip.Addr{v4, v6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// dnsPort is where clients ask.
const dnsPort = 53

// addrPorts returns all addresses to listen on.
func (d dnsConfig) addrPorts(bad func(key, format string, args ...any)) (out []netip.AddrPort) {
	for _, l := range d.Listen {
		list, err := parseListen(l)
		if err != nil {
			bad("dns.listen", "%v", err)
		}
		out = append(out, list...)
	}
	for _, a := range d.Addresses {
		addr, err := netip.ParseAddr(a)
		if err != nil || addr.Zone() != "" || addr.IsUnspecified() {
			bad("dns.addresses", "%q is no address that lo can have", a)
			continue
		}
		if ap := netip.AddrPortFrom(addr.Unmap(), dnsPort); !slices.Contains(out, ap) {
			out = append(out, ap)
		}
	}
	return out
}

// parseListen reads address:port or interface:port.
func parseListen(text string) (out []netip.AddrPort, err error) {
	ap, err := netip.ParseAddrPort(text)
	if err == nil {
		return []netip.AddrPort{ap}, nil
	}
	host, service, splitErr := net.SplitHostPort(text)
	port, portErr := strconv.ParseUint(service, 10, 16)
	if splitErr != nil || portErr != nil || host == "" || strings.Contains(host, ":") {
		return nil, err
	}
	addrs, err := hostnet.LinkAddrs(host)
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a, uint16(port)))
	}
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("interface %s has no address", host)
	}
	return out, err
}

// readSecrets reads the secrets in the file at path; an empty path is none.
func readSecrets(path string) (out []guard.Secret, err error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for i, word := range strings.Fields(string(text)) {
		b, err := hex.DecodeString(word)
		if err != nil || len(b) != len(guard.Secret{}) { // which err would show
			return nil, fmt.Errorf("secret %d in %s is not %d hexadecimal digits", i+1, path, 2*len(guard.Secret{}))
		}
		out = append(out, guard.Secret(b))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no secret in %s", path)
	}
	return out, nil
}

func (c fileConfig) dnsServer() dns.ServerConfig {
	return c.DNS.server(ignore)
}

// keeper returns which addresses are added to lo, none for none.
func (c fileConfig) keeper() hostnet.KeeperConfig {
	k := hostnet.KeeperConfig{Link: "lo", Memory: filepath.Join(cmp.Or(c.State.Dir, "/run/waggle"), "addresses")}
	for _, text := range c.DNS.Addresses {
		if a, err := netip.ParseAddr(text); err == nil {
			k.Addrs = append(k.Addrs, a.Unmap())
		}
	}
	return k
}
