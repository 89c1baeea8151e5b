package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"waggle/model"
)

// ShortCut says which backends with a mapped port are reached by their
// container's address and port on the node they run on, instead of the agent's:
// past the node's DNAT, which a task may not get through to itself.
type ShortCut uint8

// ShortCutMesos takes those whose port Mesos' own containerizer maps;
// ShortCutAll Docker's too, whose networks may not let each other in.
const (
	NoShortCut ShortCut = iota
	ShortCutMesos
	ShortCutAll
)

var shortCuts = [...]string{NoShortCut: "none", ShortCutMesos: "mesos", ShortCutAll: "all"}

// String returns the word for s.
func (s ShortCut) String() string { return shortCuts[s%3] }

// MarshalText returns the word for s.
func (s ShortCut) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads none, mesos or all.
func (s *ShortCut) UnmarshalText(text []byte) error {
	i := slices.Index(shortCuts[:], strings.ToLower(string(text)))
	if i < 0 {
		return fmt.Errorf("%q is none of none, mesos, all", text)
	}
	*s = ShortCut(i)
	return nil
}

// Near returns where p of t is reached from this node past the agent's mapping,
// in the family of the agent's address, and whether it is. It is not where the
// container's address or the mapping is not known.
func (c Config) Near(t *model.Task, p model.Port) (at netip.AddrPort, ok bool) {
	if c.ShortCut == NoShortCut || p.HostPort == 0 || !slices.Contains(c.Node, t.AgentAddr) {
		return at, false
	}
	mapped := slices.ContainsFunc(t.Mappings, func(m model.PortMapping) bool {
		return m.HostPort == p.HostPort && m.ContainerPort == p.Number && m.Proto == p.Proto && (m.ByMesos || c.ShortCut == ShortCutAll)
	})
	if mapped {
		at = t.Inner(p)
	}
	return at, at.IsValid()
}

// endpoints returns where p of t is reached from this node.
func (c Config) endpoints(t *model.Task, p model.Port) []netip.AddrPort {
	if at, ok := c.Near(t, p); ok {
		return []netip.AddrPort{at}
	}
	return t.Endpoints(p)
}
