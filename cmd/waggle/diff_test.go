package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/watcher/mesos/mesostest"
)

// TestTwoDaemonsSideBySideAreCompared runs a second daemon on another port of
// the node, as in a migration: like the first there is no difference, otherwise
// each is named.
func TestTwoDaemonsSideBySideAreCompared(t *testing.T) {
	n := newNode(t)
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(n.picture(n.greeter(t), "web")); return nil })
	t.Cleanup(master.Close)
	n.start(t, n.verb("run", "--mesos.masters", master.Addr().String())...)
	n.up(t, "web.marathon", 1)
	second := func(port string, args ...string) {
		t.Helper()
		n.start(t, append([]string{
			"run", "--dns.listen", n.addr.String() + port, "--http.socket", "", "--http.listen", "", "--state.dir", "",
			"--dns.forward.on=false", "--mesos.masters", master.Addr().String(), "--lb.self_test=false",
		}, args...)...)
		n.answers(t, n.addr.String()+port)
	}
	t.Cleanup(func() { // once it has stopped
		if out, errs, err := n.tool(t, "unload", "--lb.pin_dir", n.pins()+"-2"); err != nil {
			t.Errorf("unload: %v\n%s%s", err, out, errs)
		}
	})
	second(":5301", "--lb.backend", "ebpf", "--lb.pin_dir", n.pins()+"-2", "--lb.cgroup", n.cgroup)
	second(":5302", "--lb.backend", "none", "--dns.records", "web.marathon.mesos. A 10.9.9.9")

	eventually(t, "the like daemon answers alike", func() bool {
		out, errs, err := n.tool(t, "diff", "--socket", n.socket(), "--against", n.addr.String()+":5301", "--ttl")
		if err == nil && !strings.Contains(out, "0 differences") {
			t.Errorf("diff: %s%s", out, errs)
		}
		return err == nil
	})
	eventually(t, "the other daemon knows the task", func() bool {
		_, _, err := n.tool(t, "resolve", "--server", n.addr.String()+":5302", "leader.mesos")
		return err == nil
	})
	out, _, err := n.tool(t, "diff", "--socket", n.socket(), "--against", n.addr.String()+":5302", "-o", "json")
	if err == nil {
		t.Error("differences are no failure")
	}
	var c comparison
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, d := range c.Differences {
		got[d.Name+" "+d.Type] = fmt.Sprint(d.Ours, d.Theirs)
	}
	if want := fmt.Sprintf("[%s] [10.9.9.9 %s]", n.addr, n.addr); got["web.marathon.mesos. A"] != want && got["web.marathon.mesos. A"] != "["+n.addr.String()+"] [10.9.9.9]" {
		t.Errorf("the changed name: %q, want %q", got["web.marathon.mesos. A"], want)
	}
	if got := got["web.marathon.l4lb.thisdcos.directory. A"]; !strings.HasSuffix(got, "[none: NXDOMAIN]") {
		t.Errorf("the VIP's name: %q", got)
	}

	out, _, err = n.tool(t, "resolve", "--socket", n.socket(), "web.marathon.mesos", "a")
	if want := "web.marathon.mesos.  60   A     " + n.addr.String() + "  ours\n"; err != nil || !strings.HasSuffix(out, want) {
		t.Errorf("resolve: %v\n%s", err, out)
	}
	if out, errs, err := n.tool(t, "resolve", "--socket", n.socket(), "nothing.marathon.mesos"); err == nil || !strings.Contains(out, "none: NXDOMAIN") || !strings.Contains(errs, "waggle explain") {
		t.Errorf("resolve of what is not there: %v\n%s%s", err, out, errs)
	}
}

// What other daemons show is read in the forms of the fact sheets.
func TestNamesAndVIPsOfOtherDaemonsAreRead(t *testing.T) {
	mux := http.NewServeMux()
	for path, text := range map[string]string{
		"/v1/axfr":      `{"TTL":60,"Domain":"mesos","Records":{"As":{"leader.mesos.":["1.2.3.4"]},"AAAAs":{"six.mesos.":["::1"]},"SRVs":{"_leader._tcp.mesos.":["leader.mesos.:5050"]}}}`,
		"/v1/enumerate": `{"frameworks":[{"tasks":[{"name":"web","id":"1","records":[{"name":"web.marathon.mesos.","host":"1.2.3.4","rtype":"A"}]},{"records":null}],"name":"marathon"}]}`,
		"/v1/vips":      `[{"vip":"web.marathon.l4lb.thisdcos.directory:80","protocol":"tcp","backend":[{"ip":"10.0.0.1","port":8000}]}]`,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
	}
	srv := httptest.NewServer(mux)
	defer srv.Close()
	o := askOther(t.Context(), []string{srv.URL, "http://127.0.0.1:1"})
	if len(o.sources) != 3 || len(o.names) != 4 {
		t.Errorf("%v %v", o.sources, o.names)
	}
	ours := map[string][]string{
		"web.marathon.l4lb.thisdcos.directory:80/tcp": {"10.0.0.1 port 8000", "10.0.0.2 port 8000"},
		"db.marathon.l4lb.thisdcos.directory:1/tcp":   {},
	}
	want := []difference{
		{"db.marathon.l4lb.thisdcos.directory:1/tcp", "VIP", []string{"no backend"}, []string{"no such VIP"}},
		{"web.marathon.l4lb.thisdcos.directory:80/tcp", "VIP", []string{"10.0.0.1 port 8000", "10.0.0.2 port 8000"}, []string{"10.0.0.1 port 8000"}},
	}
	if d := cmp.Diff(want, compareVIPs(ours, o.vips)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
