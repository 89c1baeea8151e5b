package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// from connects by TCP from a port of the node, as one that others may use too.
func (n *node) from(port uint16, to netip.AddrPort) (c net.Conn, err error) {
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(n.addr, port)),
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			control := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			return errors.Join(control, err)
		},
	}
	err = n.Do(func() error { c, err = d.Dial("tcp", to.String()); return err })
	return c, err
}

// Row 15: one port of a client to two VIPs with the same backend would be one
// connection twice. It is refused at once and the first one lives; IPVS let both
// clash and time out. To another backend the port may be used.
func TestA03_15_OnePortToTwoVIPsWithOneBackendIsToldAtOnce(t *testing.T) {
	n := newNode(t)
	path, backends, port := filepath.Join(n.state, "services.yaml"), n.echoes(t, 2), uint16(n.closed(t))
	rewrite(t, path, backendOf{"a", "/one:80", backends[0], ""}, backendOf{"b", "/same:80", backends[0], ""}, backendOf{"c", "/other:80", backends[1], ""})
	n.start(t, n.verb("run", "--file.paths", path)...)
	var conns []net.Conn
	for _, vip := range []string{"one", "other"} {
		c, err := n.from(port, n.up(t, vip+".static", 1))
		if err != nil {
			t.Fatalf("%s: %v", vip, err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	if c, err := n.from(port, n.up(t, "same.static", 1)); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("the same port to the same backend: %v, %v, want EADDRNOTAVAIL", c, err)
	}
	for _, c := range conns {
		if err := echoed(c); err != nil {
			t.Errorf("a connection of before: %v", err)
		}
	}
}

// Row 16: a client that uses one port over and over gets to the backend of now at
// once. IPVS either stalled it for a second or sent it to the one that is gone.
func TestA03_16_AReusedPortNeitherStallsNorSticks(t *testing.T) {
	n := newNode(t)
	path, backends, port := filepath.Join(n.state, "services.yaml"), n.echoes(t, 2), uint16(n.closed(t))
	rewrite(t, path, backendOf{"a", "/web:80", backends[0], ""})
	n.start(t, n.verb("run", "--file.paths", path)...)
	at := n.up(t, "web.static", 1)
	for i := range 10 {
		now := backends[i%2]
		rewrite(t, path, backendOf{"a", "/web:80", now, ""})
		eventually(t, "the other backend is served", func() bool {
			b := n.vips(t)["web.static"].Backends
			return len(b) == 1 && b[0].Port == now.Port()
		})
		for range 5 {
			c, err := n.from(port, at)
			if err != nil {
				t.Fatal(err)
			}
			if c.RemoteAddr().String() != now.String() {
				t.Errorf("got to %s, want %s", c.RemoteAddr(), now)
			}
			if err := echoed(c); err != nil {
				t.Error(err)
			}
			_ = c.(*net.TCPConn).SetLinger(0) // the port is free at once
			c.Close()
		}
	}
}

// Row 19: nothing goes to a backend that was marked as ill, the service's counter
// loses nothing when health flaps, and least-active stays even meanwhile. The
// backend's own counter counts from when it joined, which Prometheus sees as a
// counter's new start.
func TestA03_19_NoCountIsLostToABackendThatFlaps(t *testing.T) {
	n := newNode(t)
	m := n.told(t, "VIP_0_CHOICE", "least-active")
	n.start(t, n.verb("run", "--mesos.masters", m.Addr().String())...)
	at := n.up(t, "web.marathon", 3)
	counted := func(what string, b netip.AddrPort) int {
		found := regexp.MustCompile(`waggle_ebpf_` + what + `\{backend="` + regexp.QuoteMeta(b.String()) + `",[^}]*\} (\d+)`).FindStringSubmatch(n.metrics(t))
		if found == nil {
			return 0
		}
		count, _ := strconv.Atoi(found[1])
		return count
	}
	flaps := m.at[0]
	for round := range 4 {
		m.say(0, "TASK_RUNNING", round%2 == 0)
		n.upOf(t, "web.marathon", 3-round%2)
		var open []net.Conn
		for range 60 {
			c, err := n.dial(t.Context(), "tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
			if round%2 == 1 && c.RemoteAddr().String() == flaps.String() {
				t.Error("a connection went to a backend that is ill")
			}
		}
		if round%2 == 0 {
			for _, b := range m.at {
				if active := counted("backend_active", b); active < 16 || active > 24 { // at random 20 +- 4
					t.Errorf("round %d: %s has %d of 60 open connections", round, b, active)
				}
			}
		}
		if want := fmt.Sprintf("waggle_ebpf_connections_total{protocol=\"tcp\",vip=%q} %d\n", at, 60*(round+1)); !strings.Contains(n.metrics(t), want) {
			t.Errorf("round %d: the metrics lack %s", round, want)
		}
		for _, c := range open {
			c.Close()
		}
	}
}

// upOf waits until n of the backends of a VIP are up.
func (n *node) upOf(t *testing.T, name string, count int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d backends of %s are up", count, name), func() bool {
		up := 0
		for _, b := range n.vips(t)[name].Backends {
			if b.State == "up" {
				up++
			}
		}
		return up == count
	})
}

// evidence are the tests that show a row, as "folder Test", or why there is none.
type evidence struct {
	row    string
	tests  []string
	reason string
}

// The rows of l4.md A.3 (what users of other balancers suffer from) and of B.5
// (semantics), and those of dcos-net.md section 9 (kinds of work), each with its
// tests. A row that is not tested says why.
var rows = []evidence{
	{"A.3 1", []string{"ebpf TestA03_1_AUDPSocketIsNeverPinnedToADeadBackend", "cmd/waggle TestEachVIPHasADrainOfItsOwnForClientsEverywhere"}, ""},
	{"A.3 2", []string{"internal/hostnet TestSocketsOfEveryNamespaceAreEnded", "cmd/waggle TestEachVIPHasADrainOfItsOwnForClientsEverywhere"}, ""},
	{"A.3 3", []string{"cmd/waggle TestTheUnhealthyAndTheKilledAreUsedOnlyWhereAllAre", "cmd/waggle TestADrainEndsConnectionsOfItsServiceOnly"}, ""},
	{"A.3 4", []string{"cmd/waggle TestA03_4_SocketsOfTheServiceThatWasLeftAreTold", "cmd/waggle TestADrainEndsConnectionsOfItsServiceOnly", "ebpf TestOnlySocketsOfTheServiceWhoseDrainEndedAreTold", "lb TestDrains"}, "two services that come by one address from different tasks: decision 36"},
	{"A.3 5", []string{"ebpf TestA03_5_APartialPictureTakesNoBackendAway", "cmd/waggle TestARestartWithoutASchedulerServesWhatRan"}, ""},
	{"A.3 6", []string{"ebpf TestA03_6_ADaemonThatDiesAnywhereLosesNothing", "cmd/waggle TestAKilledDaemonLeavesConnectionsWorking"}, ""},
	{"A.3 7", []string{"ebpf TestA03_7_ADyingOrNamespacedCgroupIsNotedNotBelieved", "ebpf TestA03_7_TheSelfTestFindsOutThatNothingIsBalanced"}, ""},
	{"A.3 8", []string{"cmd/waggle TestARollingReplacementOfAllBackendsLosesNothing"}, "the tables that were too slow to write are of Maglev; sockets have lists"},
	{"A.3 9", []string{"ebpf TestA03_9_BigServicesCostTheDaemonLittleMemory"}, ""},
	{"A.3 10", []string{"ebpf TestA03_10_NoEntryLeaks"}, ""},
	{"A.3 11", []string{"cmd/waggle TestVIPsArePresent", "internal/hostnet TestLocalPrefixesAnswerAndRefuse"}, ""},
	{"A.3 12", nil, "of packets: a socket that was rewritten talks to its backend, and PTB and fragments are the kernel's own"},
	{"A.3 13", []string{"ebpf TestA03_13_AClientInTheKernelFollowsTheVIP", "ebpf TestGetpeernameShowsTheVIPWhereAsked"}, "NFS in the machine of internal/vmtest; a Ceph cluster is not run (decision 22)"},
	{"A.3 14", []string{"ebpf TestA03_14_WhoIsOutsideTheCgroupIsLeftAlone", "ebpf TestA03_14_ExcludedClientsAreLeftAlone", "ebpf TestA03_14_ExclusionsAreKept", "cmd/waggle TestA03_14_WhoIsExcludedIsLeftAlone"}, ""},
	{"A.3 15", []string{"cmd/waggle TestA03_15_OnePortToTwoVIPsWithOneBackendIsToldAtOnce"}, ""},
	{"A.3 16", []string{"cmd/waggle TestA03_16_AReusedPortNeitherStallsNorSticks"}, ""},
	{"A.3 17", nil, "a setting of IPVS, which the socket path does not use; internal/vmtest runs lb/ipvs"},
	{"A.3 18", []string{"cmd/waggle TestKindsOfWork"}, "how long a cold start takes is measured by make bench-program"},
	{"A.3 19", []string{"cmd/waggle TestA03_19_NoCountIsLostToABackendThatFlaps"}, ""},
	{"A.3 20", nil, "of tunnels: the socket path has none, and needs no address on the backend"},

	{"B.5 1", []string{"cmd/waggle TestEveryKindOfClientReachesAVIP", "cmd/waggle TestDevOnTheWholeMachineLeavesNothingBehind"}, ""},
	{"B.5 2", []string{"ebpf TestARootThatIsOnlyANamespacesIsRefused", "ebpf TestCgroupMounts"}, ""},
	{"B.5 3", []string{"cmd/waggle TestAVIPWithoutBackendsRefusesAtOnce"}, ""},
	{"B.5 4", []string{"cmd/waggle TestEveryKindOfClientReachesAVIP", "ebpf TestGetpeernameShowsTheVIPWhereAsked"}, ""},
	{"B.5 5", []string{"cmd/waggle TestVIPsArePresent"}, ""},
	{"B.5 6", []string{"cmd/waggle TestEachVIPHasADrainOfItsOwnForClientsEverywhere"}, ""},
	{"B.5 7", []string{"ebpf TestLeastActiveEvensOutOpenSockets", "cmd/waggle TestA03_19_NoCountIsLostToABackendThatFlaps"}, ""},
	{"B.5 8", []string{"ebpf TestAMillionSwapsLoseNoConnection", "ebpf TestFiftyRestartsLoseNoConnection", "ebpf TestAnUpgradeFromV2LosesNoConnection"}, ""},

	{"9 1 to 7", []string{"cmd/waggle TestKindsOfWork"}, "redis' mix is not run: memcached is the cache that the tests have; 10000 VIPs and memory are measured by make bench-program"},
}

func TestEveryRowIsRunOrSaysWhyNot(t *testing.T) {
	sources := map[string]string{}
	for _, row := range rows {
		if len(row.tests) == 0 && row.reason == "" {
			t.Errorf("%s: no test and no reason", row.row)
		}
		for _, test := range row.tests {
			dir, name, _ := strings.Cut(test, " ")
			if sources[dir] == "" {
				files, _ := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
				for _, f := range files {
					text, err := os.ReadFile(f)
					if err != nil {
						t.Fatal(err)
					}
					sources[dir] += string(text)
				}
			}
			if !strings.Contains(sources[dir], "func "+name+"(t *testing.T)") {
				t.Errorf("%s: there is no %s in %s", row.row, name, dir)
			}
		}
	}
}

// B.5: a VIP without backends refuses at once, by TCP and by UDP.
func TestAVIPWithoutBackendsRefusesAtOnce(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.state, "services.yaml")
	rewrite(t, path, backendOf{"a", "10.98.0.1:80", netip.MustParseAddrPort("[fd00::1]:80"), ""}, backendOf{"b", "udp 10.98.0.1:53", netip.MustParseAddrPort("[fd00::1]:53"), ""})
	n.start(t, n.verb("run", "--file.paths", path)...)
	eventually(t, "the VIPs are served", func() bool { return n.status(t).Counts.VIPs == 2 })
	if _, err := n.dial(t.Context(), "tcp", "10.98.0.1:80"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("TCP: %v, want a refusal", err)
	}
	if _, err := n.dial(t.Context(), "udp", "10.98.0.1:53"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("UDP: %v, want a refusal", err)
	}
}
