package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tell returns what check-config --from says of a file, by old setting.
func tell(t *testing.T, name, text string, args ...string) map[string]string {
	t.Helper()
	code, out, errs := verb(t, append([]string{"check-config", "-o", "json", "--from", writeFile(t, name, text)}, args...)...)
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var m migration
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{"": m.Kind}
	for _, b := range m.Settings {
		said := []string{}
		for _, kv := range b.Keys {
			said = append(said, kv.Key+"="+kv.Value)
		}
		got[b.Old] = strings.Join(append(said, b.Why), " ")
	}
	return got
}

func TestWhatSettingsOfMesosDNSBecame(t *testing.T) {
	got := tell(t, "config.json", `{"zk": "zk://me:secret@10.0.0.1:2181/mesos", "TTL": 30, "domain": "Corp", "refreshSeconds": 60,
		"resolvers": ["10.0.0.2"], "IPSources": ["host"], "email": "root.corp", "listener": "10.0.0.5"}`)
	want := map[string]string{
		"":               "mesos-dns",
		"zk":             "mesos.zk=zk://10.0.0.1:2181/mesos ",
		"TTL":            "dns.ttl=30s dns.soa.minimum=30s ",
		"domain":         "dns.domain=corp ",
		"refreshSeconds": "nothing is polled: changes are streamed as they happen",
		"resolvers":      "dns.forward.upstreams=10.0.0.2 ",
		"IPSources":      "dns.ip_sources=host dns.exact=true ",
		"email":          "unknown to mesos-dns, and to us",
		"listener":       "dns.listen=10.0.0.5:53 ",
	}
	if strings.Contains(got["zk"], "secret") {
		t.Error("the password is shown")
	}
	got["zk"] = regexp.MustCompile(`//.*@`).ReplaceAllString(got["zk"], "//")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestWhatSettingsOfDCOSBecame(t *testing.T) {
	for _, tt := range []struct{ name, text, key, want string }{
		{"upstreams", `{"upstream_resolvers": ["10.0.0.2", "10.0.0.3:5353"]}`, "upstream_resolvers", "dns.forward.upstreams=10.0.0.2,10.0.0.3:5353 "},
		{"DC/OS' own addresses", `{"udp_port": 53, "tcp_port": 53}`, "udp_port", "dns.listen= dns.addresses=198.51.100.1,198.51.100.2,198.51.100.3 "},
		{"another port", `{"udp_port": 5454, "tcp_port": 5454, "bind_ips": ["10.0.0.5"]}`, "bind_ips", "dns.listen=10.0.0.5:5454 dns.addresses= "},
		{"an address left out", `{"bind_ip_blacklist": ["198.51.100.2"]}`, "bind_ip_blacklist", "dns.listen= dns.addresses=198.51.100.1,198.51.100.3 "},
		{"an interface", `{"bind_interface": "lo"}`, "bind_interface", "dns.listen=lo:53 "},
		{"zones by name", `{"forward_zones": {"corp": ["10.0.0.9"]}}`, "forward_zones", "dns.forward.zones=corp=10.0.0.9 "},
		{"zones as DC/OS writes them", `{"forward_zones": [["corp", [["10.0.0.9", 53], ["10.0.0.10", 5353]]]]}`, "forward_zones", "dns.forward.zones=corp=10.0.0.9:53,corp=10.0.0.10:5353 "},
		{"Exhibitor", "MASTER_SOURCE=exhibitor\nEXHIBITOR_ADDRESS=10.0.0.1\n", "MASTER_SOURCE", "mesos.zk=zk://10.0.0.1:2181/mesos "},
		{"Exhibitor by URI", "# a comment\nexport MASTER_SOURCE=exhibitor_uri\nEXHIBITOR_URI='http://lb.corp:8181/exhibitor'\n", "EXHIBITOR_URI", "mesos.zk=zk://lb.corp:2181/mesos "},
		{"a list", "MASTER_SOURCE=master_list\nMASTER_LIST_FILE=" + masterList(t, `["10.0.0.1","10.0.0.2"]`), "MASTER_LIST_FILE", "mesos.zk=zk://10.0.0.1:2181,10.0.0.2:2181/mesos "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tell(t, "file", tt.text)[tt.key]; got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func masterList(t *testing.T, text string) string {
	t.Helper()
	return writeFile(t, "master_list", text)
}

func TestABadOldConfigurationSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"dns: {ttl: 1s}":                        "neither a config.json of mesos-dns",
		`{"udp_port": 53, "tcp_port": 54}`:      "udp_port 53 and tcp_port 54",
		`{"forward_zones": 3}`:                  "forward_zones: neither an object",
		`{"forward_zones": [["corp", "x"]]}`:    `forward_zones: zone "corp"`,
		"MASTER_SOURCE=magic":                   `MASTER_SOURCE: "magic" is none of`,
		"MASTER_SOURCE=exhibitor":               "no master is named",
		"MASTER_SOURCE=exhibitor_uri":           "EXHIBITOR_URI",
		"MASTER_SOURCE=master_list":             "MASTER_LIST_FILE",
		`{"ttl": "soon"}`:                       "read as a mesos-dns configuration",
		`{"upstream_resolvers": ["nowhere"]}`:   "dns.forward.upstreams",
		`{"bind_ips": ["10.0.0.1", "no such"]}`: "dns.listen",
	} {
		code, _, errs := verb(t, "check-config", "--from", writeFile(t, "file", text))
		if code == exitOK || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %s", text, code, errs)
		}
	}
}

// TestTheWrittenFileMeansTheSame writes what an old configuration became as a
// file of ours, and reads that.
func TestTheWrittenFileMeansTheSame(t *testing.T) {
	old := writeFile(t, "config.json", `{"zk": "zk://me:secret@10.0.0.1:2181/mesos", "ttl": 30, "zoneResolvers": {"corp": ["10.0.0.9"]}, "SOARname": "me@corp"}`)
	code, text, errs := verb(t, "check-config", "--yaml", "--from", old)
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, errs)
	}
	path := filepath.Join(t.TempDir(), "waggle.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(configOf(t, "--config", old), configOf(t, "--config", path)); d != "" {
		t.Errorf("(-old +written):\n%s\n%s", d, text)
	}
	if !strings.Contains(text, "me:secret@") {
		t.Errorf("the password is lost:\n%s", text)
	}
}

func TestEveryOldKeyLeadsToKeysOfOursOrSaysWhy(t *testing.T) {
	keys := configOf(t)
	seen := []string{}
	for _, k := range slices.Concat(mesosDNSKeys, dcosDNSKeys, dcosVariables) {
		if (len(k.ours) == 0) == (k.why == "") {
			t.Errorf("%s: %v, %q", k.name, k.ours, k.why)
		}
		for _, key := range k.ours {
			if _, ok := keys[key]; !ok {
				t.Errorf("%s: there is no key %s", k.name, key)
			}
		}
		if slices.Contains(seen, k.name) {
			t.Errorf("%s is there twice", k.name)
		}
		seen = append(seen, k.name)
	}
}

func FuzzReadForeign(f *testing.F) {
	for _, text := range []string{`{"zk": "zk://a:1/m", "resolvers": ["8.8.8.8"]}`, `{"udp_port": 53, "forward_zones": [["a", [["1.1.1.1", 53]]]]}`, "MASTER_SOURCE=exhibitor\nEXHIBITOR_ADDRESS=a\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cfg := defaultFileConfig()
		_, _, _, ok, err := readForeign([]byte(text), "config", &cfg)
		if !ok && err != nil {
			t.Errorf("not read, and yet: %v", err)
		}
	})
}
