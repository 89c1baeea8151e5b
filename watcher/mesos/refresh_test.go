package mesos

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"waggle/model"
	"waggle/watcher/mesos/mesostest"
)

func TestAnAgentsNewAddressIsLearntWithoutAnEvent(t *testing.T) {
	m := serve(t, picture)
	cfg := soon(m.Addr().String())
	cfg.AgentsEvery = 5 * time.Millisecond
	f := follow(t, cfg)
	f.until(shows("1", "2"))
	moved := mesostest.Agent("A", netip.MustParseAddr("10.0.0.99"))
	list, err := json.Marshal(map[string]any{"type": "GET_AGENTS", "get_agents": map[string]any{"agents": []any{
		moved, mesostest.Agent("X", netip.MustParseAddr("10.0.0.98")), map[string]any{"agent_info": 7},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	m.SetDocument("GET_AGENTS", list)
	s := f.until(func(s *model.Snapshot) string {
		a, _ := s.Agents.Get("A")
		if a == nil || a.Addr != netip.MustParseAddr("10.0.0.99") {
			return "agent A has moved"
		}
		return shows("1", "2")(s)
	})
	if task := tasksOf(s)[model.TaskKey{FrameworkID: "F", ID: "1"}]; task.AgentAddr != netip.MustParseAddr("10.0.0.99") {
		t.Errorf("the task is at %v", task.AgentAddr)
	}
	if _, ok := s.Agents.Get("X"); ok || s.Agents.Len() != 2 {
		t.Errorf("%d agents: an answer added one, or took one away", s.Agents.Len())
	}
	if n := f.counter("waggle_mesos_reconnects_total"); n != 0 {
		t.Errorf("the stream was lost %v times", n)
	}
}
