package devcluster

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
)

// The states a task goes through here.
const (
	stateStaging  = "TASK_STAGING"
	stateStarting = "TASK_STARTING"
	stateRunning  = "TASK_RUNNING"
	stateKilling  = "TASK_KILLING"
	stateKilled   = "TASK_KILLED"
	stateFinished = "TASK_FINISHED"
	stateFailed   = "TASK_FAILED"
)

const (
	// keptTasks is how many ended tasks the masters list; Mesos keeps 1000.
	keptTasks = 100
	// backlog is how many events a subscriber may be behind before it is
	// dropped. Mesos has no such limit, and runs out of memory instead.
	backlog = 1024
)

// world is what the masters tell: one agent, one framework, its tasks. The
// lock of the Cluster guards all of it.
type world struct {
	uuid      string // makes the ids of agent and framework; never changes
	leader    int    // index of the leading master; -1 for none
	elected   time.Time
	agent     *agentRecord     // nil until it has registered with the leader
	framework *frameworkRecord // nil until the leader knows of it
	known     bool             // the agent registered with an earlier leader
	tasks     []*task          // youngest last
	completed []taskRecord     // oldest first
	streams   map[*stream]struct{}
}

// stream is one subscriber. The world's lock guards sending and closing.
type stream struct {
	events chan []byte // closed when the subscriber is dropped
}

func (w *world) agentID() ident     { return ident{w.uuid + "-S0"} }
func (w *world) frameworkID() ident { return ident{w.uuid + "-0000"} }

// emitLocked sends an event to every subscriber of the leader. Who is too slow
// is dropped: it comes back and gets a whole picture.
func (c *Cluster) emitLocked(kind string, payload any) {
	msg := message(kind, payload)
	for s := range c.world.streams {
		select {
		case s.events <- msg:
		default:
			c.log.Warn("a subscriber is too slow and was dropped", zap.Int("behind", backlog))
			c.dropLocked(s)
		}
	}
}

func (c *Cluster) dropLocked(s *stream) {
	if _, ok := c.world.streams[s]; ok {
		delete(c.world.streams, s)
		close(s.events)
	}
}

// subscribe returns the first message of a new subscriber of master i and the
// stream of what follows it; ok is false if i does not lead (any more).
func (c *Cluster) subscribe(i int) (first []byte, s *stream, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.world.leader != i {
		return nil, nil, false
	}
	s = &stream{events: make(chan []byte, backlog)}
	c.world.streams[s] = struct{}{}
	return message("SUBSCRIBED", subscribed{c.stateLocked(), double(c.cfg.Heartbeat.Seconds())}), s, true
}

func (c *Cluster) unsubscribe(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(s)
}

// stateLocked is the whole picture. What has not registered with the leader is
// not in it.
func (c *Cluster) stateLocked() getState {
	w := &c.world
	st := getState{
		GetTasks:      getTasks{Tasks: []taskRecord{}, UnreachableTasks: []taskRecord{}, CompletedTasks: []taskRecord{}},
		GetExecutors:  getExecutors{Executors: []json.RawMessage{}},
		GetFrameworks: getFrameworks{Frameworks: []frameworkRecord{}, CompletedFrameworks: []frameworkRecord{}},
		GetAgents:     getAgents{Agents: []agentRecord{}, RecoveredAgents: []agentInfo{}},
	}
	if w.framework != nil {
		st.GetFrameworks.Frameworks = append(st.GetFrameworks.Frameworks, *w.framework)
	}
	switch {
	case w.agent != nil:
		st.GetAgents.Agents = append(st.GetAgents.Agents, *w.agent)
		for _, t := range w.tasks {
			st.GetTasks.Tasks = append(st.GetTasks.Tasks, t.record)
		}
		st.GetTasks.CompletedTasks = append(st.GetTasks.CompletedTasks, w.completed...)
	case w.known:
		st.GetAgents.RecoveredAgents = append(st.GetAgents.RecoveredAgents, c.agentInfo())
	}
	return st
}

// status is one new fact about a task.
type status struct {
	state, message, reason string
	healthy                *bool
}

// statusLocked sets a task's state and announces it. A copy of the list of
// statuses is made: snapshots share the old one.
func (c *Cluster) statusLocked(t *task, s status) {
	st := taskStatus{
		TaskID:     ident{t.id},
		State:      s.state,
		Message:    s.message,
		Source:     "SOURCE_EXECUTOR",
		Reason:     s.reason,
		AgentID:    c.world.agentID(),
		ExecutorID: ident{t.id},
		Timestamp:  timestamp(time.Now()),
		UUID:       random(16),
		Healthy:    s.healthy,
		ContainerStatus: &containerStatus{
			ContainerID:  ident{t.container},
			NetworkInfos: c.statusNetworks(t.app),
			ExecutorPID:  t.pid,
		},
	}
	r := &t.record
	r.State, r.StatusUpdateState, r.StatusUpdateUUID = s.state, s.state, st.UUID
	kept := len(r.Statuses)
	if kept > 0 && r.Statuses[kept-1].State == s.state {
		kept-- // only the newest of equal ones is kept
	}
	r.Statuses = append(slices.Clone(r.Statuses[:kept]), st)
	if c.world.agent != nil {
		c.emitLocked("TASK_UPDATED", taskUpdated{c.world.frameworkID(), st, s.state})
	}
	c.pokeLocked()
}

// statusNetworks are the addresses of a task: the agent's, since it is in the
// agent's network whatever its definition says.
func (c *Cluster) statusNetworks(a *App) []networkInfo {
	n := networkInfo{IPAddresses: []ipAddress{{protocolOf(c.cfg.AgentAddr), c.cfg.AgentAddr.String()}}}
	if a.mode() == modeContainer {
		n.Name = a.Networks[0].Name
	}
	return []networkInfo{n}
}

// addLocked makes a task known.
func (c *Cluster) addLocked(t *task) {
	c.world.tasks = append(c.world.tasks, t)
	if c.world.agent != nil {
		c.emitLocked("TASK_ADDED", map[string]any{"task": t.record})
	}
	c.changedLocked()
}

// removeLocked moves a task that has ended to the completed ones.
func (c *Cluster) removeLocked(t *task) {
	w := &c.world
	w.tasks = slices.DeleteFunc(w.tasks, func(o *task) bool { return o == t })
	w.completed = append(w.completed, t.record)
	if n := len(w.completed) - keptTasks; n > 0 {
		w.completed = slices.Clone(w.completed[n:])
	}
	c.changedLocked()
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	b := random(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (Go 1.24)
	return b
}

func timestamp(t time.Time) double { return double(float64(t.UnixMicro()) / 1e6) }
