package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"waggle/api"
	"waggle/internal/agent"
	"waggle/lb"
)

// status tells how the node is after the turn that made s; nil means none yet.
func (d *daemon) status(s *agent.State) api.Status {
	st := api.Status{Version: readVersion().Version, Ready: s != nil, Reasons: []string{}, DNS: []string{}, HTTP: []string{}}
	d.sourceStatus(&st)
	st.Balancer = api.Balancer{Kind: d.kind, Chosen: d.chosen}
	if d.plane == nil {
		st.Balancer.Error = d.noLB.Error()
		if d.cfg.LB.Backend != "none" { // as it was wanted
			st.Reasons = append(st.Reasons, "no balancing: "+st.Balancer.Error)
		}
	}
	d.balancerStatus(&st)
	if s != nil {
		st.Source.Published, st.Counts = s.Published, counts(s)
	}
	if s != nil && s.Err != nil {
		st.Balancer.Error = s.Err.Error()
		st.Reasons = append(st.Reasons, "kernel not up to date: "+st.Balancer.Error)
	}
	if d.reload != nil {
		st.Reasons = append(st.Reasons, d.reload.reasons()...)
	}
	if s != nil && s.Plan != nil {
		st.Balancer.Ejected = ejected(s.Plan)
		for _, c := range s.Plan.Exclude {
			st.Balancer.Excluded = append(st.Balancer.Excluded, c.String())
		}
		if len(s.Plan.Exclude) > 0 && d.kind != "ebpf" {
			st.Reasons = append(st.Reasons, "lb.exclude: "+d.kind+" balances for all clients, and cannot leave these alone")
		}
	}
	if err := d.kernelDNS.Err(); err != nil {
		st.Reasons = append(st.Reasons, err.Error())
	}
	for _, a := range d.dns.Addrs() {
		st.DNS = append(st.DNS, a.String())
	}
	d.forwardStatus(&st)
	for _, a := range d.http.Addrs() {
		st.HTTP = append(st.HTTP, a.String())
	}
	return st
}

// forwardStatus tells how names of others are answered. An upstream that does not
// answer is a reason only where all of a zone do not: the others stand in for it.
func (d *daemon) forwardStatus(st *api.Status) {
	if d.forward == nil {
		return
	}
	st.Forward = &api.Forward{Upstreams: d.forward.Status(), Cache: d.forward.CacheStatus()}
	resting, all := map[string]int{}, map[string]int{}
	for _, u := range st.Forward.Upstreams {
		for _, z := range u.Zones {
			all[z]++
			if u.State == "resting" {
				resting[z]++
			}
		}
	}
	for _, z := range slices.Sorted(maps.Keys(all)) {
		if resting[z] == all[z] {
			st.Reasons = append(st.Reasons, fmt.Sprintf("no upstream answers for names below %s", z))
		}
	}
}

// ejected lists who is out.
func ejected(p *lb.Plan) []api.Ejected {
	var out []api.Ejected
	for f, list := range p.AllEjected() {
		for addr, e := range list {
			out = append(out, api.Ejected{VIP: f.Addr.String(), Protocol: f.Proto.String(), Backend: addr.String(), Ejection: api.Ejection(e)})
		}
	}
	slices.SortFunc(out, func(a, b api.Ejected) int {
		return cmp.Or(strings.Compare(a.VIP, b.VIP), strings.Compare(a.Protocol, b.Protocol), strings.Compare(a.Backend, b.Backend))
	})
	return out
}

// sourceStatus tells how the sources stand.
func (d *daemon) sourceStatus(st *api.Status) {
	wrong := func(format string, args ...any) { st.Reasons = append(st.Reasons, fmt.Sprintf(format, args...)) }
	if z := d.zooKeeper(); z != nil {
		st.Source.ZooKeeper = z
		switch {
		case z.Error != "" && z.Leader != "":
			wrong("election not seen, the last leader stands: %s", z.Error)
		case z.Error != "":
			wrong("no leader seen yet: %s", z.Error)
		}
	}
	if d.source != nil {
		src := d.source.Status()
		st.Source.Connected, st.Source.Leader, st.Source.LastEvent = src.Connected, src.Leader, src.LastEvent
		switch {
		case src.Connected:
		case src.Err != nil:
			st.Source.Error = src.Err.Error()
			wrong("not connected to a Mesos master: %s", st.Source.Error)
		default:
			wrong("not connected to a Mesos master")
		}
	}
	if d.marathon != nil {
		m := d.marathon.Status()
		st.Source.Marathon = &api.Marathon{Connected: m.Connected, Host: m.Host, LastEvent: m.LastEvent}
		if m.Err != nil {
			st.Source.Marathon.Error = m.Err.Error()
			wrong("not connected to a Marathon: %s", st.Source.Marathon.Error)
		}
	}
	if d.files != nil {
		f := d.files.Status()
		st.Source.Files = &api.Files{Files: f.Files, Read: f.Read}
		if f.Err != nil {
			st.Source.Files.Error = f.Err.Error()
			wrong("files not served as they are: %s", st.Source.Files.Error)
		}
	}
	if at := d.kept.Status().Restored; !at.IsZero() {
		st.Source.Restored = at
		wrong("serving what was known %s ago, from the disk, until every source has spoken", time.Since(at).Round(time.Second))
	}
}

// zooKeeper tells how the election is seen; nil where none is followed.
func (d *daemon) zooKeeper() *api.ZooKeeper {
	if d.zk == nil {
		return nil
	}
	s := d.zk.Status()
	z := &api.ZooKeeper{
		Location: d.zk.Location().String(), Connected: s.Connected, Since: s.Changed,
		Leader: s.Leader.Addr, Masters: s.Members, Read: s.Read,
	}
	if s.Err != nil {
		z.Error = s.Err.Error()
	}
	return z
}

// counts are the sizes of s.
func counts(s *agent.State) api.Counts {
	c := api.Counts{
		Apps: s.Snapshot.Apps.Len(), Agents: s.Snapshot.Agents.Len(),
		Problems: len(s.Problems()), Names: s.Zone.Names(),
	}
	for _, app := range s.Snapshot.Apps.All() {
		c.Tasks += len(app.Tasks)
	}
	if s.Applied != nil {
		c.VIPs = s.Applied.Services.Len()
	}
	return c
}
