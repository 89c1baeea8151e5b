package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// dcosDNSConfig is DC/OS' dcos-dns.json.
type dcosDNSConfig struct {
	UpstreamResolvers []string        `json:"upstream_resolvers"`
	UDPPort           int             `json:"udp_port"`
	TCPPort           int             `json:"tcp_port"`
	ForwardZones      json.RawMessage `json:"forward_zones"`
	BindIPs           []string        `json:"bind_ips"`
	BindInterface     string          `json:"bind_interface"`
	BindIPBlacklist   []string        `json:"bind_ip_blacklist"`
}

// dcosAddresses are those that DC/OS' daemon answers on, on every node.
var dcosAddresses = []string{"198.51.100.1", "198.51.100.2", "198.51.100.3"}

// dcosHTTP is where DC/OS' daemon serves HTTP.
const dcosHTTP = "127.0.0.1:62080"

// isDCOSDNS reports whether a JSON object is a dcos-dns.json: mesos-dns has none
// of its keys.
func isDCOSDNS(text []byte) bool {
	var keys map[string]json.RawMessage
	if json.Unmarshal(text, &keys) != nil {
		return false
	}
	for _, k := range dcosDNSKeys {
		if _, ok := keys[k.name]; ok {
			return true
		}
	}
	return false
}

// readDCOSDNS lays a dcos-dns.json over cfg, with DC/OS' defaults for what it
// leaves out.
func readDCOSDNS(text []byte, cfg *fileConfig) error {
	d := dcosDNSConfig{UDPPort: dnsPort, TCPPort: dnsPort}
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("read as dcos-dns.json: %w", err)
	}
	if d.UDPPort != d.TCPPort {
		return fmt.Errorf("udp_port %d and tcp_port %d: waggle answers both at one port", d.UDPPort, d.TCPPort)
	}
	zones, err := forwardZones(d.ForwardZones)
	if err != nil {
		return fmt.Errorf("forward_zones: %w", err)
	}
	dcosDefaults(cfg)
	bind := d.BindIPs
	if len(bind) == 0 && d.BindInterface == "" {
		bind = dcosAddresses
	}
	bind = slices.DeleteFunc(slices.Clone(bind), func(a string) bool { return slices.Contains(d.BindIPBlacklist, a) })
	cfg.DNS.Listen, cfg.DNS.Addresses = []string{}, []string{}
	port := strconv.Itoa(d.UDPPort)
	if d.BindInterface != "" {
		cfg.DNS.Listen = append(cfg.DNS.Listen, d.BindInterface+":"+port)
	}
	for _, a := range bind {
		if slices.Contains(dcosAddresses, a) && d.UDPPort == dnsPort {
			cfg.DNS.Addresses = append(cfg.DNS.Addresses, a)
		} else {
			cfg.DNS.Listen = append(cfg.DNS.Listen, net.JoinHostPort(a, port))
		}
	}
	cfg.DNS.Forward.Upstreams = append([]string{}, d.UpstreamResolvers...)
	cfg.DNS.Forward.Zones = zones
	return nil
}

// dcosDefaults are what DC/OS' nodes have whatever their files say.
func dcosDefaults(cfg *fileConfig) {
	cfg.DNS.Listen, cfg.DNS.Addresses = []string{}, slices.Clone(dcosAddresses)
	cfg.HTTP.DCOS = dcosHTTP
}

// forwardZones reads {"zone": ["address:port"]} and DC/OS' own form, [["zone",
// [["address", port]]]].
func forwardZones(text json.RawMessage) ([]string, error) {
	out := []string{}
	if len(text) == 0 || string(text) == "null" {
		return out, nil
	}
	var plain map[string][]string
	if json.Unmarshal(text, &plain) == nil {
		for zone, servers := range plain {
			for _, s := range servers {
				out = append(out, zone+"="+s)
			}
		}
		slices.Sort(out)
		return out, nil
	}
	var pairs [][2]json.RawMessage
	if err := json.Unmarshal(text, &pairs); err != nil {
		return nil, errors.New("neither an object of lists nor a list of pairs")
	}
	for _, p := range pairs {
		var zone string
		var servers [][2]any
		if err := errors.Join(json.Unmarshal(p[0], &zone), json.Unmarshal(p[1], &servers)); err != nil {
			return nil, fmt.Errorf("zone %s: %w", p[0], err)
		}
		for _, s := range servers {
			out = append(out, fmt.Sprintf("%s=%s", zone, net.JoinHostPort(fmt.Sprint(s[0]), fmt.Sprint(s[1]))))
		}
	}
	return out, nil
}

// readEnvironment reads lines of KEY=value, as in DC/OS' environment files, and
// reports whether the text is nothing else.
func readEnvironment(text string) (map[string]string, bool) {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok || key == "" || strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			return nil, false
		}
		out[key] = strings.Trim(value, `"'`)
	}
	return out, len(out) > 0
}

// readDCOSEnvironment lays over cfg where DC/OS' environment says that masters
// are.
func readDCOSEnvironment(vars map[string]string, cfg *fileConfig) error {
	dcosDefaults(cfg)
	var hosts []string
	switch source := vars["MASTER_SOURCE"]; source {
	case "master_list":
		path := vars["MASTER_LIST_FILE"]
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("MASTER_LIST_FILE: %w", err)
		}
		if err := json.Unmarshal(text, &hosts); err != nil {
			return fmt.Errorf("MASTER_LIST_FILE: read %s: %w", path, err)
		}
	case "exhibitor":
		hosts = []string{vars["EXHIBITOR_ADDRESS"]}
	case "exhibitor_uri":
		u, err := url.Parse(vars["EXHIBITOR_URI"])
		if err != nil || u.Hostname() == "" {
			return fmt.Errorf("EXHIBITOR_URI: %q is no URL", vars["EXHIBITOR_URI"])
		}
		hosts = []string{u.Hostname()}
	default:
		return fmt.Errorf("MASTER_SOURCE: %q is none of master_list, exhibitor, exhibitor_uri", source)
	}
	var servers []string
	for _, h := range hosts {
		if h != "" {
			servers = append(servers, net.JoinHostPort(h, "2181"))
		}
	}
	if len(servers) == 0 {
		return errors.New("no master is named")
	}
	cfg.Mesos.ZK = zkURL("zk://" + strings.Join(servers, ",") + "/mesos")
	return nil
}
