package main

import (
	"encoding/json"
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
	n.start(t, n.verb("run", "--file.paths", path, "--mesos.zk", "zk://127.0.0.1:1/mesos", "--lb.watch",
		"--dns.forward.on", "--dns.forward.upstreams", "10.99.0.77:53", "--dns.forward.timeout", "1s")...)
	web := n.up(t, "web.static", 1)
	if c, err := n.dial(t.Context(), "tcp", web.String()); err != nil {
		t.Errorf("through the VIP: %v", err)
	} else {
		c.Close()
	}
	n.query(t, n.Namespace, "web.static.mesos.", dns.TypeA)
	n.query(t, n.Namespace, "nothing.example.", dns.TypeA)
	var text string
	eventually(t, "metrics of everything", func() (ok bool) {
		var err error
		text, err = n.get("/metrics")
		return err == nil && strings.Contains(text, "waggle_ebpf_selftest_ok") && strings.Contains(text, "waggle_forward_failures_total{") &&
			strings.Contains(text, "waggle_dns_requests_total{")
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
