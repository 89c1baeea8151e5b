package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"waggle/api"
	"waggle/internal/agent"
	"waggle/internal/devcluster"
)

// announcement tells a person in front of `waggle dev` what there is to try.
type announcement struct {
	w       io.Writer
	cluster *devcluster.Cluster
	daemon  *daemon
}

// settle is how long apps may take before we tell how far they have come.
const settle = 30 * time.Second

// run waits until every app that can run here is served, prints what can be
// tried, and waits for the end.
func (a *announcement) run(ctx context.Context) error {
	fmt.Fprintf(a.w, "An embedded cluster: Mesos at http://%s, Marathon at http://%s\n",
		a.cluster.Masters()[0], a.cluster.MarathonAddr())
	patient, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for _, app := range a.cluster.Apps() {
		if !app.Blocked {
			// What is missing when patience ends is printed as the app's message.
			_ = a.cluster.WaitHealthy(patient, app.ID)
		}
	}
	a.waitServed(patient)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a.print()
	<-ctx.Done()
	return ctx.Err()
}

// waitServed waits until the daemon has seen every task that runs.
func (a *announcement) waitServed(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		known := map[string]bool{}
		if s := a.daemon.agent.State(); s != nil {
			for _, t := range api.Tasks(s.Snapshot) {
				known[t.ID] = true
			}
		}
		missing := false
		for _, t := range a.cluster.Tasks() {
			missing = missing || t.State == "TASK_RUNNING" && !known[t.ID]
		}
		if !missing && len(known) > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *announcement) print() {
	state, some := a.daemon.agent.State(), ""
	for _, app := range a.cluster.Apps() {
		fmt.Fprintf(a.w, "\n%s: %d of %d running\n", app.ID, app.Healthy, app.Wanted)
		if app.Message != "" {
			fmt.Fprintf(a.w, "  (%s)\n", app.Message)
		}
		if state != nil && app.Running > 0 {
			some = app.ID
			a.printApp(app.ID, state)
		}
	}
	self, err := os.Executable()
	if err != nil {
		self = "waggle"
	}
	fmt.Fprintln(a.w, "\nMore to try from another terminal:")
	fmt.Fprintf(a.w, "  %s status --socket %s     (vips, records likewise)\n", self, a.daemon.cfg.HTTP.Socket)
	fmt.Fprintf(a.w, "  curl -X PUT -H 'Content-Type: application/json' -d '{\"instances\": 2}' http://%s/v2/apps%s\n", a.cluster.MarathonAddr(), some)
	if a.daemon.plane == nil {
		fmt.Fprintf(a.w, "\nDNS only: no VIP works here, since %v\n", a.daemon.noLB)
	}
	fmt.Fprintln(a.w, "\nCtrl-C ends it all and leaves nothing behind.")
}

// printApp prints the names of one app and a command for each.
func (a *announcement) printApp(id string, state *agent.State) {
	server := a.daemon.dns.Addrs()[0].String()
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return
	}
	dig := func(kind, name string) {
		fmt.Fprintf(a.w, "  dig +short -p %s @%s %s %s\n", port, host, kind, strings.TrimSuffix(name, "."))
	}
	mine := map[string]bool{}
	for _, t := range a.cluster.Tasks() {
		mine[t.ID] = t.App == id
	}
	domain := a.daemon.cfg.DNS.Domain
	for _, t := range api.Tasks(state.Snapshot) {
		if mine[t.ID] {
			dig("A", t.Name+"."+t.Framework+"."+domain)
			dig("SRV", "_"+t.Name+"._tcp."+t.Framework+"."+domain)
			break // the app's other tasks have the same names
		}
	}
	for _, v := range api.VIPs(state.Applied, state.Plan, vipZone(a.daemon.cfg.agent().DNS)) {
		if len(v.Backends) == 0 || !mine[v.Backends[0].Task] {
			continue
		}
		if v.Name != "" {
			dig("A", v.Name)
		}
		fmt.Fprintf(a.w, "  %s\n", tryConnect(v, state))
	}
}

// tryConnect is a command that shows that a VIP carries connections.
func tryConnect(v api.VIP, state *agent.State) string {
	at := netip.AddrPortFrom(v.Address, v.Port)
	for _, t := range api.Tasks(state.Snapshot) {
		if t.ID != v.Backends[0].Task {
			continue
		}
		for _, p := range t.Ports {
			if strings.HasPrefix(p.Name, "http") {
				return "curl http://" + at.String() + "/"
			}
		}
	}
	nc := "nc -N " + v.Address.String() + " " + strconv.Itoa(int(v.Port))
	if v.Port == 11211 { // memcached speaks text
		return `printf 'set bee 0 0 6\r\nwaggle\r\nget bee\r\nquit\r\n' | ` + nc
	}
	return strings.Replace(nc, "-N", "-zv", 1)
}
