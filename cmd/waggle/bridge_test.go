package main

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"waggle/internal/testnet"
	"waggle/watcher/mesos/mesostest"
)

// bridged is a node with two containers on a bridge, of which the first runs a
// task on port 80 that port 31000 of the node leads to, as a CNI plugin or Docker
// maps it.
type bridged struct {
	*node
	task, beside *testnet.Namespace
	at           netip.AddrPort // of the task
}

func newBridged(t *testing.T) *bridged {
	t.Helper()
	n := newNode(t)
	b := &bridged{node: n, task: testnet.New(t), beside: testnet.New(t)}
	shell(t, n.Namespace, "ip link add br0 type bridge")
	for i, ns := range []*testnet.Namespace{b.task, b.beside} {
		testnet.Link(t, ns, netip.MustParsePrefix(fmt.Sprintf("172.31.254.%d/24", i+2)), n.Namespace, netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/32", i+2)))
		ns.Default(t, netip.MustParseAddr("172.31.254.1"))
		shell(t, n.Namespace, fmt.Sprintf("ip addr flush dev wt%d && ip link set wt%d master br0", i+2, i+2)) // wt1 leads to the client
	}
	shell(t, n.Namespace, "ip addr add 172.31.254.1/24 dev br0 && ip link set br0 up && sysctl -qw net.ipv4.ip_forward=1")
	shell(t, n.Namespace, `nft -f - <<'X'
table ip mapping {
	chain pre { type nat hook prerouting priority -100; fib daddr type local tcp dport 31000 dnat to 172.31.254.2:80; }
	chain out { type nat hook output priority -100; fib daddr type local tcp dport 31000 dnat to 172.31.254.2:80; }
}
X`)
	shell(t, n.client, "ip route replace default via 10.99.0.1") // the node forwards
	b.at = b.task.Echo(t, netip.MustParseAddrPort("172.31.254.2:80"))
	return b
}

// shell runs a script in a namespace.
func shell(t *testing.T, ns *testnet.Namespace, script string) {
	t.Helper()
	var out strings.Builder
	cmd := exec.Command("bash", "-ec", script)
	cmd.Stdout, cmd.Stderr = &out, &out
	ns.Must(t, cmd.Start)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out.String())
	}
}

// hairpin lets a container reach itself by its mapped port.
func (b *bridged) hairpin(t *testing.T) {
	shell(t, b.Namespace, `ip link set wt2 type bridge_slave hairpin on
nft add chain ip mapping post '{ type nat hook postrouting priority 100; }'
nft add rule ip mapping post ip saddr 172.31.254.2 ip daddr 172.31.254.2 masquerade`)
}

// scheduled is a master that says that the task runs, and how it is mapped.
func (b *bridged) scheduled(t *testing.T, docker bool) string {
	t.Helper()
	task := mesostest.Task{
		Framework: "F", Agent: "S0", ID: "web.0", Name: "web", State: "TASK_RUNNING", IP: b.at.Addr(), Docker: docker,
		Mappings: []mesostest.Mapping{{Host: 31000, Container: int(b.at.Port())}},
		Ports:    []mesostest.Port{{Number: 31000, Name: "p", Protocol: "tcp", Labels: []string{"VIP_0", "/web:80", "network-scope", "host"}}},
	}
	other := b.Echo(t, netip.AddrPortFrom(b.addr, 0)) // its VIP has the port that is mapped to the first
	same := mesostest.Task{
		Framework: "F", Agent: "S0", ID: "same.0", Name: "same", State: "TASK_RUNNING", IP: b.addr,
		Ports: []mesostest.Port{{Number: int(other.Port()), Name: "p", Protocol: "tcp", Labels: []string{"VIP_0", "/same:31000"}}},
	}
	var master *mesostest.Master
	b.Must(t, func() error {
		master = mesostest.Serve(mesostest.Subscribed(15, []map[string]any{mesostest.Agent("S0", b.addr)},
			[]map[string]any{mesostest.Framework("F", "marathon")}, []mesostest.Task{task, same}))
		return nil
	})
	t.Cleanup(master.Close)
	return master.Addr().String()
}

// A task in a bridge network and its VIP on its own node: the task itself (a
// hairpin), the node, a container beside it and one elsewhere get through,
// whoever maps the port and whether the node takes the short cut. A VIP whose
// port is mapped on the node to something else leads to its own backend.
func TestATaskBehindAPortMappingIsReachedOnItsOwnNode(t *testing.T) {
	const mapped, direct = "10.99.0.1:31000", "172.31.254.2:80"
	for name, tc := range map[string]struct {
		docker  bool
		option  string // "" for the default
		hairpin bool   // the runtime lets a container reach itself
		want    string
	}{
		"Mesos, by default":                 {false, "", false, direct},
		"Mesos, without short cuts":         {false, "none", true, mapped},
		"Docker, by default":                {true, "", true, mapped},
		"Docker, with short cuts for all":   {true, "all", false, direct},
		"Mesos, beside a runtime's hairpin": {false, "mesos", true, direct},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBridged(t)
			if tc.hairpin {
				b.hairpin(t)
			}
			args := b.verb("run", "--mesos.masters", b.scheduled(t, tc.docker))
			if tc.option != "" {
				args = append(args, "--lb.short_cut", tc.option)
			}
			b.start(t, args...)
			web, same := b.up(t, "web.marathon", 1), b.up(t, "same.marathon", 1)
			for who, ns := range map[string]*testnet.Namespace{
				"the task itself": b.task, "the node": b.Namespace, "a container beside": b.beside, "a container elsewhere": b.client,
			} {
				if got, err := reached(ns, web); err != nil || got != tc.want {
					t.Errorf("%s got to %s, want %s: %v", who, got, tc.want, err)
				}
				if got, err := reached(ns, same); err != nil || !strings.HasPrefix(got, b.addr.String()+":") || got == mapped {
					t.Errorf("%s got to %s by a VIP with the port of a mapping: %v", who, got, err)
				}
			}
		})
	}
}

// reached returns where a connection to a VIP got that somebody answers.
func reached(ns *testnet.Namespace, at netip.AddrPort) (to string, err error) {
	err = ns.Do(func() error {
		c, err := net.DialTimeout("tcp", at.String(), 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		to = c.RemoteAddr().String()
		return echoed(c)
	})
	return to, err
}
