package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.yaml.in/yaml/v3"

	"waggle/watcher/mesos/mesostest"
)

var (
	metricName = regexp.MustCompile(`\bwaggle_[a-z0-9_]*[a-z0-9]\b`)
	sampleName = regexp.MustCompile(`(?m)^(waggle_[a-z0-9_]+)[ {]`)
)

// TestMetricsAreCleanAndThoseOfDashboardAlertsAndDocsExist runs a daemon that
// uses all its parts, and reads its /metrics.
func TestMetricsAreCleanAndThoseOfDashboardAlertsAndDocsExist(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.state, "services.yaml")
	rewrite(t, path, backendOf{"a", "/web:80", n.Echo(t, netip.AddrPortFrom(n.addr, 0)), ""})
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(n.picture(80, "app")); return nil })
	t.Cleanup(master.Close)
	n.start(t, n.verb("run", "--file.paths", path, "--mesos.masters", master.Addr().String(), "--mesos.zk", "zk://127.0.0.1:1/mesos",
		"--lb.watch", "--dns.forward.on", "--dns.forward.upstreams", n.upstream(t)+",10.99.0.77:53", "--dns.forward.timeout", "1s")...)
	web := n.up(t, "web.static", 1)
	if c, err := n.dial(t.Context(), "tcp", web.String()); err != nil {
		t.Errorf("through the VIP: %v", err)
	} else {
		c.Close()
	}
	n.query(t, n.Namespace, "web.static.mesos.", dns.TypeA)
	var text string
	asked := 0
	eventually(t, "metrics of everything", func() (ok bool) {
		asked++
		n.query(t, n.Namespace, fmt.Sprintf("nothing%d.example.", asked), dns.TypeA)
		var err error
		text, err = n.get("/metrics")
		ok = err == nil
		for _, late := range []string{"waggle_ebpf_selftest_ok", "waggle_forward_failures_total{", "waggle_forward_upstream_duration_seconds", "waggle_dns_requests_total{", "waggle_http_requests_total{", "waggle_mesos_events_total{"} {
			ok = ok && strings.Contains(text, late)
		}
		return ok
	})
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "waggle_") {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
	if err != nil {
		t.Error(err)
	}
	exists := map[string]bool{}
	for _, m := range sampleName.FindAllStringSubmatch(text, -1) {
		exists[m[1]] = true
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			exists[strings.TrimSuffix(m[1], suffix)] = true
		}
	}
	for _, file := range []string{"packaging/monitoring/alerts.yaml", "packaging/monitoring/dashboard.json", "docs/metrics.md", "docs/operations.md"} {
		text, err := os.ReadFile(filepath.Join("../..", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Compact(slices.Sorted(slices.Values(metricName.FindAllString(string(text), -1)))) {
			if !exists[name] {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
}

// upstream is a DNS server on the node that answers that there is no such name.
func (n *node) upstream(t *testing.T) string {
	t.Helper()
	var conn net.PacketConn
	n.Must(t, func() (err error) { conn, err = net.ListenPacket("udp", n.addr.String()+":0"); return err })
	srv := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError)) // a client that is gone is no failure
	})}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().String()
}

// TestAlertsLeadToTheirPlaceInTheRunbook checks the form of both files, and that
// each alert's runbook names a heading that exists.
func TestAlertsLeadToTheirPlaceInTheRunbook(t *testing.T) {
	read := func(file string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("../..", file))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(read("docs/operations.md")), -1) {
		headings["operations.md#"+strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")] = true
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(read("packaging/monitoring/alerts.yaml"), &rules); err != nil {
		t.Fatal(err)
	}
	alerts := rules.Groups[0].Rules
	for _, a := range alerts {
		if a.Expr == "" || a.For == "" || a.Labels["severity"] == "" || a.Annotations["summary"] == "" {
			t.Errorf("%s is not whole: %+v", a.Alert, a)
		}
		if !headings[a.Annotations["runbook"]] {
			t.Errorf("%s: there is no %s", a.Alert, a.Annotations["runbook"])
		}
	}
	if len(alerts) < 10 {
		t.Errorf("%d alerts", len(alerts))
	}
	var board struct {
		Panels []struct {
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read("packaging/monitoring/dashboard.json"), &board); err != nil {
		t.Fatal(err)
	}
	for i, p := range board.Panels {
		if p.Type != "row" && (len(p.Targets) == 0 || p.Targets[0].Expr == "") {
			t.Errorf("panel %d asks nothing", i)
		}
	}
}
