package api

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// DCOSVIP is a VIP as DC/OS' daemon lists it: neither weight nor agent is told,
// and an address of version 6 has no brackets.
type DCOSVIP struct {
	VIP      string        `json:"vip"` // name or address, colon, port
	Protocol string        `json:"protocol"`
	Backend  []DCOSBackend `json:"backend"`
}

// DCOSBackend is one backend, whether it gets connections or not.
type DCOSBackend struct {
	IP   netip.Addr `json:"ip"`
	Port uint16     `json:"port"`
}

// DCOSNode is one agent of the cluster.
type DCOSNode struct {
	PrivateIP netip.Addr   `json:"private_ip"`
	PublicIPs []netip.Addr `json:"public_ips"`
	Hostname  string       `json:"hostname"`
	Updated   string       `json:"updated"` // RFC 3339 with milliseconds, in UTC
}

type dcosService struct {
	Service string `json:"service"`
	Host    string `json:"host"`
	Port    uint16 `json:"port"`
	IP      string `json:"ip,omitempty"`
}

// dcosRoutes are the paths that DC/OS' daemon has and mesos-dns has not.
func (s *Server) dcosRoutes() []route {
	return []route{
		{"/v1/vips", s.zoned(s.dcosVIPs)},
		{"/v1/nodes", s.zoned(s.dcosNodes)},
		{"/v1/records", s.zoned(dcosRecords)},
		{"/v1/metrics", promhttp.HandlerFor(s.gather, promhttp.HandlerOpts{}).ServeHTTP},
		{"/v1/metrics/{registry}", s.dcosMetrics},
		{"/lashup/key", plain(s.dcosKey)},
	}
}

// dcosOwnRoutes are the paths that both have and DC/OS' daemon answers in
// another way.
func (s *Server) dcosOwnRoutes() []route {
	none := plain(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not implemented", http.StatusNotImplemented)
	})
	return []route{
		{"/v1/version", plain(func(w http.ResponseWriter, _ *http.Request) {
			replyOld(w, struct{ Service, Version string }{"dcos-dns", s.cfg.Version})
		})},
		{"/v1/config", none},
		{"/v1/enumerate", none},
		{"/v1/hosts/{host}", s.zoned(dcosHosts)},
		{"/v1/services/{service}", s.zoned(dcosServices)},
	}
}

// dcosVIPs lists a VIP by name once, though it may have addresses of both
// versions.
func (s *Server) dcosVIPs(w http.ResponseWriter, _ *http.Request, v View) {
	out := []DCOSVIP{}
	at := map[string]int{}
	for _, d := range VIPs(v.Table, v.Plan, s.cfg.VIPZone) {
		host := strings.TrimSuffix(d.Name, ".")
		if host == "" {
			host = d.Address.String()
		}
		id := host + ":" + strconv.Itoa(int(d.Port))
		i, ok := at[d.Protocol+id]
		if !ok {
			i = len(out)
			at[d.Protocol+id] = i
			out = append(out, DCOSVIP{VIP: id, Protocol: d.Protocol, Backend: []DCOSBackend{}})
		}
		for _, b := range d.Backends {
			out[i].Backend = append(out[i].Backend, DCOSBackend{b.Address, b.Port})
		}
	}
	body, err := json.Marshal(out)
	if err != nil {
		panic(err) // plain structs of ours
	}
	sum := sha1.Sum(body)
	w.Header().Set("ETag", `"`+base64.StdEncoding.EncodeToString(sum[:])+`"`)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// dcosNodes lists the agents. Public addresses are known of this machine only;
// what is in a picture is as new as the picture.
func (s *Server) dcosNodes(w http.ResponseWriter, _ *http.Request, v View) {
	out := []DCOSNode{}
	updated := v.Published.UTC().Truncate(time.Millisecond).Format("2006-01-02T15:04:05.000Z")
	for _, a := range v.Snapshot.Agents.All() {
		if !a.Addr.IsValid() {
			continue
		}
		n := DCOSNode{PrivateIP: a.Addr, PublicIPs: []netip.Addr{}, Hostname: a.Hostname, Updated: updated}
		if slices.Contains(s.cfg.NodeAddrs, a.Addr) {
			n.PublicIPs = append(n.PublicIPs, s.cfg.PublicAddrs...)
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b DCOSNode) int { return a.PrivateIP.Compare(b.PrivateIP) })
	reply(w, out)
}

// dcosRecords lists what is in every domain of ours, names without the final
// dot.
func dcosRecords(w http.ResponseWriter, _ *http.Request, v View) {
	out := []ListedRecord{}
	for _, r := range v.Zone.Records() {
		if !listable(r.Type) {
			continue
		}
		l := ListedRecord{Name: strings.TrimSuffix(r.Name, "."), Host: r.Data, RType: r.Type}
		if t, ok := targetOf(r); ok {
			l.Host = strings.TrimSuffix(t.name, ".") + ":" + t.port
		}
		out = append(out, l)
	}
	reply(w, out)
}

func dcosHosts(w http.ResponseWriter, r *http.Request, v View) {
	name := strings.ToLower(strings.TrimSuffix(r.PathValue("host"), "."))
	out := []HostAddress{}
	for _, a := range addressesOf(v.Zone, name) {
		if a.Is4() {
			out = append(out, HostAddress{name, a.String()})
		}
	}
	reply(w, out)
}

func dcosServices(w http.ResponseWriter, r *http.Request, v View) {
	name := strings.ToLower(strings.TrimSuffix(r.PathValue("service"), "."))
	out := []dcosService{}
	for _, t := range targetsOf(v.Zone, name) {
		port, err := strconv.ParseUint(t.port, 10, 16)
		if err != nil {
			continue
		}
		d := dcosService{Service: name, Host: strings.TrimSuffix(t.name, "."), Port: uint16(port)}
		if addrs := addressesOf(v.Zone, t.name); len(addrs) > 0 && addrs[0].Is4() {
			d.IP = addrs[0].String()
		}
		out = append(out, d)
	}
	reply(w, out)
}

// dcosKey tells the public key of the cluster where it is configured. DC/OS'
// daemon shows the secret one too.
func (s *Server) dcosKey(w http.ResponseWriter, r *http.Request) {
	if s.cfg.CryptoID == "" {
		http.NotFound(w, r)
		return
	}
	reply(w, map[string]string{"zbase32_public_key": s.cfg.CryptoID})
}

// registries are those of DC/OS' daemon that have something of ours in them, by
// the beginnings of its names. Whatever else is ours is in l4lb.
var registries = map[string][]string{
	"dns":            {"waggle_dns_", "waggle_forward_"},
	"mesos_listener": {"waggle_mesos_", "waggle_zk_", "waggle_zookeeper_", "waggle_snapshot_"},
	"default":        {"go_", "process_"},
}

// registryOf returns the name of the registry that a metric is in.
func registryOf(metric string) string {
	for name, prefixes := range registries {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(metric, p) }) {
			return name
		}
	}
	return "l4lb"
}

// dcosMetrics shows the part of the metrics that a registry of DC/OS' daemon
// has.
func (s *Server) dcosMetrics(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("registry")
	if registries[name] == nil && name != "l4lb" {
		http.Error(w, fmt.Sprintf("no registry %q", name), http.StatusNotFound)
		return
	}
	part := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		all, err := s.gather.Gather()
		return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool {
			return registryOf(f.GetName()) != name
		}), err
	})
	promhttp.HandlerFor(part, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}
