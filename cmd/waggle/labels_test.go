package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"waggle/api"
	"waggle/internal/testnet"
)

// echoes starts n backends on the node.
func (n *node) echoes(t *testing.T, count int) []netip.AddrPort {
	t.Helper()
	var out []netip.AddrPort
	for range count {
		out = append(out, n.Echo(t, netip.AddrPortFrom(n.addr, 0)))
	}
	return out
}

// shared are services of one VIP, all with the same options.
func shared(vip, options string, at ...netip.AddrPort) []backendOf {
	var out []backendOf
	for _, b := range at {
		out = append(out, backendOf{fmt.Sprintf("app%d", b.Port()), vip, b, options})
	}
	return out
}

// lead returns where one connection to each of the VIPs gets to, from ns.
func lead(t *testing.T, ns *testnet.Namespace, vips []netip.AddrPort) []string {
	t.Helper()
	var out []string
	for _, at := range vips {
		ns.Must(t, func() error {
			c, err := net.Dial("tcp", at.String())
			if err != nil {
				return err
			}
			out = append(out, c.RemoteAddr().String())
			_ = c.(*net.TCPConn).SetLinger(0)
			return c.Close()
		})
	}
	return out
}

// A label reaches the kernel: each client keeps a backend of its own, which the
// choice of every other VIP and client has nothing to do with, and keeps it while
// others join.
func TestALabelGivesAffinity(t *testing.T) {
	for _, by := range []string{"client", "cgroup", "source"} {
		t.Run(by, func(t *testing.T) {
			n := newNode(t)
			path, backends := filepath.Join(n.state, "services.yaml"), n.echoes(t, 4)
			// Many VIPs, so that two clients cannot happen to agree on all.
			const vips = 24
			serve := func(at ...netip.AddrPort) {
				var list []backendOf
				for i := range vips {
					for _, b := range shared(fmt.Sprintf("/v%d:80", i), "VIP_0_AFFINITY: '"+by+":10m'", at...) {
						b.app = fmt.Sprintf("%s-%d", b.app, i)
						list = append(list, b)
					}
				}
				rewrite(t, path, list...)
			}
			serve(backends[:3]...)
			n.start(t, n.verb("run", "--file.paths", path)...)
			var at []netip.AddrPort
			for i := range vips {
				at = append(at, n.up(t, fmt.Sprintf("v%d.static", i), 3))
			}
			first := lead(t, n.Namespace, at)
			other := func() []string { return lead(t, n.client, at) }
			if by == "cgroup" {
				nested := filepath.Join(n.cgroup, "client")
				if err := os.Mkdir(nested, 0o755); err != nil {
					t.Fatal(err)
				}
				other = func() []string {
					testnet.Enter(t, nested)
					defer testnet.Enter(t, n.cgroup)
					return lead(t, n.Namespace, at)
				}
			}
			second := other()
			if slices.Equal(first, second) {
				t.Errorf("two clients have the same backends: %v", first)
			}
			serve(backends...)
			n.up(t, fmt.Sprintf("v%d.static", vips-1), 4)
			for range 3 {
				if again := lead(t, n.Namespace, at); !slices.Equal(first, again) {
					t.Errorf("a client went to\n%v, then to\n%v", first, again)
				}
				if again := other(); !slices.Equal(second, again) {
					t.Errorf("another client went to\n%v, then to\n%v", second, again)
				}
			}
		})
	}
}

// inCgroup returns a shell in a cgroup below the node's.
func (n *node) inCgroup(t *testing.T, name, script string) *exec.Cmd {
	t.Helper()
	dir := filepath.Join(n.cgroup, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	cmd := exec.Command("bash", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	return cmd
}

// With the label open connections are evened out; without it they are random.
func TestALabelGivesLeastActive(t *testing.T) {
	n := newNode(t)
	path, backends := filepath.Join(n.state, "services.yaml"), n.echoes(t, 4)
	rewrite(t, path, shared("/web:80", "VIP_0_CHOICE: least-active", backends...)...)
	n.start(t, n.verb("run", "--file.paths", path)...)
	at := n.up(t, "web.static", 4)
	var open []net.Conn
	t.Cleanup(func() {
		for _, c := range open {
			c.Close()
		}
	})
	hold := func(count int) map[string]int {
		got := map[string]int{}
		n.Must(t, func() error {
			for range count {
				c, err := net.Dial("tcp", at.String())
				if err != nil {
					return err
				}
				open = append(open, c)
				got[c.RemoteAddr().String()]++
			}
			return nil
		})
		return got
	}
	// At random each would have 300 +- 15.
	for backend, count := range hold(1200) {
		if count < 290 || count > 310 {
			t.Errorf("%s has %d of 1200", backend, count)
		}
	}
	// Whoever has lost all its connections gets those that come, if it is one of two.
	emptied := backends[2].String()
	open = slices.DeleteFunc(open, func(c net.Conn) bool {
		gone := c.RemoteAddr().String() == emptied
		if gone {
			c.Close()
		}
		return gone
	})
	if got := hold(300); got[emptied] < 100 { // at random 75 +- 8, of two choices 131 +- 9 and more
		t.Errorf("%s was emptied and got %d of 300: %v", emptied, got[emptied], got)
	}
}

// Who may connect, by labels and by configuration: a network, a cgroup, a
// namespace. Others get EPERM, at once, and are counted and told of.
func TestALabelSaysWhoMayConnect(t *testing.T) {
	n := newNode(t)
	space := filepath.Join(n.state, "client.netns")
	n.client.Must(t, func() error {
		if err := os.WriteFile(space, nil, 0o600); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", space, "", unix.MS_BIND, "")
	})
	t.Cleanup(func() { _ = unix.Unmount(space, unix.MNT_DETACH) })
	n.container(t)
	const inside = "inside" // below the cgroup that is balanced, which is the root unless configured
	if err := os.Mkdir(filepath.Join(n.cgroup, "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	backend, path := n.Echo(t, netip.AddrPortFrom(n.addr, 0)), filepath.Join(n.state, "services.yaml")
	allow := func(who string) string { return "VIP_0_ALLOW: '" + who + "'" }
	rewrite(t, path,
		backendOf{"a", "/open:80", backend, ""},
		backendOf{"b", "/network:80", backend, allow("10.99.0.2/32")},
		backendOf{"c", "/cgroup:80", backend, allow("cgroup:/" + inside)},
		backendOf{"d", "/space:80", backend, allow("namespace:" + space)},
		backendOf{"e", "/both:80", backend, allow("10.99.0.2, cgroup:/" + inside)},
		backendOf{"f", "/configured:80", backend, allow("10.99.0.0/24")}, // and overruled
		backendOf{"g", "/nobody:80", backend, allow("192.0.2.1")},
	)
	n.start(t, n.verb("run", "--file.paths", path, "--vip.services", "{configured.static: {allow: 10.99.0.2}}")...)
	connects := map[string]func(netip.AddrPort) error{
		"the node":    func(at netip.AddrPort) error { return n.Do(func() error { return dialAndEcho(at) }) },
		"a container": func(at netip.AddrPort) error { return n.client.Do(func() error { return dialAndEcho(at) }) },
		"a cgroup":    func(at netip.AddrPort) error { return n.dialFrom(t, "inside", at) },
	}
	for vip, want := range map[string]string{
		"open": "the node, a container, a cgroup", "network": "a container", "cgroup": "a cgroup", "space": "a container",
		"both": "a container, a cgroup", "configured": "a container", "nobody": "",
	} {
		at := n.up(t, vip+".static", 1)
		for who, connect := range connects {
			err := connect(at)
			switch may := strings.Contains(want, who); {
			case may && err != nil:
				t.Errorf("%s may connect to %s: %v", who, vip, err)
			case !may && !errors.Is(err, unix.EPERM):
				t.Errorf("%s may not connect to %s: %v, want EPERM", who, vip, err)
			}
		}
	}
	nobody := n.up(t, "nobody.static", 1).String()
	if text, want := n.metrics(t), `waggle_ebpf_denied_total{protocol="tcp",vip="`+nobody+`"} 3`; !strings.Contains(text, want) {
		t.Errorf("the metrics lack %s:\n%s", want, text)
	}
	eventually(t, "the status tells of who was denied", func() bool {
		return slices.ContainsFunc(n.status(t).Balancer.Events, func(e api.BalancerEvent) bool { return e.What == "denied" && e.VIP == nobody })
	})
}

// metrics returns what the daemon counts.
func (n *node) metrics(t *testing.T) string {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", n.socket())
	}}
	resp, err := (&http.Client{Transport: transport}).Get("http://waggle/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
