package mesos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"go.uber.org/zap"

	"waggle/watcher"
)

// refreshAgents asks for the agents now and then while a stream lasts: one that
// registers again where its master still knows it may have another address or
// port, and no event says so.
func (s *Source) refreshAgents(ctx context.Context, master *url.URL, w *world) {
	for watcher.Pause(ctx, s.cfg.AgentsEvery, nil) == nil {
		s.turn.Lock()
		told := w.agentsTold
		s.turn.Unlock()
		list, err := s.agents(ctx, master)
		if err != nil {
			s.log.Info("agents not asked for anew", zap.Error(err))
			continue
		}
		s.turn.Lock()
		if s.world == w && w.agentsTold == told { // else the answer may be older than an event
			w.refresh(list)
			if w.publishable() {
				s.publishLocked(s.last.Leader)
			}
		}
		s.turn.Unlock()
	}
}

// agents reads the answer to GET_AGENTS. An agent that cannot be read is left
// out: its events said what there is to say of that.
func (s *Source) agents(ctx context.Context, master *url.URL) ([]v1Agent, error) {
	a, err := s.client.ask(ctx, master, http.MethodPost, "/api/v1", `{"type":"GET_AGENTS"}`)
	if err != nil {
		return nil, err
	}
	defer a.body.Close()
	var list []v1Agent
	h := &handler{wrong: func(error) {}, lost: func(error) {}}
	sc := newScanner()
	sc.reset(a.body)
	err = h.read(sc, map[string]visit{"get_agents": {object: map[string]visit{"agents": {each: func(raw json.RawMessage) {
		var one v1Agent
		if readInto(raw, &one) == nil {
			list = append(list, one)
		}
	}}}}})
	if err != nil {
		return nil, fmt.Errorf("read agents of %s: %w", a.peer, err)
	}
	return list, nil
}

// refresh takes over what is said of agents that are there. Agents come and go by
// events only.
func (w *world) refresh(list []v1Agent) {
	for _, a := range list {
		id := a.AgentInfo.ID.Value
		_, removed := w.removed[id]
		if _, there := w.agents.Get(id); there && !removed && w.holds[id] == nil {
			w.putAgent(a.model(), a.PID, nil)
		}
	}
}
