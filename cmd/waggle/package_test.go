package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"waggle/internal/devcluster"
	"waggle/watcher/mesos/mesostest"
)

// packages builds the packages once into a folder of the test.
func packages(t *testing.T) (deb, rpm string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("../../scripts/packages", dir)
	cmd.Env = append(os.Environ(), "VERSION=1.2.3")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("scripts/packages: %v\n%s", err, out)
	}
	one := func(pattern string) string {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		if len(found) != 1 {
			t.Fatalf("%s: %v", pattern, found)
		}
		return found[0]
	}
	return one("*.deb"), one("*.rpm")
}

// unit returns the values of each key in a file of systemd.
func unit(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			out[key] = value
		}
	}
	return out
}

// TestTheDebIsInstalledServesAndIsRemoved installs the package into a folder,
// starts the command of its unit with the unit's capabilities and no new
// privileges, connects through a VIP, and removes the package.
func TestTheDebIsInstalledServesAndIsRemoved(t *testing.T) {
	n, m := newNode(t), newManager(t)
	deb, rpm := packages(t)
	if head, err := os.ReadFile(rpm); err != nil || !bytes.HasPrefix(head, []byte{0xed, 0xab, 0xee, 0xdb}) {
		t.Errorf("%s is no rpm: %v", rpm, err)
	}
	root := filepath.Join(n.state, "root")
	if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg/info"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) {
		t.Helper()
		cmd := exec.Command("dpkg", append([]string{"--root=" + root, "--force-script-chrootless", "--force-depends", "--log=/dev/null"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("dpkg %v: %v\n%s", args, err, out)
		}
	}
	there := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}
	dpkg("-i", deb)
	for _, path := range []string{
		"usr/bin/waggle", "etc/waggle/waggle.yaml", "usr/share/man/man1/waggle.1", "usr/share/man/man1/waggle-run.1",
		"usr/share/bash-completion/completions/waggle", "usr/share/doc/waggle/operations.md", "usr/share/doc/waggle/decisions/0014-reload.md", "usr/share/doc/waggle/examples/hello.json", "usr/share/waggle/monitoring/alerts.yaml", "lib/systemd/system/waggle.socket",
	} {
		if !there(path) {
			t.Errorf("%s is not there", path)
		}
	}
	if out, err := exec.Command(filepath.Join(root, "usr/bin/waggle"), "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "waggle 1.2.3 ") {
		t.Errorf("its version is %s: %v", out, err)
	}
	n.serveUnit(t, root, m)
	dpkg("-r", "waggle")
	if there("usr/bin/waggle") || there("lib/systemd/system/waggle.service") || !there("etc/waggle/waggle.yaml") {
		t.Error("after the removal the program is there, or its configuration is not")
	}
	dpkg("-P", "waggle")
	if there("etc/waggle") {
		t.Error("after a purge the configuration is there")
	}
}

// serveUnit runs the command of the unit below root as the unit would.
func (n *node) serveUnit(t *testing.T, root string, m *manager) {
	t.Helper()
	path := filepath.Join(root, "lib/systemd/system/waggle.service")
	u := unit(t, path)
	if analyze, err := exec.LookPath("systemd-analyze"); err == nil {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		here := filepath.Join(n.state, "waggle.service") // with the program where it is now
		if err := os.WriteFile(here, bytes.Replace(text, []byte("=/usr/bin/"), []byte("="+root+"/usr/bin/"), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", "--man=no", here).CombinedOutput(); bytes.Contains(out, []byte("waggle.service")) {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
	}
	caps := "-all"
	for c := range strings.FieldsSeq(u["CapabilityBoundingSet"]) {
		caps += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(n.picture(n.greeter(t), "web")); return nil })
	t.Cleanup(master.Close)
	args := []string{"setpriv", "--bounding-set", caps, "--inh-caps", "-all", "--no-new-privs"}
	words := strings.Fields(u["ExecStart"])
	args = append(args, filepath.Join(root, words[0]))
	args = append(args, n.verb(words[1], "--config", filepath.Join(root, "etc/waggle/waggle.yaml"), "--mesos.masters", master.Addr().String())...)
	daemon := n.startCommand(t, args...)
	m.hears(t, "READY=1")
	web := n.up(t, "web.marathon", 1)
	if err := n.greeted(web); err != nil {
		t.Errorf("through the VIP: %v", err)
	}
	if got := n.status(t).Reasons; len(got) > 0 {
		t.Errorf("with the capabilities of the unit: %q", got)
	}
	if out := daemon.out.String(); strings.Contains(out, "WARN") || strings.Contains(out, "ERROR") {
		t.Errorf("the daemon complains:\n%s", out)
	}
	daemon.stop(t, 15)
}

// TestTheUnitGivesTheDaemonWhatItWritesTo knows by heart what was seen under a real
// systemd 252: some keys take away folders in a way that ReadWritePaths= does not
// undo, and then the daemon balances by IPVS without a complaint.
func TestTheUnitGivesTheDaemonWhatItWritesTo(t *testing.T) {
	u := unit(t, "../../packaging/waggle.service")
	for _, key := range []string{"ProtectKernelTunables", "ProtectControlGroups", "PrivateUsers", "PrivateNetwork"} {
		if v, given := u[key]; given && v != "no" {
			t.Errorf("%s=%s takes /sys/fs/bpf, cgroups or the node's network away", key, v)
		}
	}
	for key, paths := range map[string][]string{
		"ReadWritePaths": {"/sys/fs/bpf", "/sys/fs/cgroup", "-/proc/sys/net"}, "ReadOnlyPaths": {"/sys", "-/proc/sys", "-/proc/sysrq-trigger"},
	} {
		for _, path := range paths {
			if !slices.Contains(strings.Fields(u[key]), path) {
				t.Errorf("%s= lacks %s", key, path)
			}
		}
	}
	if u["Delegate"] != "yes" {
		t.Error("without Delegate= the self-test's cgroup is systemd's to remove")
	}
}

func TestTheMarathonAppIsRead(t *testing.T) {
	apps, err := devcluster.ReadApps([]string{"../../examples/marathon/waggle.json"})
	if err != nil || len(apps) != 1 || apps[0].ID != "/waggle" {
		t.Fatalf("%v, %v", apps, err)
	}
}
