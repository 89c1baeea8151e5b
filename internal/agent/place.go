package agent

import (
	"maps"
	"net/netip"
	"slices"

	"waggle/lb"
	"waggle/model"
)

// nearOf returns the agents in the fault domain of the one at an address of the
// node, nil if that has none: the same pointer as before where they are the same.
func nearOf(before *State, now *model.Snapshot, node []netip.Addr) *lb.Neighbours {
	old := model.Groups[string, *model.Agent]{}
	if before.Snapshot != nil {
		old = before.Snapshot.Agents
	}
	changed := false
	for range model.Diff(old, now.Agents) {
		changed = true
		break
	}
	if !changed {
		return before.near
	}
	zone := ""
	for _, a := range now.Agents.All() {
		if slices.Contains(node, a.Addr) {
			zone = a.Zone
		}
	}
	if zone == "" {
		return nil
	}
	near := &lb.Neighbours{Addrs: map[netip.Addr]bool{}}
	for _, a := range now.Agents.All() {
		if a.Zone == zone {
			near.Addrs[a.Addr] = true
		}
	}
	if before.near != nil && maps.Equal(before.near.Addrs, near.Addrs) {
		return before.near
	}
	return near
}
