package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// verb runs one command line and returns its exit code and what it printed.
func verb(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return verbIn(t, "", args...)
}

func verbIn(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code = run(ctx, env{args: args, stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs})
	return code, out.String(), errs.String()
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// configOf returns what check-config -o json prints, by key.
func configOf(t *testing.T, args ...string) map[string]string {
	t.Helper()
	code, out, errs := verb(t, append([]string{"check-config", "-o", "json"}, args...)...)
	if code != exitOK {
		t.Fatalf("check-config %v: exit %d: %s", args, code, errs)
	}
	var list []keyValue
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, kv := range list {
		got[kv.Key] = kv.Value
	}
	return got
}

func TestAFlagBeatsTheFileWhichBeatsTheDefault(t *testing.T) {
	file := writeFile(t, "waggle.yaml", "dns:\n  domain: corp\n  ttl: 7s\nlb: {peername: true}\n")
	got := configOf(t, "--config", file, "--dns.ttl", "9s", "--mesos.masters", "a:1,b:2", "--mesos.masters", "c:3")
	for key, want := range map[string]string{
		"dns.domain": "corp", "dns.ttl": "9s", "lb.peername": "true",
		"mesos.masters": "a:1,b:2,c:3", "vip.first4": "11.0.0.0", "lb.backend": "auto",
	} {
		if got[key] != want {
			t.Errorf("%s = %q, want %q", key, got[key], want)
		}
	}
}

func TestOptionsOfSingleVIPsMayBeFlags(t *testing.T) {
	const want = `{"11.0.0.1": {affinity: "client:10m"}, "web.marathon": {drain: "30s", locality: "zone"}}`
	file := writeFile(t, "waggle.yaml", "vip:\n  services:\n    web.marathon: {locality: zone, drain: 30s}\n    11.0.0.1: {affinity: 'client:10m'}\n")
	for _, args := range [][]string{{"--config", file}, {"--vip.services", want}} {
		if got := configOf(t, args...)["vip.services"]; got != want {
			t.Errorf("%v: %s, want %s", args, got, want)
		}
	}
}

func TestAMesosDNSConfigurationIsTakenAsItIs(t *testing.T) {
	file := writeFile(t, "config.json", `{
		"masters": ["10.0.0.1:5050"], "DOMAIN": "DC1.Example-corp", "ttl": 5, "port": 8053,
		"listener": "127.0.0.1", "SOARname": "admin@example-corp", "ns": "ignored",
		"IPSources": ["host", "netinfo"], "httpon": false, "srvRecordDefaultWeight": 10}`)
	got := configOf(t, "--config", file)
	for key, want := range map[string]string{
		"mesos.masters": "10.0.0.1:5050", "dns.domain": "dc1.example-corp", "dns.ttl": "5s",
		"dns.listen": "127.0.0.1:8053", "dns.soa.rname": "admin.example-corp", "dns.soa.minimum": "5s",
		"dns.ip_sources": "host,netinfo", "http.listen": "", "dns.srv_weight": "10", "dns.soa.retry": "10m0s",
	} {
		if got[key] != want {
			t.Errorf("%s = %q, want %q", key, got[key], want)
		}
	}
}

func TestMesosDNSFindsMastersInZooKeeper(t *testing.T) {
	url := writeFile(t, "zk", "zk://me:secret@10.0.0.1:2181,10.0.0.2/dcos/mesos\n")
	for in, want := range map[string]string{
		"zk://10.0.0.1:2181/mesos":           "zk://10.0.0.1:2181/mesos",
		"zk://me:s3cr@t@10.0.0.1:2181/mesos": "zk://me:***@10.0.0.1:2181/mesos",
		"file://" + url:                      "file://" + url,
	} {
		got := configOf(t, "--config", writeFile(t, "config.json", `{"zk": "`+in+`", "mesosHTTPSOn": true}`))
		if got["mesos.zk"] != want || got["mesos.https"] != "true" {
			t.Errorf("%s: mesos.zk = %q, mesos.https = %q, want %q", in, got["mesos.zk"], got["mesos.https"], want)
		}
	}
}

func TestAWrongConfigurationNamesTheKeyAndThePlace(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"unknown key":        {"dns:\n  listen: [\"127.0.0.1:53\"]\n  lisen: x\n", "line 3"},
		"wrong type":         {"lb:\n  peername: 7\n", "line 2"},
		"not a duration":     {"dns: {ttl: soon}\n", "soon"},
		"bad listen address": {"dns: {listen: [\"localhost\"]}\n", "dns.listen"},
		"bad backend":        {"lb: {backend: nginx}\n", "lb.backend"},
		"bad range":          {"vip: {first4: 12.0.0.0}\n", "11.255.255.255"},
		"relative folder":    {"state: {dir: waggle}\n", "state.dir"},
		"grace too short":    {"lb: {grace: 1s}\n", "lb.grace"},
		"two documents":      {"lb: {}\n---\nlb: {}\n", "more than one"},
		"bad JSON":           {`{"masters": 7}`, "Masters"},
		"no ZooKeeper":       {"mesos: {zk: \"http://10.0.0.1:2181/mesos\"}\n", "mesos.zk: ZooKeeper URL does not begin with zk://"},
		"no ZooKeeper path":  {`{"zk": "zk://10.0.0.1:2181"}`, "mesos.zk"},
		"bad way of polling": {"mesos: {poll: sometimes}\n", "mesos.poll"},
		"hasty polling":      {"mesos: {poll_interval: 1ms}\n", "mesos.poll_interval"},
		"bad affinity":       {"vip: {affinity: cookie}\n", "vip.affinity"},
		"bad service option": {"vip: {services: {web.marathon: {drain: soon}}}\n", "vip.services.web.marathon.drain"},
		"unknown option":     {"vip: {services: {web.marathon: {colour: blue}}}\n", "vip.services.web.marathon.colour"},
		"no framework":       {"vip: {services: {web: {drain: 1s}}}\n", "vip.services.web"},
		"unknown short cut":  {"lb:\n  short_cut: docker\n", "none of none, mesos, all"},
		"hasty ejection":     {"lb: {eject: {every: 1ms}}\n", "lb.eject.every"},
		"no ejection share":  {"lb: {eject: {percent: 0}}\n", "lb.eject.percent"},
		"slow as all others": {"lb: {eject: {slow: 1}}\n", "lb.eject.slow"},
		"slow by less":       {"lb: {eject: {slow_by: -1s}}\n", "lb.eject.slow_by"},
		"no sample":          {"lb: {eject: {samples: 0}}\n", "lb.eject.samples"},
		"bad exclusion":      {"lb: {exclude: [mesh]}\n", "lb.exclude"},
		"bad node":           {"lb: {node: [here]}\n", "lb.node"},
		"bad level":          {"log: {level: loud}\n", "loud"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, _, errs := verb(t, "check-config", "--config", writeFile(t, "waggle.yaml", tt.text))
			if code == exitOK || !strings.Contains(errs, tt.want) {
				t.Errorf("exit %d, said %q, want it to name %q", code, errs, tt.want)
			}
		})
	}
}

func TestWrongUseIsAUsageError(t *testing.T) {
	for _, args := range [][]string{
		{"vips", "--no-such-flag"}, {"render"}, {"render", "a", "b"}, {"vips", "-o", "xml"},
		{"run", "--dns.ttl", "soon"}, {"render", "--format", "toml", "-"}, {"render", "--node-ip", "x", "-"}, {"run"},
	} {
		if code, _, errs := verb(t, args...); code != exitUsage || errs == "" {
			t.Errorf("waggle %s: exit %d, %q", strings.Join(args, " "), code, errs)
		}
	}
}

func TestEveryVerbShowsHelp(t *testing.T) {
	for _, c := range newRoot(env{}).Commands() {
		if code, out, _ := verb(t, c.Name(), "--help"); code != exitOK || !strings.Contains(out, "Usage:") {
			t.Errorf("waggle %s --help: exit %d, %q", c.Name(), code, out)
		}
	}
}

func TestWithoutADaemonTheVerbsSaySo(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	for _, name := range []string{"vips", "records", "status"} {
		if code, _, errs := verb(t, name, "--socket", socket); code != exitFailed || !strings.Contains(errs, "does it run?") {
			t.Errorf("waggle %s: exit %d, %q", name, code, errs)
		}
	}
}
