package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool runs a verb of the built program on the node and returns what it said.
func (n *node) tool(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs strings.Builder
	cmd := exec.Command(binary(t), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	n.Must(t, cmd.Start)
	err = cmd.Wait()
	return out.String(), errs.String(), err
}

// TestAppsAreDeployedScaledAndRemovedFromTheShell drives the embedded Marathon
// with `waggle app`, which finds it by itself, until VIPs answer.
func TestAppsAreDeployedScaledAndRemovedFromTheShell(t *testing.T) {
	n := newNode(t)
	p := n.start(t, n.verb("dev", "--agent-ip", n.addr.String(), "../../examples/memcached.json")...)
	p.said(t, everythingRuns)
	app := func(args ...string) (string, string) {
		t.Helper()
		out, errs, err := n.tool(t, append([]string{"app", "--wait", "90s", "--socket", n.socket()}, args...)...)
		if err != nil {
			t.Fatalf("app %v: %v\n%s%s", args, err, out, errs)
		}
		return out, errs
	}
	out, progress := app("deploy", "../../examples/hello.json")
	if !strings.Contains(out, "VIP hello.marathon.l4lb.thisdcos.directory") || !strings.Contains(out, "its VIPs answer") {
		t.Errorf("deploy: %s", out)
	}
	if !strings.Contains(progress, "/hello: 3 of 3 running, 3 healthy") {
		t.Errorf("progress of deploy:\n%s", progress)
	}
	hello := n.up(t, "hello.marathon", 3)
	watch := n.start(t, "vips", "--watch", "-o", "json", "--socket", n.socket())
	eventually(t, "the watch shows the VIP", func() bool { return strings.Count(watch.out.String(), "\n") == 1 })
	app("scale", "/hello", "1")
	n.up(t, "hello.marathon", 1)
	eventually(t, "the watch shows the change", func() bool { return strings.Count(watch.out.String(), "\n") > 1 })
	if out, _ := app("list"); !strings.Contains(out, "/hello      1       1        /hello:80") || !strings.Contains(out, "/memcached") {
		t.Errorf("list:\n%s", out)
	}
	if _, errs, err := n.tool(t, "app", "--socket", n.socket(), "scale", "/nothing", "1"); err == nil || !strings.Contains(errs, "scale /nothing: no such app") {
		t.Errorf("scale of what is not there: %v, %s", err, errs)
	}
	app("remove", "/hello")
	if v := n.vips(t)["hello.marathon"]; len(v.Backends) > 0 {
		t.Errorf("after the removal: %v", v)
	}
	if err := n.Do(func() error { c, err := net.Dial("tcp", hello.String()); closed(c); return err }); err == nil {
		t.Error("the VIP of the removed app connects")
	}
	if _, err := os.Stat(filepath.Join(n.state, "marathon")); err != nil {
		t.Errorf("where the embedded Marathon is: %v", err)
	}
}

func closed(c net.Conn) {
	if c != nil {
		c.Close()
	}
}

func TestAppVerbsSayWhatIsMissing(t *testing.T) {
	t.Setenv("MARATHON_URL", "")
	none := filepath.Join(t.TempDir(), "waggle.sock")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"app", "list", "--socket", none}, exitUsage, "no --marathon"},
		{[]string{"app", "list", "--socket", none, "--marathon", "nowhere"}, exitFailed, `"nowhere" is not the URL`},
		{[]string{"app", "deploy", "--marathon", "http://127.0.0.1:1", "/nothing.json"}, exitFailed, "read app"},
		{[]string{"app", "scale", "/x", "many"}, exitUsage, `"many" is not a number`},
		{[]string{"app", "list", "--marathon", "http://127.0.0.1:1"}, exitFailed, "ask Marathon"},
	} {
		code, _, errs := verb(t, tt.args...)
		if code != tt.code || !strings.Contains(errs, tt.want) {
			t.Errorf("%v: exit %d, %s", tt.args, code, errs)
		}
	}
}
