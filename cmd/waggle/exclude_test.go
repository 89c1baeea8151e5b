package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Row 14: whom the configuration excludes reaches the addresses that it asks for,
// here one where nobody listens. A reload changes who that is; status and explain
// tell.
func TestA03_14_WhoIsExcludedIsLeftAlone(t *testing.T) {
	n := newNode(t)
	space := n.client.File(t)
	n.container(t)
	services, file := filepath.Join(n.state, "services.yaml"), filepath.Join(n.state, "waggle.yaml")
	rewrite(t, services, backendOf{"a", "/web:80", n.Echo(t, netip.AddrPortFrom(n.addr, 0)), "VIP_0_ALLOW: 0.0.0.0/0"})
	exclude := func(list string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("lb: {exclude: ["+list+"]}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exclude("cgroup:/pods/mesh")
	run := n.start(t, n.verb("run", "--config", file, "--file.paths", services)...)
	at := n.up(t, "web.static", 1)
	connects := map[string]func() error{
		"the node":       func() error { return n.Do(func() error { return dialAndEcho(at) }) },
		"the namespace":  func() error { return n.client.Do(func() error { return dialAndEcho(at) }) },
		"pods":           func() error { return n.dialFrom(t, "pods", at) },
		"pods/mesh":      func() error { return n.dialFrom(t, "pods/mesh", at) },
		"pods/mesh/deep": func() error { return n.dialFrom(t, "pods/mesh/deep", at) },
	}
	leaves := func(alone ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("just %v are left alone", alone), func() bool {
			for who, connect := range connects {
				err := connect()
				if out := slices.Contains(alone, who); out && !errors.Is(err, unix.ECONNREFUSED) || !out && err != nil {
					return false
				}
			}
			return true
		})
	}
	leaves("pods/mesh", "pods/mesh/deep")
	if got := n.status(t).Balancer.Excluded; !slices.Equal(got, []string{"cgroup:/pods/mesh"}) {
		t.Errorf("status: %v", got)
	}
	for verb, want := range map[string]string{"status": "left alone       cgroup:/pods/mesh\n", "explain": "but not for cgroup:/pods/mesh"} {
		args := []string{verb, "--socket", n.socket()}
		if verb == "explain" {
			args = append(args, at.String())
		}
		if out, err := exec.Command(binary(t), args...).CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("waggle %s does not say %q: %v\n%s", verb, want, err, out)
		}
	}
	for _, next := range []struct {
		list  string
		alone []string
	}{{"namespace:" + space, []string{"the namespace"}}, {"", nil}} {
		exclude(next.list)
		if err := run.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		leaves(next.alone...)
	}
}

// dialFrom connects from a cgroup of the node's and asks for an echo.
func (n *node) dialFrom(t *testing.T, cgroup string, at netip.AddrPort) error {
	t.Helper()
	cmd := n.inCgroup(t, cgroup, fmt.Sprintf("exec 3<>/dev/tcp/%s/%d && echo x >&3 && read -t 20 <&3", at.Addr(), at.Port()))
	var said strings.Builder
	cmd.Stderr = &said
	err := n.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	for text, errno := range map[string]error{"Operation not permitted": unix.EPERM, "Connection refused": unix.ECONNREFUSED} {
		if err != nil && strings.Contains(said.String(), text) {
			return errno
		}
	}
	return err
}
