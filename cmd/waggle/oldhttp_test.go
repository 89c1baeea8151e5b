package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waggle/api"
	"waggle/internal/outside"
	"waggle/internal/testnet"
	"waggle/watcher/mesos/mesostest"
)

// asking is a client inside a namespace.
func asking(t *testing.T, ns *testnet.Namespace) *http.Client {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = ns.Do(func() error {
			var d net.Dialer
			c, err = d.DialContext(ctx, network, addr)
			return err
		})
		return c, err
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// asked returns the status and body of the answer to a GET.
func asked(t *testing.T, c *http.Client, url string) (int, string, http.Header) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

// body decodes the JSON of a 200 into v, which knows every key.
func body(t *testing.T, c *http.Client, url string, v any) {
	t.Helper()
	code, text, header := asked(t, c, url)
	if code != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "application/json") {
		t.Fatalf("%s: %d %v %.200s", url, code, header, text)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
}

// leading is a /state document as a master gives it that leads.
func leading(t *testing.T, name string, master netip.AddrPort) []byte {
	t.Helper()
	var doc map[string]json.RawMessage
	outside.JSON(t, &doc, "fixtures", "mesos-dns", name+".json")
	pid := fmt.Appendf(nil, `"master@%s"`, master)
	doc["leader"], doc["pid"], doc["elected_time"] = pid, pid, []byte("1414913536.1")
	delete(doc, "leader_info")
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// replaced runs waggle with the configuration of a mesos-dns, unchanged, where
// that ran, and returns a client beside it.
func replaced(t *testing.T, variant string) *http.Client {
	t.Helper()
	ns := testnet.New(t)
	n := &node{Namespace: ns, client: ns, state: t.TempDir()}
	at := netip.MustParseAddrPort("127.0.0.1:15050") // of every config.json
	var l net.Listener
	n.Must(t, func() (err error) { l, err = net.Listen("tcp", at.String()); return err })
	master := mesostest.ServeOn(l, nil)
	t.Cleanup(master.Close)
	doc := leading(t, states[variant], at)
	master.SetAnswer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/master/state" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(doc) // the daemon hangs up at the end of the test
	}))
	n.start(t, "run", "--config", outside.Path(t, "conformance", "mesos-dns", variant, "config.json"),
		"--state.dir", "", "--http.socket", "", "--lb.backend", "none", "--dns.forward.on=false")
	c := asking(t, ns)
	// A framework without an address is known by its host's name, which is looked up
	// beside the picture.
	var theirs api.Transfer
	outside.JSON(t, &theirs, "conformance", "mesos-dns", variant, "axfr.json")
	lookedUp := "nopid." + theirs.Domain + "."
	_, has := theirs.Records.As[lookedUp]
	eventually(t, "there is a picture", func() bool {
		code, text, _ := asked(t, c, "http://127.0.0.1:8123/v1/axfr")
		return code == http.StatusOK && (!has || strings.Contains(text, lookedUp))
	})
	return c
}

// deliberate are what our answers have otherwise than those of mesos-dns, with
// the reasons; records that we do not serve at all are in notServed.
var deliberate = map[string]string{
	"axfr Serial":         "ours is that of SOA records and counts changes; theirs is the time of the last reload",
	"axfr RefreshSeconds": "we are told of changes and ask for the whole state only where we must: mesos.poll_interval",
	"enumerate shared":    "a record that several tasks give is listed under each; theirs has it under the first only",
	"HEAD":                "is answered like GET; theirs is 405",
	".*":                  "finds nothing; theirs is 500 with a stack trace",
	"secret":              "is empty; theirs is in clear text",
}

// purposes are the differences that were met.
type purposes map[string]bool

func (p purposes) met(t *testing.T, what string) {
	t.Helper()
	if p[what] = true; deliberate[what] == "" {
		t.Errorf("%s differs, and is not on the list", what)
	}
}

func TestTheHTTPOfMesosDNSIsAnsweredByTheRunningDaemon(t *testing.T) {
	p := purposes{}
	for _, variant := range slices.Sorted(maps.Keys(states)) {
		t.Run(variant, func(t *testing.T) {
			var want, got api.Transfer
			outside.JSON(t, &want, "conformance", "mesos-dns", variant, "axfr.json")
			c := replaced(t, variant)
			body(t, c, "http://127.0.0.1:8123/v1/axfr", &got)
			theirs := axfr{want.Domain, want.Records}.records()
			compareRecords(t, theirs, axfr{got.Domain, got.Records}.records())
			for _, f := range reflect.VisibleFields(reflect.TypeFor[api.Transfer]()) {
				w, g := reflect.ValueOf(want).FieldByIndex(f.Index).Interface(), reflect.ValueOf(got).FieldByIndex(f.Index).Interface()
				if f.Name != "Records" && w != g {
					p.met(t, "axfr "+f.Name)
				}
			}
			compareNames(t, c, theirs)
			compareTasks(t, c, variant, p)
		})
	}
	t.Run("by hand", func(t *testing.T) { askedByHand(t, replaced(t, "default"), p) })
	t.Run("secrets", func(t *testing.T) { noSecrets(t, p) })
	for what := range deliberate {
		if !p[what] {
			t.Errorf("%s does not differ, and is on the list", what)
		}
	}
}

// compareNames asks for what theirs has, name by name.
func compareNames(t *testing.T, c *http.Client, theirs map[string]bool) {
	t.Helper()
	addrs, services := map[string][]string{}, map[string][]string{}
	for r := range theirs {
		if notServed(r) != "" {
			continue
		}
		f := strings.SplitN(asServedHere(r), " ", 3)
		of := addrs
		if f[1] == "SRV" {
			of = services
		}
		if !slices.Contains(of[f[0]], f[2]) { // two may be one here: in two cases, or cut
			of[f[0]] = append(of[f[0]], f[2])
		}
	}
	every := 1 + len(addrs)/500
	sorted := cmpopts.SortSlices(func(a, b string) bool { return a < b })
	for i, name := range slices.Sorted(maps.Keys(addrs)) {
		if i%every != 0 {
			continue
		}
		var got []api.HostAddress
		body(t, c, "http://127.0.0.1:8123/v1/hosts/"+url.PathEscape(strings.TrimSuffix(name, ".")), &got)
		var ips []string
		for _, a := range got {
			if a.Host != name {
				t.Errorf("%s: %v", name, a)
			}
			ips = append(ips, a.IP)
		}
		if d := cmp.Diff(addrs[name], ips, sorted); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for i, name := range slices.Sorted(maps.Keys(services)) {
		if i%every == 0 {
			compareService(t, c, name, services[name], addrs)
		}
	}
}

func compareService(t *testing.T, c *http.Client, name string, targets []string, addrs map[string][]string) {
	t.Helper()
	var got []struct{ Service, Host, IP, Port string }
	body(t, c, "http://127.0.0.1:8123/v1/services/"+url.PathEscape(name), &got)
	want, have := map[string]bool{}, map[string]bool{}
	for _, target := range targets {
		host := target[:strings.LastIndexByte(target, ':')]
		for _, a := range addrs[host] {
			want[fmt.Sprintf("%s %v", target, strings.Contains(a, ":"))] = true
		}
	}
	for _, g := range got {
		if g.Service != name && g.Host != "" {
			t.Errorf("%s: %v", name, g)
		}
		if g.Host != "" {
			have[fmt.Sprintf("%s:%s %v", g.Host, g.Port, strings.Contains(g.IP, ":"))] = true
		}
		if g.Host != "" && !slices.Contains(addrs[g.Host], g.IP) {
			t.Errorf("%s: %s has no address %s", name, g.Host, g.IP)
		}
	}
	if d := cmp.Diff(want, have); d != "" || len(got) != max(1, len(want)) {
		t.Errorf("%s: %d: %s", name, len(got), d)
	}
}

// compareTasks compares what /v1/enumerate says of each task.
func compareTasks(t *testing.T, c *http.Client, variant string, p purposes) {
	t.Helper()
	var want, got api.Enumeration
	outside.JSON(t, &want, "conformance", "mesos-dns", variant, "enumerate.json")
	body(t, c, "http://127.0.0.1:8123/v1/enumerate", &got)
	type key struct{ framework, id, name string }
	tasks := func(e api.Enumeration) (names []string, of map[key]map[string]bool) {
		of = map[key]map[string]bool{}
		for _, f := range e.Frameworks {
			names = append(names, f.Name)
			for _, task := range f.Tasks {
				of[key{f.Name, task.ID, task.Name}] = map[string]bool{}
				for _, r := range task.Records {
					if text := r.Name + " " + r.RType + " " + r.Host; notServed(text) == "" {
						of[key{f.Name, task.ID, task.Name}][asServedHere(text)] = true
					}
				}
			}
		}
		slices.Sort(names)
		return names, of
	}
	wantNames, wantTasks := tasks(want)
	gotNames, gotTasks := tasks(got)
	if d := cmp.Diff(wantNames, gotNames); d != "" {
		t.Errorf("frameworks: %s", d)
	}
	all := map[string]bool{}
	for _, list := range wantTasks {
		maps.Copy(all, list)
	}
	for k, list := range gotTasks {
		if _, ok := wantTasks[k]; !ok && len(list) > 0 {
			t.Errorf("%v is not theirs", k)
		}
		for r := range list {
			if !all[r] {
				t.Errorf("%v: %s is not theirs", k, r)
			} else if !wantTasks[k][r] {
				p.met(t, "enumerate shared")
			}
		}
	}
	for k, list := range wantTasks {
		for r := range list {
			if !gotTasks[k][r] {
				t.Errorf("%v: %s is missing", k, r)
			}
		}
	}
}

// askedByHand holds what people ask with curl to the octet.
func askedByHand(t *testing.T, c *http.Client, p purposes) {
	t.Helper()
	const at = "http://127.0.0.1:8123"
	for path, want := range map[string]string{
		"/v1/hosts/leader.mesos":           "[\n {\n  \"host\": \"leader.mesos.\",\n  \"ip\": \"127.0.0.1\"\n }\n]",
		"/v1/hosts/LEADER.mesos.":          "[\n {\n  \"host\": \"leader.mesos.\",\n  \"ip\": \"127.0.0.1\"\n }\n]",
		"/v1/hosts/nobody.mesos":           "[\n {\n  \"host\": \"\",\n  \"ip\": \"\"\n }\n]",
		"/v1/hosts/example.com":            "[\n {\n  \"host\": \"\",\n  \"ip\": \"\"\n }\n]",
		"/v1/hosts/.*":                     "[\n {\n  \"host\": \"\",\n  \"ip\": \"\"\n }\n]",
		"/v1/services/.*":                  "[\n {\n  \"service\": \"\",\n  \"host\": \"\",\n  \"ip\": \"\",\n  \"port\": \"\"\n }\n]",
		"/v1/services/_leader._tcp.mesos.": "[\n {\n  \"service\": \"_leader._tcp.mesos.\",\n  \"host\": \"leader.mesos.\",\n  \"ip\": \"127.0.0.1\",\n  \"port\": \"15050\"\n }\n]",
		"/v1/services/_Leader._TCP.mesos":  "[\n {\n  \"service\": \"_Leader._TCP.mesos\",\n  \"host\": \"leader.mesos.\",\n  \"ip\": \"127.0.0.1\",\n  \"port\": \"15050\"\n }\n]",
		"/v1/services/_nobody._tcp.mesos.": "[\n {\n  \"service\": \"\",\n  \"host\": \"\",\n  \"ip\": \"\",\n  \"port\": \"\"\n }\n]",
	} {
		if code, text, _ := asked(t, c, at+path); code != http.StatusOK || text != want {
			t.Errorf("%s: %d %q, want %q", path, code, text, want)
		}
		if strings.HasSuffix(path, ".*") {
			p.met(t, ".*")
		}
	}
	for path, want := range map[string]string{
		"/v1/hosts/leader.mesos/ports": "501 To be implemented...", "/v1/nothing": "404 404: Page Not Found", "/v1/": "404 404: Page Not Found",
	} {
		if code, text, _ := asked(t, c, at+path); fmt.Sprintf("%d %s", code, strings.TrimSpace(text)) != want {
			t.Errorf("%s: %d %q, want %s", path, code, text, want)
		}
	}
	for _, bad := range []struct {
		method, accept string
		code           int
	}{{"POST", "", 405}, {"PUT", "", 405}, {"DELETE", "", 405}, {"OPTIONS", "", 405}, {"HEAD", "", 200}, {"GET", "text/html", 406}, {"GET", "text/html, */*;q=0.1", 200}} {
		req, err := http.NewRequestWithContext(t.Context(), bad.method, at+"/v1/version", nil)
		if err != nil {
			t.Fatal(err)
		}
		if bad.accept != "" {
			req.Header.Set("Accept", bad.accept)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if bad.method == http.MethodHead {
			p.met(t, "HEAD")
		}
		if resp.StatusCode != bad.code {
			t.Errorf("%s %q: %d, want %d", bad.method, bad.accept, resp.StatusCode, bad.code)
		}
	}
	var v struct{ Service, URL, Version string }
	if body(t, c, at+"/v1/version", &v); v.Service != "Mesos-DNS" || v.Version == "" {
		t.Errorf("version: %+v", v)
	}
	var cfg api.MesosDNS
	if body(t, c, at+"/v1/config", &cfg); cfg.Domain != "mesos" || cfg.Port != 8053 || cfg.TTL != 60 || cfg.ZoneResolvers["weave"][0] != "127.0.0.1:5302" {
		t.Errorf("config: %+v", cfg)
	}
}

func noSecrets(t *testing.T, p purposes) {
	t.Helper()
	cfg := defaultFileConfig()
	cfg.Mesos.ZK, cfg.Mesos.Masters = "zk://user:hunter2@127.0.0.1:2181/mesos", []string{"http://user:hunter2@127.0.0.1:5050"}
	text, err := json.Marshal(cfg.mesosDNS())
	if err != nil || strings.Contains(string(text), "hunter2") || !strings.Contains(string(text), `"Secret":""`) {
		t.Errorf("%v %s", err, text)
	}
	p.met(t, "secret")
}
