package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// backendOf is one service of a file: an app with a VIP label, behind "udp " if
// it is one of UDP, and options beside it.
type backendOf struct {
	app     string
	vip     string
	at      netip.AddrPort
	options string // as in YAML, "VIP_0_WEIGHT: '3'"
}

// rewrite replaces the services file in one step.
func rewrite(t *testing.T, path string, list ...backendOf) {
	t.Helper()
	text := "services:\n"
	for _, b := range list {
		proto, vip := "tcp", b.vip
		if v, ok := strings.CutPrefix(vip, "udp "); ok {
			proto, vip = "udp", v
		}
		text += fmt.Sprintf("- {name: %s, addresses: [%s], ports: [{port: %d, protocol: %s, vip: '%s', labels: {%s}}]}\n",
			b.app, b.at.Addr(), b.at.Port(), proto, vip, b.options)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// tally connects n times and counts who answered.
func (n *node) tally(t *testing.T, at netip.AddrPort, times int) map[netip.AddrPort]int {
	t.Helper()
	got := map[netip.AddrPort]int{}
	n.Must(t, func() error {
		for range times {
			c, err := net.Dial("tcp", at.String())
			if err != nil {
				return err
			}
			got[c.RemoteAddr().(*net.TCPAddr).AddrPort()]++
			_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT for each of thousands
			c.Close()
		}
		return nil
	})
	return got
}

// Two apps behind one VIP: all of it moves from one to the other by labels.
func TestRelabellingShiftsAVIPWithoutALoss(t *testing.T) {
	n := newNode(t)
	blue, green := n.Echo(t, netip.AddrPortFrom(n.addr, 0)), n.Echo(t, netip.AddrPortFrom(n.addr, 0))
	path := filepath.Join(n.state, "services.yaml")
	shift := func(toBlue, toGreen int) {
		weight := func(w int) string { return fmt.Sprintf("VIP_0_WEIGHT: '%d'", w) }
		rewrite(t, path, backendOf{"blue", "/web:80", blue, weight(toBlue)}, backendOf{"green", "/web:80", green, weight(toGreen)})
	}
	shift(100, 0)
	n.start(t, n.verb("run", "--file.paths", path)...)
	var at netip.AddrPort
	eventually(t, "the VIP", func() bool {
		v, ok := n.vips(t)["web.static"]
		at = netip.AddrPortFrom(v.Address, v.Port)
		return ok
	})
	quit, done := make(chan struct{}), make(chan struct{})
	var failed atomic.Int64
	go func() {
		defer close(done)
		_ = n.Do(func() error {
			for {
				select {
				case <-quit:
					return nil
				default:
				}
				c, err := net.Dial("tcp", at.String())
				if err != nil {
					failed.Add(1)
					continue
				}
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		})
	}()
	for _, toBlue := range []int{100, 75, 50, 25, 0} {
		shift(toBlue, 100-toBlue)
		eventually(t, "the weights are served", func() bool {
			for _, b := range n.vips(t)["web.static"].Backends {
				if b.Port == blue.Port() {
					return int(b.Weight) == toBlue
				}
			}
			return false
		})
		const times = 12000 // a standard deviation is half a percent at most
		got := n.tally(t, at, times)
		if share := 100 * float64(got[blue]) / times; share < float64(toBlue)-2 || share > float64(toBlue)+2 || got[blue]+got[green] != times {
			t.Errorf("%d:%d: blue got %.1f %%, %v", toBlue, 100-toBlue, share, got)
		}
	}
	close(quit)
	<-done
	if failed.Load() > 0 {
		t.Errorf("%d connects failed meanwhile", failed.Load())
	}
}

// echoed reports whether a connection still works.
func echoed(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// reach connects to at until it got to want.
func (n *node) reach(t *testing.T, at, want netip.AddrPort) net.Conn {
	t.Helper()
	var got net.Conn
	eventually(t, fmt.Sprintf("%s leads to %s", at, want), func() bool {
		c, err := n.dial(t.Context(), "tcp", at.String())
		if err != nil {
			return false
		}
		if c.RemoteAddr().String() != want.String() {
			c.Close()
			return false
		}
		got = c
		return true
	})
	t.Cleanup(func() { got.Close() })
	return got
}

// Rows 2, 3 and 4 of the balancers' issues: a backend that is taken away keeps
// its connections until its drain is over; then they are told, those through
// another service that still has it excepted.
func TestADrainEndsConnectionsOfItsServiceOnly(t *testing.T) {
	n := newNode(t)
	var at [3]netip.AddrPort
	for i := range at {
		at[i] = n.Echo(t, netip.AddrPortFrom(n.addr, 0))
	}
	stays, leaves, shared := at[0], at[1], at[2]
	path := filepath.Join(n.state, "services.yaml")
	const drain = 2 * time.Second
	option := "VIP_0_DRAIN: " + drain.String()
	first, other := backendOf{"a", "/web:80", stays, option}, backendOf{"d", "/other:80", shared, option}
	rewrite(t, path, first, backendOf{"b", "/web:80", leaves, ""}, backendOf{"c", "/web:80", shared, ""}, other)
	n.start(t, n.verb("run", "--file.paths", path)...)
	web, also := n.up(t, "web.static", 3), n.up(t, "other.static", 1)
	lives := []net.Conn{n.reach(t, web, stays), n.reach(t, also, shared), n.reach(t, web, shared)}
	told := n.reach(t, web, leaves)

	// Where this process has to wait for a processor the drain may be over before
	// it looks, so that it is the time of the end that tells.
	start := time.Now()
	rewrite(t, path, first, other)
	n.up(t, "web.static", 1)
	if got := n.tally(t, web, 200); got[stays] != 200 {
		t.Errorf("connections after the backends left: %v", got)
	}
	if err := told.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, err := told.Read(make([]byte, 1))
	if lasted := time.Since(start); !errors.Is(err, unix.ECONNABORTED) || lasted < drain {
		t.Errorf("the drain ended with %v after %s, want ECONNABORTED after %s", err, lasted, drain)
	}
	for _, c := range lives {
		if err := echoed(c); err != nil {
			t.Errorf("%s: %v", c.RemoteAddr(), err)
		}
	}
}

// Row 11: VIPs answer pings at once, and their unknown ports refuse; what takes
// the routes away is repaired, and unload leaves none.
func TestVIPsArePresent(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.state, "services.yaml")
	rewrite(t, path, backendOf{"a", "/web:80", n.Echo(t, netip.AddrPortFrom(n.addr, 0)), ""})
	run := n.start(t, n.verb("run", "--file.paths", path)...)
	at := n.up(t, "web.static", 1)
	in := func(args ...string) error {
		cmd := exec.Command(args[0], args[1:]...)
		if err := n.Do(cmd.Start); err != nil {
			return err
		}
		return cmd.Wait()
	}
	pinged := func() bool { return in("ping", "-c1", "-t1", "-W1", at.Addr().String()) == nil }
	eventually(t, "a ping is answered", pinged)
	if _, err := n.dial(t.Context(), "tcp", netip.AddrPortFrom(at.Addr(), 81).String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("unknown port: %v, want a refusal", err)
	}
	if got := n.tally(t, at, 10); len(got) != 1 {
		t.Errorf("with the route: %v", got)
	}
	if err := in("ip", "route", "flush", "table", "local", "proto", "87"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the route is repaired", pinged)
	run.stop(t, unix.SIGTERM)
	if !pinged() {
		t.Error("the routes went with the daemon, while the kernel balances on")
	}
	if err := in(binary(t), "unload", "--lb.pin_dir", n.pins()); err != nil {
		t.Error(err)
	}
	if pinged() {
		t.Error("unload left the routes")
	}
}

func TestVIPsShowTheirOptions(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.state, "services.yaml")
	rewrite(t, path, backendOf{"a", "/web:80", netip.MustParseAddrPort("10.1.1.1:80"), "VIP_0_DRAIN: 2s, VIP_0_AFFINITY: 'client:1m', VIP_0_LOCALITY: rack"})
	n.start(t, n.verb("run", "--file.paths", path)...)
	n.up(t, "web.static", 1)
	if got := n.vips(t)["web.static"].Options; !slices.Equal(got, []string{"affinity=namespace:1m0s", "drain=2s"}) {
		t.Errorf("options: %v", got)
	}
	out, err := exec.Command(binary(t), "vips", "--socket", n.socket()).Output()
	if err != nil || !strings.Contains(string(out), "drain=2s") {
		t.Errorf("waggle vips: %v: %s", err, out)
	}
}

// A backend whose port nobody listens to any more is left out, and shown.
func TestABackendThatRefusesIsEjected(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.state, "services.yaml")
	list := []backendOf{{"gone", "/web:80", netip.AddrPortFrom(n.addr, uint16(n.closed(t))), ""}}
	for _, app := range []string{"a", "b"} {
		list = append(list, backendOf{app, "/web:80", n.Echo(t, netip.AddrPortFrom(n.addr, 0)), ""})
	}
	rewrite(t, path, list...)
	n.start(t, n.verb("run", "--file.paths", path, "--lb.eject.every", "200ms", "--lb.eject.failures", "3", "--lb.eject.hold", "10m")...)
	at := n.up(t, "web.static", 3)
	eventually(t, "nothing refuses any more", func() bool {
		for range 40 {
			c, err := n.dial(t.Context(), "tcp", at.String())
			if err != nil {
				return false
			}
			c.Close()
		}
		return true
	})
	gone := list[0].at.String()
	got := n.status(t).Balancer.Ejected
	if len(got) != 1 || got[0].Backend != gone || got[0].VIP != at.String() || got[0].Failed < 3 || got[0].Since.IsZero() || got[0].Until.Sub(got[0].Since) != 10*time.Minute {
		t.Errorf("status shows as ejected: %+v", got)
	}
	for _, b := range n.vips(t)["web.static"].Backends {
		if out := b.Port == list[0].at.Port(); out != (b.Ejected != nil) || out && b.Ejected.Failed != got[0].Failed {
			t.Errorf("/v2/vips shows %+v", b)
		}
	}
	for verb, want := range map[string][]string{
		"vips": {gone, "ejected from "}, "status": {"ejected          1 backends", gone + " of " + at.String() + "/tcp"},
		"explain": {"1 of 3 backends are ejected", "backend " + gone + " is ejected from", "connects failed"},
	} {
		args := []string{verb, "--socket", n.socket()}
		if verb == "explain" {
			args = append(args, at.String())
		}
		out, err := exec.Command(binary(t), args...).CombinedOutput()
		for _, w := range want {
			if err != nil || !strings.Contains(string(out), w) {
				t.Errorf("waggle %s does not say %q: %v\n%s", verb, w, err, out)
			}
		}
	}
}

// closed returns a port of the node that nobody listens to.
func (n *node) closed(t *testing.T) int {
	t.Helper()
	var port int
	n.Must(t, func() error {
		l, err := net.Listen("tcp", netip.AddrPortFrom(n.addr, 0).String())
		if err != nil {
			return err
		}
		port = l.Addr().(*net.TCPAddr).Port
		return l.Close()
	})
	return port
}
