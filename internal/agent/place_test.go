package agent

import (
	"net/netip"
	"testing"

	"waggle/model"
)

func TestNeighboursAreTheAgentsOfTheNodesZone(t *testing.T) {
	at := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, i}) }
	picture := func(zones ...string) *model.Snapshot {
		e := model.Groups[string, *model.Agent]{}.Edit()
		for i, z := range zones {
			e.Set(z+string(rune('A'+i)), &model.Agent{ID: string(rune('A' + i)), Addr: at(byte(i)), Zone: z})
		}
		return &model.Snapshot{Agents: e.Groups()}
	}
	node := []netip.Addr{at(0)}
	for name, tt := range map[string]struct {
		zones []string
		want  int
	}{
		"none known":           {[]string{"", "", ""}, 0},
		"alone":                {[]string{"eu/a", "eu/b", ""}, 1},
		"with others":          {[]string{"eu/a", "eu/b", "eu/a"}, 2},
		"the node is no agent": {nil, 0},
	} {
		s := picture(tt.zones...)
		near := nearOf(&State{}, s, node)
		if got := near; (got == nil) != (tt.want == 0) || got != nil && len(got.Addrs) != tt.want {
			t.Errorf("%s: %v, want %d", name, got, tt.want)
		}
		if again := nearOf(&State{Snapshot: s, near: near}, picture(tt.zones...), node); again != near {
			t.Errorf("%s: the same again is another value", name)
		}
	}
}
