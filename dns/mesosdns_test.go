package dns

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"waggle/internal/outside"
)

func seconds64(n int) time.Duration { return time.Duration(n) * time.Second }

// variants are the configurations mesos-dns was run with, and the state each
// had.
var variants = map[string]string{
	"default":                 "mesos-dns-fake.json",
	"host":                    "mesos-dns-fake.json",
	"host-netinfo":            "mesos-dns-fake.json",
	"netinfo":                 "mesos-dns-fake.json",
	"domain":                  "mesos-dns-fake.json",
	"masters3":                "mesos-dns-fake.json",
	"edge-default":            "edge-state.json",
	"big-default":             "big-state.json",
	"oa-operator-api-default": "state-from-operator-api.json",
	"oa-operator-api-dcos":    "state-from-operator-api.json",
	"oa-pod-tasks-default":    "state-from-pod-tasks.json",
	"oa-vip-labels-default":   "state-from-vip-labels.json",
}

// zoneOf builds the Zone of a variant.
func zoneOf(t testing.TB, variant string) *Zone {
	t.Helper()
	var raw json.RawMessage
	outside.JSON(t, &raw, "fixtures", "mesos-dns", variants[variant])
	snap := decodeV0(t, raw)
	cfg, masters := readMesosDNSConfig(t, variant)
	// The state was served at the first master's address, which so was the leader.
	snap.Masters, snap.Leader = masters, masters[0]
	return Build(nil, snap, nil, cfg)
}

func TestRecordsAreThoseOfMesosDNS(t *testing.T) {
	for variant := range variants {
		t.Run(variant, func(t *testing.T) {
			z := zoneOf(t, variant)
			got, want := map[Record]bool{}, map[Record]bool{}
			for _, r := range z.Records() {
				if !strings.HasSuffix(r.Name, ".arpa.") { // mesos-dns has none of those
					got[r] = true
				}
			}
			for _, r := range readAXFR(t, variant, z) {
				want[r] = true
				if !got[r] {
					t.Errorf("missing: %v", r)
				}
			}
			for r := range got {
				if !want[r] {
					t.Errorf("not in mesos-dns: %v", r)
				}
			}
			if len(want) < 5 {
				t.Errorf("only %d records to compare with", len(want))
			}
		})
	}
}

// readAXFR returns the records of mesos-dns, less those that are not copied on
// purpose.
func readAXFR(t testing.TB, variant string, z *Zone) []Record {
	t.Helper()
	var axfr struct {
		TTL     uint32
		Records struct{ As, AAAAs, SRVs map[string][]string }
	}
	outside.JSON(t, &axfr, "conformance", "mesos-dns", variant, "axfr.json")
	var out []Record
	for rrtype, names := range map[string]map[string][]string{"A": axfr.Records.As, "AAAA": axfr.Records.AAAAs, "SRV": axfr.Records.SRVs} {
		for name, values := range names {
			for _, data := range values {
				r := Record{Name: name, Type: rrtype, TTL: axfr.TTL, Data: data}
				if rrtype == "SRV" {
					i := strings.LastIndexByte(data, ':')
					r.Data = fmt.Sprintf("0 %d %s %s", z.layout.cfg.SRVWeight, data[i+1:], shortened(data[:i]))
				}
				r.Name = shortened(r.Name)
				if why := notCopied(variant, r); why == "" {
					out = append(out, r)
				}
			}
		}
	}
	return out
}

var canonicalLabel = regexp.MustCompile(`^(.*)(-[a-z0-9]{5}-[^-.]+)$`)

// shortened does to a name of mesos-dns what we do: lower case, as names are
// asked for in any, and canonical labels cut to what a label may hold.
func shortened(name string) string {
	labels := strings.Split(strings.ToLower(name), ".")
	for i, l := range labels {
		if m := canonicalLabel.FindStringSubmatch(l); m != nil && len(l) > maxLabel {
			labels[i] = m[1][:maxLabel-len(m[2])] + m[2]
		}
	}
	return strings.Join(labels, ".")
}

// notCopied says why a record of mesos-dns is not served here, or nothing.
func notCopied(variant string, r Record) string {
	data := strings.Split(r.Data, " ")
	target := data[len(data)-1]
	switch {
	case !fitsQuery(r.Name):
		return "no query can carry the name"
	case r.Type != "SRV":
	case !fitsQuery(target):
		return "no query can carry the target"
	case len(data[2]) == 5 && data[2] > "65535":
		return "there is no such port"
	}
	if variant != "edge-default" {
		return ""
	}
	switch r {
	case Record{"_framework._tcp.leader.mesos.", "SRV", 60, "0 1 99 leader.mesos."},
		Record{"_framework._tcp.slave.mesos.", "SRV", 60, "0 1 99 slave.mesos."},
		Record{"leader.mesos.", "A", 60, "10.1.0.112"},
		Record{"slave.mesos.", "A", 60, "10.1.0.111"}:
		return "a framework is called like a name of the cluster's own"
	}
	return ""
}

// fitsQuery reports whether a name is within the limits of RFC 1035 and free of
// spaces, which arrive escaped and so never matched in mesos-dns.
func fitsQuery(name string) bool {
	for _, l := range strings.Split(strings.TrimSuffix(name, "."), ".") {
		if l == "" || len(l) > 63 || strings.Contains(l, " ") {
			return false
		}
	}
	return len(name) <= 254
}
