package devcluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"waggle/model"
)

// AppStatus is how an app fares.
type AppStatus struct {
	ID      string
	Wanted  int
	Running int    // in TASK_RUNNING, healthy or not
	Healthy int    // of these, the ones that passed all their checks
	Message string // why fewer run than wanted, or what is emulated; may be empty
	// Blocked says that no task can ever run on this machine; Message says why.
	Blocked bool
}

// TaskStatus is a task that has not ended.
type TaskStatus struct {
	ID      string
	App     string
	State   string // as Mesos writes it: "TASK_RUNNING"
	Health  model.Health
	Ports   []int // one for each port of the definition
	PID     int   // of its first process; 0 before that runs
	Started time.Time
	Sandbox string
}

// Apps returns all apps, sorted by id.
func (c *Cluster) Apps() []AppStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []AppStatus
	for _, a := range c.appsLocked() {
		out = append(out, c.appStatusLocked(a))
	}
	return out
}

// appsLocked returns all apps, sorted by id.
func (c *Cluster) appsLocked() []*appState {
	var out []*appState
	for _, id := range slices.Sorted(maps.Keys(c.apps)) {
		out = append(out, c.apps[id])
	}
	return out
}

func (c *Cluster) appStatusLocked(a *appState) AppStatus {
	s := AppStatus{ID: a.app.ID, Wanted: a.app.Instances, Blocked: a.obstacle != ""}
	for _, t := range c.world.tasks {
		if t.app.ID != s.ID || t.record.State != stateRunning {
			continue
		}
		s.Running++
		if t.healthy() {
			s.Healthy++
		}
	}
	switch {
	case s.Blocked:
		s.Message = a.obstacle
	case s.Healthy < s.Wanted && a.failure != "" && a.waits != "":
		s.Message = a.failure + "; " + a.waits
	case s.Healthy < s.Wanted && (a.failure != "" || a.waits != ""):
		s.Message = a.failure + a.waits
	default:
		s.Message = a.app.note()
	}
	return s
}

// Tasks returns the tasks that have not ended, oldest first.
func (c *Cluster) Tasks() []TaskStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []TaskStatus
	for _, t := range c.world.tasks {
		out = append(out, TaskStatus{
			ID: t.id, App: t.app.ID, State: t.record.State, Health: t.health(),
			Ports: slices.Clone(t.ports), PID: t.pid, Started: t.started, Sandbox: t.sandbox,
		})
	}
	return out
}

// health is Unhealthy until all checks have passed.
func (t *task) health() model.Health {
	switch {
	case len(t.checks) == 0:
		return model.HealthUnknown
	case t.healthy():
		return model.Healthy
	}
	return model.Unhealthy
}

// Changed returns a channel that is closed at the next change of anything Apps
// or Tasks show. Take it before looking, so that no change is missed.
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// WaitHealthy waits until an app runs just as its definition says: as many
// instances as wanted, each healthy, and none left of before. It returns an
// error at once if the app is not known or cannot run on this machine, and one
// that says what is missing when ctx ends.
func (c *Cluster) WaitHealthy(ctx context.Context, id string) error {
	for {
		changed := c.Changed()
		s, settled, err := c.settled(id)
		switch {
		case err != nil:
			return fmt.Errorf("wait for %s: %w", id, err)
		case settled:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %d of %d healthy (%s): %w", id, s.Healthy, s.Wanted, s.Message, ctx.Err())
		}
	}
}

func (c *Cluster) settled(id string) (s AppStatus, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.apps[id]
	if a == nil {
		return s, false, errUnknown
	}
	s = c.appStatusLocked(a)
	if s.Blocked {
		return s, false, errors.New(s.Message)
	}
	n := 0
	for _, t := range c.world.tasks {
		if t.app.ID != id {
			continue
		}
		if n++; t.generation != a.generation || !t.healthy() {
			return s, false, nil
		}
	}
	return s, n == s.Wanted, nil
}
