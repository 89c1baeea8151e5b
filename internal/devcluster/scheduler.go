package devcluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// appState is an app and what Marathon remembers of it. The lock of the
// Cluster guards it.
type appState struct {
	app        *App
	generation int     // unlike that of tasks that must be replaced by new ones
	obstacle   string  // why no task can run on this machine; empty if one can
	waits      string  // why the next task is not launched yet
	failure    string  // how the last task that was not killed ended
	vacant     []place // of tasks that ended by themselves, to be filled again
	delay      time.Duration
	notBefore  time.Time
}

// place is one of an app's instances; run counts the tasks that filled it.
type place struct {
	uuid string
	run  int
}

// schedule keeps what runs equal to what is wanted until ctx ends; then it
// stops all tasks and waits for them.
func (c *Cluster) schedule(ctx context.Context) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next := c.reconcile(ctx, &tasks, time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.dirty:
		case <-timer.C:
		}
	}
}

// reconcile launches and kills what must be, and returns when to look again,
// or the zero Time if only a change can make it necessary.
func (c *Cluster) reconcile(ctx context.Context, tasks *sync.WaitGroup, now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.registerDueLocked(now)
	for _, t := range c.world.tasks {
		if c.apps[t.app.ID] == nil {
			c.killLocked(t)
		}
	}
	for _, a := range c.appsLocked() {
		current, old := c.liveLocked(a)
		c.trimLocked(a, current)
		inTheWay := c.launchMissingLocked(ctx, tasks, a, len(current), now)
		c.replaceLocked(a, old, inTheWay)
		if a.notBefore.After(now) && a.waits != "" {
			next = earliest(next, a.notBefore)
		}
	}
	return next
}

// registerDueLocked registers the agent with the leader if it is time, or says
// when it will be.
func (c *Cluster) registerDueLocked(now time.Time) time.Time {
	w := &c.world
	if w.leader < 0 || w.agent != nil {
		return time.Time{}
	}
	if due := w.elected.Add(c.cfg.ReregisterDelay); w.known && due.After(now) {
		return due
	}
	c.registerLocked()
	return time.Time{}
}

// liveLocked returns the tasks of a that are not being killed, oldest first:
// those of its present definition, and those of earlier ones.
func (c *Cluster) liveLocked(a *appState) (current, old []*task) {
	for _, t := range c.world.tasks {
		switch {
		case t.app.ID != a.app.ID || t.killing:
		case t.generation == a.generation:
			current = append(current, t)
		default:
			old = append(old, t)
		}
	}
	return current, old
}

// trimLocked kills tasks beyond the number wanted.
func (c *Cluster) trimLocked(a *appState, live []*task) {
	if a.app.KillSelection != "OLDEST_FIRST" {
		slices.Reverse(live)
	}
	for _, t := range live[:max(0, len(live)-a.app.Instances)] {
		c.killLocked(t)
	}
}

// launchMissingLocked starts tasks up to the number wanted; inTheWay says that
// it could not, because others have the ports.
func (c *Cluster) launchMissingLocked(ctx context.Context, tasks *sync.WaitGroup, a *appState, have int, now time.Time) (inTheWay bool) {
	was := a.waits
	defer func() {
		if a.waits != was {
			c.changedLocked()
		}
	}()
	a.waits = ""
	for ; have < a.app.Instances && a.obstacle == ""; have++ {
		if a.notBefore.After(now) {
			a.waits = fmt.Sprintf("next start at %s", a.notBefore.Format(time.TimeOnly))
			return false
		}
		ports, err := assign(a.app.ports(), c.cfg.Ports, c.takenLocked())
		if errors.Is(err, errPortTaken) {
			a.waits = "waits: " + err.Error()
			return true
		}
		c.launchLocked(ctx, tasks, a, ports, err)
	}
	return false
}

// launchLocked starts one task; unfit says why it cannot run, if it cannot.
func (c *Cluster) launchLocked(ctx context.Context, tasks *sync.WaitGroup, a *appState, ports []int, unfit error) {
	t := c.newTaskLocked(ctx, a, ports)
	c.addLocked(t)
	tasks.Go(func() {
		defer t.stop()
		err := unfit
		if err == nil {
			err = c.runTask(t)
		}
		c.ended(t, err, ctx.Err() != nil)
	})
}

// takenLocked returns who has which port.
func (c *Cluster) takenLocked() map[int]string {
	out := map[int]string{}
	for _, t := range c.world.tasks {
		for _, p := range t.ports {
			out[p] = t.id
		}
	}
	return out
}

// replaceLocked kills tasks of earlier definitions as fast as present ones
// become healthy; one at a time where they are in the way. Past failures are
// forgotten when all is well.
func (c *Cluster) replaceLocked(a *appState, old []*task, inTheWay bool) {
	ready, dying := 0, false
	for _, t := range c.world.tasks {
		if t.app.ID == a.app.ID {
			dying = dying || t.killing
			if t.generation == a.generation && t.healthy() {
				ready++
			}
		}
	}
	if ready >= a.app.Instances {
		a.failure = ""
	}
	surplus := len(old) + ready - a.app.Instances
	if inTheWay && !dying || a.obstacle != "" {
		surplus = max(surplus, 1)
	}
	for _, t := range old[:min(max(surplus, 0), len(old))] {
		c.killLocked(t)
	}
}

// Deploy makes an app run, or replaces the definition of one: its tasks are
// then exchanged one by one, unless only their number changes. An app that
// cannot run on this machine is accepted; Apps says why it does not run. One
// made in Go gets Marathon's back-off where BackoffFactor is 0, and one port
// where PortDefinitions is nil.
func (c *Cluster) Deploy(app App) error {
	app.fillIn()
	if err := app.check(); err != nil {
		return fmt.Errorf("deploy %s: %w", app.ID, err)
	}
	obstacle := c.obstacle(&app)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deployLocked(app, obstacle)
	return nil
}

func (c *Cluster) deployLocked(app App, obstacle string) {
	a := c.apps[app.ID]
	if a == nil || !a.app.sameTasks(app) {
		c.generations++
		a = &appState{generation: c.generations}
		c.apps[app.ID] = a
	}
	app.Version = time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	a.app, a.obstacle = &app, obstacle
	c.pokeLocked()
}

// errUnknown says that there is no such app or task.
var errUnknown = errors.New("not known")

// Scale changes how many instances of an app there are to be.
func (c *Cluster) Scale(id string, n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.apps[id]
	if a == nil {
		return fmt.Errorf("scale %s: %w", id, errUnknown)
	}
	if n < 0 {
		return fmt.Errorf("scale %s: %d instances", id, n)
	}
	app := *a.app
	app.Instances = n
	c.deployLocked(app, a.obstacle)
	return nil
}

// Remove forgets an app; its tasks are killed.
func (c *Cluster) Remove(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.apps[id] == nil {
		return fmt.Errorf("remove %s: %w", id, errUnknown)
	}
	delete(c.apps, id)
	c.pokeLocked()
	return nil
}

// Kill ends a task; another one takes its place.
func (c *Cluster) Kill(taskID string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.world.tasks {
		if t.id == taskID {
			c.killLocked(t)
			return nil
		}
	}
	return fmt.Errorf("kill %s: %w", taskID, errUnknown)
}

// pokeLocked makes the scheduler look at everything again.
func (c *Cluster) pokeLocked() {
	select {
	case c.dirty <- struct{}{}:
	default:
	}
	c.changedLocked()
}

// changedLocked wakes who waits on Changed.
func (c *Cluster) changedLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
