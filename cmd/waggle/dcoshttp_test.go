package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/api"
	"waggle/internal/outside"
	"waggle/internal/testnet"
	"waggle/watcher/mesos/mesostest"
)

// restCase is a case of group rest in dcos-net.json.
type restCase struct {
	Name, Group string
	Input       struct{ GET string }
	Expect      map[string]json.RawMessage
}

// dcosCluster is what the cases of group rest speak of: VIPs, a name with two
// addresses, a node.
func dcosCluster() []byte {
	addr, no := netip.MustParseAddr, false
	vip := func(label string, number int) []mesostest.Port {
		return []mesostest.Port{{Number: number, Name: "p", Protocol: "tcp", Labels: []string{"VIP_0", label, "network-scope", "container"}}}
	}
	task := func(id, name, ip string, ports []mesostest.Port) mesostest.Task {
		return mesostest.Task{Framework: "F", Agent: "S0", ID: id, Name: name, State: "TASK_RUNNING", IP: addr(ip), Ports: ports}
	}
	sick := task("b.1", "b", "10.0.0.2", vip("/l4lbtest:5000", 12346))
	sick.Healthy = &no
	return mesostest.Subscribed(15, []map[string]any{mesostest.Agent("S0", addr("10.0.0.1"))},
		[]map[string]any{mesostest.Framework("F", "marathon")}, []mesostest.Task{
			task("a.1", "a", "10.0.0.1", vip("/l4lbtest:5000", 12345)), sick,
			task("six.1", "six", "fd01:b::2", vip("[fd01:c::1]:80", 8080)),
			task("web.1", "web", "9.0.1.2", nil), task("web.2", "web", "9.0.1.3", nil),
		})
}

// TestTheHTTPOfDCOSIsAnsweredByTheRunningDaemon runs the cases of group rest.
func TestTheHTTPOfDCOSIsAnsweredByTheRunningDaemon(t *testing.T) {
	ns := testnet.New(t)
	n := &node{Namespace: ns, client: ns, state: t.TempDir()}
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(mesostest.Subscribed(15, nil, nil, nil)); return nil })
	t.Cleanup(master.Close)
	n.start(t, "run", "--mesos.masters", master.Addr().String(), "--state.dir", "", "--http.socket", "", "--http.listen", "127.0.0.1:8123",
		"--http.dcos", "127.0.0.1:62080", "--lb.backend", "none", "--dns.forward.on=false", "--mesos.empty_hold", "0s",
		"--lb.node", "10.0.0.1", "--dns.public", "203.0.113.1", "--dns.crypto_id", "c3zs6aubqe")
	c := asking(t, ns)
	get := func(path string) (int, string) {
		code, text, _ := asked(t, c, "http://127.0.0.1:62080"+path)
		return code, text
	}
	var cases []restCase
	outside.JSON(t, &cases, "conformance", "dcos-net.json")
	cases = slices.DeleteFunc(cases, func(c restCase) bool { return c.Group != "rest" })
	eventually(t, "there is a picture", func() bool { code, _ := get("/v1/vips"); return code == http.StatusOK })
	ran := 0
	run := func(now bool) {
		for _, rc := range cases {
			if empty := rc.Name == "rest/vips-empty"; empty == now {
				ran++
				code, text := get(rc.Input.GET)
				rc.check(t, code, text)
			}
		}
	}
	run(true)
	master.SetPicture(dcosCluster())
	master.Cut()
	eventually(t, "the tasks are there", func() bool { _, text := get("/v1/vips"); return strings.Contains(text, "fd01:c::1:80") })
	run(false)
	if ran != len(cases) || ran < 17 {
		t.Errorf("ran %d cases of %d", ran, len(cases))
	}
	for path, want := range map[string]int{
		"/v1/config": 501, "/v1/metrics/nothing": 404, "/v1/metrics/dns": 200, "/v1/nodes?force": 200,
		"/lashup/kv/navstar/key": 404, "/v1/axfr": 404, "/v1/services/_nobody._tcp.marathon.mesos": 200,
	} {
		if code, text := get(path); code != want {
			t.Errorf("%s: %d %.100s, want %d", path, code, text, want)
		}
	}
	if code, _, header := asked(t, c, "http://127.0.0.1:8123/v1/vips"); code != http.StatusOK || header.Get("ETag") == "" {
		t.Errorf("where mesos-dns' words are: %d %v", code, header)
	}
}

func (rc restCase) check(t *testing.T, code int, text string) {
	t.Helper()
	want := string(rc.Expect["status"])
	switch {
	case strings.Contains(want, "not in") && 405 <= code && code <= 500,
		want != "" && !strings.Contains(want, "not in") && want != fmt.Sprint(code),
		want == "" && code != http.StatusOK:
		t.Errorf("%s: status %d, want %s", rc.Name, code, want)
	}
	if string(rc.Expect["body"]) == `"JSON"` && !json.Valid([]byte(text)) {
		t.Errorf("%s: %.200s is no JSON", rc.Name, text)
	}
	switch rc.Name {
	case "rest/vips-named", "rest/vips-ipv6":
		var want, got []api.DCOSVIP
		decodeBoth(t, rc.Expect["body"], text, &want, &got)
		if !slices.ContainsFunc(got, func(v api.DCOSVIP) bool { return cmp.Diff(want[0], v, byText) == "" }) {
			t.Errorf("%s: %s", rc.Name, text)
		}
	case "rest/vips-empty", "rest/hosts":
		var want, got any
		if decodeBoth(t, rc.Expect["body"], text, &want, &got); cmp.Diff(want, got) != "" {
			t.Errorf("%s: %s", rc.Name, cmp.Diff(want, got))
		}
	case "rest/nodes":
		var want, got []map[string]any
		decodeBoth(t, rc.Expect["body"], text, &want, &got)
		shape(t, rc.Name, want[0], got[0])
		if d := cmp.Diff(want[0]["public_ips"], got[0]["public_ips"]); d != "" || got[0]["private_ip"] != "10.0.0.1" {
			t.Errorf("%s: %s %s", rc.Name, text, d)
		}
	case "rest/records":
		var want map[string]any
		var got []map[string]any
		decodeBoth(t, rc.Expect["body_item"], text, &want, &got)
		for _, r := range got {
			shape(t, rc.Name, want, r)
		}
	case "rest/version":
		var got map[string]string
		if decodeBoth(t, []byte("{}"), text, &struct{}{}, &got); got["Service"] != "dcos-dns" || got["Version"] == "" || len(got) != 2 {
			t.Errorf("%s: %s", rc.Name, text)
		}
	case "rest/key": // a quirk: ours never has a secret
		if strings.TrimSpace(text) != "{\n  \"zbase32_public_key\": \"c3zs6aubqe\"\n}" {
			t.Errorf("%s: %s", rc.Name, text)
		}
	case "rest/metrics":
		if !strings.Contains(text, "# TYPE waggle_services gauge") || strings.Contains(text, "go_goroutines") {
			t.Errorf("%s: %.300s", rc.Name, text)
		}
	}
}

var byText = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func decodeBoth(t *testing.T, want []byte, got string, intoWant, intoGot any) {
	t.Helper()
	if err := json.Unmarshal(want, intoWant); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(got), intoGot); err != nil {
		t.Fatalf("%.200s: %v", got, err)
	}
}

// shape compares the keys.
func shape(t *testing.T, name string, want, got map[string]any) {
	t.Helper()
	if d := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); d != "" {
		t.Errorf("%s: %s", name, d)
	}
}
