package mesos

import (
	"strings"
	"testing"
)

// TestBothAPIsTellTheZoneOfAnAgent covers domain.fault_domain of agents.
func TestBothAPIsTellTheZoneOfAnAgent(t *testing.T) {
	const domain = `"domain":{"fault_domain":{"region":{"name":"eu"},"zone":{"name":"a"}}}`
	for name, doc := range map[string]struct {
		text string
		as   Format
	}{
		"v1": {`{"get_state":{"get_agents":{"agents":[{"agent_info":{"id":{"value":"A"},"hostname":"10.0.0.5",` + domain + `}}]}}}`, GetState},
		"v0": {`{"slaves":[{"id":"A","hostname":"10.0.0.5",` + domain + `}]}`, State},
	} {
		t.Run(name, func(t *testing.T) {
			snap, err := Decode(t.Context(), strings.NewReader(doc.text), doc.as, nil)
			if err != nil {
				t.Fatal(err)
			}
			if a, ok := snap.Agents.Get("A"); !ok || a.Zone != "eu/a" {
				t.Errorf("agent = %+v, want the zone eu/a", a)
			}
		})
	}
}
