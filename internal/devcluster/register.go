package devcluster

import (
	"fmt"
	"net/netip"
	"time"
)

const (
	mesosVersion = "1.12.0"
	agentPort    = 5051 // nobody listens there
)

// registerLocked makes agent and framework known to the leader, in the order
// and with the events of a real cluster. With a leader that has never seen them
// that is AGENT_ADDED and FRAMEWORK_ADDED. After a failover the framework is
// learnt from the agent first, as "recovered", and subscribes itself later.
func (c *Cluster) registerLocked() {
	w := &c.world
	now := nanoseconds{time.Now().UnixNano()}
	agent := agentRecord{
		AgentInfo:      c.agentInfo(),
		Active:         true,
		Version:        mesosVersion,
		PID:            fmt.Sprintf("slave(1)@%s", netip.AddrPortFrom(c.cfg.AgentAddr, agentPort)),
		RegisteredTime: now,
		TotalResources: c.agentResources(),
		Capabilities:   []capability{{"MULTI_ROLE"}, {"HIERARCHICAL_ROLE"}, {"RESERVATION_REFINEMENT"}},
	}
	for i := range agent.TotalResources {
		agent.TotalResources[i].Role = "*"
	}
	framework := frameworkRecord{FrameworkInfo: c.frameworkInfo(), Active: true, Connected: true, RegisteredTime: now, ReregisteredTime: now}

	w.agent = &agent
	c.emitLocked("AGENT_ADDED", map[string]any{"agent": agent})
	event := "FRAMEWORK_ADDED"
	if w.known {
		recovered := frameworkRecord{FrameworkInfo: framework.FrameworkInfo, Recovered: true}
		c.emitLocked(event, map[string]any{"framework": recovered})
		for _, t := range w.tasks {
			c.emitLocked("TASK_ADDED", map[string]any{"task": t.record})
		}
		event = "FRAMEWORK_UPDATED"
	}
	w.framework, w.known = &framework, true
	c.emitLocked(event, map[string]any{"framework": framework})
	c.changedLocked()
}

// unregister is the orderly end: the framework is torn down and the agent
// leaves, when no task is left.
func (c *Cluster) unregister() {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.world
	if w.framework != nil {
		c.emitLocked("FRAMEWORK_REMOVED", map[string]any{"framework_info": w.framework.FrameworkInfo})
	}
	if w.agent != nil {
		c.emitLocked("AGENT_REMOVED", map[string]any{"agent_id": w.agentID()})
	}
	w.agent, w.framework, w.known = nil, nil, false
	for s := range w.streams {
		c.dropLocked(s)
	}
	c.changedLocked()
}

// Elect makes master i (an index into Masters) the leader; -1 leaves the
// cluster without one. The streams of the old leader end. The new one knows
// the agent from its registry only, and no task, until the agent has
// registered with it after Config.ReregisterDelay.
func (c *Cluster) Elect(i int) error {
	if i < -1 || i >= len(c.masters) {
		return fmt.Errorf("elect master %d: there are %d", i, len(c.masters))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.world
	if i == w.leader {
		return nil
	}
	for s := range w.streams {
		c.dropLocked(s)
	}
	w.leader, w.elected = i, time.Now()
	w.agent, w.framework = nil, nil
	c.pokeLocked()
	c.changedLocked()
	return nil
}

func (c *Cluster) agentInfo() agentInfo {
	return agentInfo{
		Hostname:  c.cfg.AgentAddr.String(),
		Port:      agentPort,
		Resources: c.agentResources(),
		ID:        c.world.agentID(),
	}
}

func (c *Cluster) agentResources() []resource {
	r := []portRange{{int(c.cfg.Ports.First), int(c.cfg.Ports.Last)}}
	return append(scalars(64, 1<<18, 1<<20, 0), resource{Name: "ports", Type: "RANGES", Ranges: &ranges{r}})
}

func (c *Cluster) frameworkInfo() frameworkInfo {
	return frameworkInfo{
		User:            "root",
		Name:            frameworkName,
		ID:              c.world.frameworkID(),
		FailoverTimeout: 604800,
		Checkpoint:      true,
		Roles:           []string{"*"},
		Hostname:        c.marathonAddr.Addr().String(),
		WebUIURL:        "http://" + c.marathonAddr.String(),
		Capabilities:    []capability{{"PARTITION_AWARE"}, {"TASK_KILLING_STATE"}, {"MULTI_ROLE"}},
	}
}
