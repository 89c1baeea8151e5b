package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waggle/api"
	"waggle/internal/outside"
)

// rendered runs `waggle render`.
func rendered(t *testing.T, stdin string, args ...string) api.Document {
	t.Helper()
	code, out, errs := verbIn(t, stdin, append([]string{"render"}, args...)...)
	if code != exitOK {
		t.Fatalf("waggle render %s: exit %d: %s", strings.Join(args, " "), code, errs)
	}
	var doc api.Document
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// dcosCase is one case of dcos-net.json that has a scheduler document as input.
type dcosCase struct {
	Name, Group string
	Quirk       bool
	Input       struct {
		Format, Fixture string
		Messages        []json.RawMessage
		NodeIP          string `json:"node_ip"`
		Min             string `json:"min_named_ip"`
		Max             string `json:"max_named_ip"`
		IPv6            *bool  `json:"enable_ipv6"`
	}
	Expect json.RawMessage
}

// served is what DC/OS' daemon makes of such a document, every list a set.
type served struct {
	Tasks    map[string]servedTask
	DNS      map[string][]string
	VIPs     []servedVIP
	Services []servedVIP
	L4LB     []string `json:"l4lb_dns"`
}

type servedTask struct {
	AgentIP   string `json:"agent_ip"`
	Framework string
	Name      string
	State     string
	Healthy   *bool
	TaskIP    []string `json:"task_ip"`
	Ports     []servedPort
}

type servedPort struct {
	Name     string
	Port     uint16
	HostPort uint16 `json:"host_port"`
	Protocol string
	VIP      []string
}

// servedVIP is a VIP, and without VIP a service.
type servedVIP struct {
	VIP       string
	Framework string
	Label     string
	Address   string
	Port      uint16
	Protocol  string
	Backends  []servedBackend
}

type servedBackend struct {
	Agent  string
	IP     string
	Port   uint16
	Weight uint16
}

func TestRenderServesWhatDCOSServes(t *testing.T) {
	var cases []dcosCase
	outside.JSON(t, &cases, "conformance", "dcos-net.json")
	ran := 0
	for _, c := range cases {
		if !strings.HasPrefix(c.Input.Format, "mesos-v1") || c.Quirk {
			continue
		}
		ran++
		t.Run(c.Name, func(t *testing.T) {
			var want served
			if err := json.Unmarshal(c.Expect, &want); err != nil {
				t.Fatal(err)
			}
			got := asServed(rendered(t, c.document(t), c.flags()...))
			set := cmp.Options{
				cmpopts.EquateEmpty(),
				cmpopts.SortSlices(func(a, b string) bool { return a < b }),
				cmpopts.SortSlices(func(a, b servedPort) bool { return fmt.Sprint(a) < fmt.Sprint(b) }),
				cmpopts.SortSlices(func(a, b servedVIP) bool { return fmt.Sprint(a) < fmt.Sprint(b) }),
				cmpopts.SortSlices(func(a, b servedBackend) bool { return fmt.Sprint(a) < fmt.Sprint(b) }),
			}
			if d := cmp.Diff(want, got, set); d != "" {
				t.Error(d)
			}
		})
	}
	if ran < 95 {
		t.Errorf("ran %d cases only", ran)
	}
}

func (c dcosCase) document(t *testing.T) string {
	t.Helper()
	if c.Input.Fixture != "" {
		return string(outside.Read(t, "fixtures", "dcos-net", strings.TrimPrefix(c.Input.Fixture, "fixtures/")))
	}
	var out bytes.Buffer
	for _, m := range c.Input.Messages {
		if err := json.Compact(&out, m); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func (c dcosCase) flags() []string {
	args := []string{"--node-ip", c.Input.NodeIP, "-"}
	if c.Input.Min != "" {
		args = append(args, "--vip.first4", c.Input.Min)
	}
	if c.Input.Max != "" {
		args = append(args, "--vip.last4", c.Input.Max)
	}
	if c.Input.IPv6 != nil {
		args = append(args, fmt.Sprintf("--vip.ipv6=%v", *c.Input.IPv6))
	}
	return args
}

// asServed brings what we render into the shape of the cases.
func asServed(doc api.Document) served {
	out := served{Tasks: map[string]servedTask{}, DNS: map[string][]string{}}
	for _, t := range doc.Tasks {
		st := servedTask{AgentIP: t.AgentIP, Framework: t.Framework, Name: t.Name, State: t.State, Healthy: t.Healthy}
		for _, ip := range t.IPs {
			st.TaskIP = append(st.TaskIP, ip.String())
		}
		for _, p := range t.Ports {
			st.Ports = append(st.Ports, servedPort{p.Name, p.Port, p.HostPort, p.Protocol, p.VIPs})
		}
		// A second task of the same id belongs to another framework; the cases
		// show but the last.
		out.Tasks[t.ID] = st
	}
	for _, v := range doc.VIPs {
		out.addVIP(v)
	}
	for _, r := range doc.Records {
		name := strings.TrimSuffix(r.Name, ".")
		switch {
		case r.Type == "SRV" || strings.HasPrefix(name, "leader.") || strings.HasPrefix(name, "master."):
		case strings.HasSuffix(name, ".dcos.thisdcos.directory"):
			out.DNS[name] = append(out.DNS[name], r.Type+" "+r.Data)
		case strings.HasSuffix(name, ".l4lb.thisdcos.directory"):
			out.L4LB = append(out.L4LB, name+" "+r.Type+" "+r.Data)
		}
	}
	return out
}

func (s *served) addVIP(v api.VIP) {
	service := servedVIP{Address: v.Address.String(), Port: v.Port, Protocol: v.Protocol}
	for _, b := range v.Backends {
		service.Backends = append(service.Backends, servedBackend{b.Agent, b.Address.String(), b.Port, b.Weight})
	}
	vip := service
	vip.Address = ""
	vip.Framework, vip.Label = v.Framework, v.Label
	host := strings.TrimSuffix(v.Name, ".")
	if host == "" {
		host = v.Address.String()
	}
	vip.VIP = fmt.Sprintf("%s:%d", host, v.Port)
	if len(service.Backends) > 0 {
		s.Services = append(s.Services, service)
	}
	// A named VIP with addresses in two families is one VIP there.
	for i, o := range s.VIPs {
		if o.VIP == vip.VIP && o.Protocol == vip.Protocol {
			s.VIPs[i].Backends = append(o.Backends, vip.Backends...)
			return
		}
	}
	s.VIPs = append(s.VIPs, vip)
}

// axfr is the answer of mesos-dns' /v1/axfr.
type axfr struct {
	Domain  string
	Records struct{ As, AAAAs, SRVs map[string][]string }
}

// states are the documents that the variants in conformance/mesos-dns were made
// from.
var states = map[string]string{
	"default": "mesos-dns-fake", "host": "mesos-dns-fake", "host-netinfo": "mesos-dns-fake", "netinfo": "mesos-dns-fake",
	"domain": "mesos-dns-fake", "masters3": "mesos-dns-fake", "edge-default": "edge-state", "big-default": "big-state",
	"oa-operator-api-dcos": "state-from-operator-api", "oa-operator-api-default": "state-from-operator-api",
	"oa-pod-tasks-default": "state-from-pod-tasks", "oa-vip-labels-default": "state-from-vip-labels",
}

func TestRenderServesWhatMesosDNSServes(t *testing.T) {
	dirs, err := os.ReadDir(outside.Path(t, "conformance", "mesos-dns"))
	if err != nil {
		t.Fatal(err)
	}
	var variants []string
	for _, d := range dirs {
		if d.IsDir() {
			variants = append(variants, d.Name())
		}
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(states)), variants); d != "" {
		t.Error(d)
	}
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			var theirs axfr
			outside.JSON(t, &theirs, "conformance", "mesos-dns", variant, "axfr.json")
			want := theirs.records()
			got := map[string]bool{}
			for _, r := range rendered(t, "", "--config", outside.Path(t, "conformance", "mesos-dns", variant, "config.json"),
				outside.Path(t, "fixtures", "mesos-dns", states[variant]+".json")).Records {
				if strings.HasSuffix(r.Name, "."+theirs.Domain+".") {
					got[r.Name+" "+r.Type+" "+short(r)] = true
				}
			}
			compareRecords(t, want, got)
		})
	}
}

// short drops priority and weight of an SRV record, which /v1/axfr leaves out.
func short(r api.Record) string {
	if f := strings.Fields(r.Data); r.Type == "SRV" && len(f) == 4 {
		return f[3] + ":" + f[2]
	}
	return r.Data
}

func (a axfr) records() map[string]bool {
	out := map[string]bool{}
	for kind, names := range map[string]map[string][]string{"A": a.Records.As, "AAAA": a.Records.AAAAs, "SRV": a.Records.SRVs} {
		for name, list := range names {
			for _, data := range list {
				out[name+" "+kind+" "+data] = true
			}
		}
	}
	return out
}

func compareRecords(t *testing.T, want, got map[string]bool) {
	t.Helper()
	report := func(what string, list []string) {
		slices.Sort(list)
		if n := len(list); n > 25 {
			list = append(list[:25], fmt.Sprintf("and %d more", n-25))
		}
		if len(list) > 0 {
			t.Errorf("%s:\n  %s", what, strings.Join(list, "\n  "))
		}
	}
	var missing, extra []string
	ours := map[string]bool{}
	for r := range want {
		if notServed(r) == "" {
			ours[asServedHere(r)] = true
		}
	}
	for r := range ours {
		if !got[r] {
			missing = append(missing, r)
		}
	}
	for r := range got {
		if !ours[r] {
			extra = append(extra, r)
		}
	}
	report("missing", missing)
	report("too many", extra)
}

var canonical = regexp.MustCompile(`^(.*)(-[a-z0-9]{5}-[^-.]+)$`)

// asServedHere brings a record of mesos-dns into the form we serve: names in
// lower case, since queries come so, and canonical labels cut to 63 octets,
// without which no answer that holds them can be sent.
func asServedHere(record string) string {
	fields := strings.SplitN(record, " ", 3)
	name, kind, data := fields[0], fields[1], fields[2]
	port := ""
	if kind == "SRV" {
		i := strings.LastIndexByte(data, ':')
		data, port = data[:i], data[i:]
	}
	for _, text := range []*string{&name, &data} {
		labels := strings.Split(strings.ToLower(*text), ".")
		for i, l := range labels {
			if m := canonical.FindStringSubmatch(l); m != nil && len(l) > 63 {
				labels[i] = m[1][:63-len(m[2])] + m[2]
			}
		}
		*text = strings.Join(labels, ".")
	}
	return name + " " + kind + " " + data + port
}

// notServed says why we do not serve a record of mesos-dns, or nothing. The
// reasons are those of facts/mesos-dns.md 1.4, 1.5 and 7.5.
func notServed(record string) string {
	name, rest, _ := strings.Cut(asServedHere(record), ". ")
	for l := range strings.SplitSeq(name, ".") {
		if l == "" || len(l) > 63 {
			return "no query can carry the name"
		}
	}
	port := rest[strings.LastIndexByte(rest, ':')+1:]
	switch {
	case strings.Contains(strings.TrimPrefix(record, name), ". SRV .") || strings.Count(record, " ") > 2 || len(name) > 253:
		return "no query can carry the name or the target"
	case strings.HasPrefix(rest, "SRV ") && len(port) == 5 && port > "65535":
		return "there is no such port"
	}
	switch record {
	case "_framework._tcp.leader.mesos. SRV leader.mesos.:99", "_framework._tcp.slave.mesos. SRV slave.mesos.:99",
		"leader.mesos. A 10.1.0.112", "slave.mesos. A 10.1.0.111":
		return "a framework is named like a name of the cluster's own"
	}
	return ""
}
