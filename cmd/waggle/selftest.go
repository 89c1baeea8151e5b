package main

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"waggle/api"
	"waggle/ebpf"
)

// selfTestVerb is what the daemon runs of itself in a cgroup of its own.
const selfTestVerb = "selftest"

// newSelfTest is the hidden verb that connects to an address and says by its
// exit code whether that worked.
func newSelfTest(env) *cobra.Command {
	return &cobra.Command{
		Use:    selfTestVerb + " HOST:PORT",
		Short:  "Connect to an address, as the daemon's self-test does",
		Hidden: true,
		Args:   usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ebpf.JoinProbe(); err != nil {
				return err
			}
			dialer := net.Dialer{Timeout: 5 * time.Second}
			c, err := dialer.DialContext(cmd.Context(), "tcp", args[0])
			if err != nil {
				return err
			}
			return c.Close()
		},
	}
}

func (c fileConfig) plane() ebpf.Config {
	p := ebpf.DefaultConfig()
	p.PinDir, p.Cgroup = c.LB.PinDir, c.LB.Cgroup
	p.Watch = c.LB.Watch || c.LB.Eject.Every > 0 // by what they watch backends are ejected
	if self, err := os.Executable(); err == nil && c.LB.SelfTest {
		p.SelfTest = []string{self, selfTestVerb}
	}
	return p
}

// balancerStatus adds to st what the eBPF balancer knows of itself.
func (d *daemon) balancerStatus(st *api.Status) {
	p, ok := d.plane.(*ebpf.Dataplane)
	if !ok {
		return
	}
	now := p.Status()
	st.Balancer.Missing = now.Missing
	for _, name := range slices.Sorted(maps.Keys(now.Missing)) {
		st.Reasons = append(st.Reasons, fmt.Sprintf("this kernel does not take the program %s", name))
	}
	st.Reasons = append(st.Reasons, now.Warnings...)
	if t := now.SelfTest; t != nil {
		st.Balancer.SelfTest = &api.SelfTest{At: t.At, Error: t.Error}
		if t.Error != "" {
			st.Reasons = append(st.Reasons, "self-test of the balancer: "+t.Error)
		}
	}
	for _, e := range now.Events {
		ev := api.BalancerEvent{At: e.At, What: e.What, VIP: e.VIP.Addr.String(), Protocol: e.VIP.Proto.String(), Cgroup: e.Cgroup}
		if e.Backend.IsValid() {
			ev.Backend = e.Backend.String()
		}
		st.Balancer.Events = append(st.Balancer.Events, ev)
	}
}
