package main

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"waggle/internal/testnet"
	"waggle/watcher/mesos/mesostest"
)

// told is a master whose three tasks share a VIP, with the options of labels
// beside its own, and what it says of each.
type told struct {
	*mesostest.Master
	tasks []mesostest.Task
	at    []netip.AddrPort // of the tasks
}

func (n *node) told(t *testing.T, options ...string) *told {
	t.Helper()
	m := &told{at: n.echoes(t, 3)}
	for i, at := range m.at {
		m.tasks = append(m.tasks, mesostest.Task{
			Framework: "F", Agent: "S0", ID: fmt.Sprintf("web.%d", i), Name: "web", State: "TASK_RUNNING", IP: n.addr,
			Ports: []mesostest.Port{{Number: int(at.Port()), Name: "p", Protocol: "tcp", Labels: append([]string{"VIP_0", "/web:80"}, options...)}},
		})
	}
	n.Must(t, func() error {
		m.Master = mesostest.Serve(mesostest.Subscribed(15, []map[string]any{mesostest.Agent("S0", n.addr)},
			[]map[string]any{mesostest.Framework("F", "marathon")}, m.tasks))
		return nil
	})
	t.Cleanup(m.Close)
	return m
}

// say tells of another state of a task, and of its health.
func (m *told) say(i int, state string, healthy bool) {
	m.tasks[i].State, m.tasks[i].Healthy = state, &healthy
	m.Send(mesostest.TaskUpdated(m.tasks[i]))
}

// Row 3 of the balancers' issues, and what health means: those that are unhealthy
// or being killed get no new connections and keep the old ones, unless nobody else
// is there: then all are used.
func TestTheUnhealthyAndTheKilledAreUsedOnlyWhereAllAre(t *testing.T) {
	n := newNode(t)
	m := n.told(t)
	n.start(t, n.verb("run", "--mesos.masters", m.Addr().String())...)
	at := n.up(t, "web.marathon", 3)
	var held []net.Conn
	for _, b := range m.at {
		held = append(held, n.reach(t, at, b))
	}
	const well, ill, killed = "up", "unhealthy", "draining"
	for _, step := range []struct {
		name string
		says [3]string
		used [3]bool
	}{
		{"all are well", [3]string{well, well, well}, [3]bool{true, true, true}},
		{"one is unhealthy", [3]string{ill, well, well}, [3]bool{false, true, true}},
		{"one is unhealthy, one is being killed", [3]string{ill, killed, well}, [3]bool{false, false, true}},
		{"none is well", [3]string{ill, killed, ill}, [3]bool{true, true, true}},
		{"one is well again", [3]string{well, killed, ill}, [3]bool{true, false, false}},
		{"all are being killed", [3]string{killed, killed, killed}, [3]bool{true, true, true}},
	} {
		for i, what := range step.says {
			state := "TASK_RUNNING"
			if what == killed {
				state = "TASK_KILLING"
			}
			m.say(i, state, what != ill)
		}
		want := map[uint16]string{}
		for i, b := range m.at {
			want[b.Port()] = step.says[i]
		}
		eventually(t, step.name, func() bool {
			list := n.vips(t)["web.marathon"].Backends
			for _, b := range list {
				if b.State != want[b.Port] {
					return false
				}
			}
			return len(list) == 3
		})
		got := n.tally(t, at, 100) // of three none is missed but once in 10^17
		for i, b := range m.at {
			if (got[b] > 0) != step.used[i] {
				t.Errorf("%s: %s got %d of 100 connections", step.name, b, got[b])
			}
		}
		for _, c := range held {
			if err := echoed(c); err != nil {
				t.Errorf("%s: an old connection to %s: %v", step.name, c.RemoteAddr(), err)
			}
		}
	}
}

// DC/OS' DMZ: clients outside the private network reach the VIPs only that are
// labelled as public, by one line of configuration.
func TestPrivateVIPsAreClosedByConfiguration(t *testing.T) {
	n := newNode(t)
	container := n.container(t)
	path, backend := n.state+"/services.yaml", n.Echo(t, netip.AddrPortFrom(n.addr, 0))
	rewrite(t, path, backendOf{"a", "/private:80", backend, ""}, backendOf{"b", "/public:80", backend, "VIP_0_ALLOW: 0.0.0.0/0"})
	n.start(t, n.verb("run", "--file.paths", path, "--vip.allow", "10.99.0.2/32")...)
	private, public := n.up(t, "private.static", 1), n.up(t, "public.static", 1)
	for who, ns := range map[string]*testnet.Namespace{"outside": n.Namespace, "inside": container} {
		if _, err := reached(ns, public); err != nil {
			t.Errorf("the public VIP from %s: %v", who, err)
		}
		if _, err := reached(ns, private); (err == nil) != (who == "inside") {
			t.Errorf("the private VIP from %s: %v", who, err)
		}
	}
}
