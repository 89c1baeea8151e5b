package devcluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// task is one run of one instance. Fields above the line never change; the
// lock of the Cluster guards those below it.
type task struct {
	id         string
	app        *App
	generation int
	place      place
	ports      []int // one for each of app.ports()
	container  string
	sandbox    string
	command    command
	staged     time.Time
	ctx        context.Context // the process is stopped when it ends
	stop       context.CancelFunc

	record  taskRecord // what Mesos tells of it
	pid     int
	started time.Time // zero until it runs
	killing bool
	cause   error // why it is being killed, if that is a failure
	checks  []checkState
}

// newTaskLocked makes a task for a place that is vacant, or a new one.
func (c *Cluster) newTaskLocked(ctx context.Context, a *appState, ports []int) *task {
	p := place{uuid: newUUID()}
	if n := len(a.vacant); n > 0 {
		p, a.vacant = a.vacant[n-1], a.vacant[:n-1]
	}
	p.run++
	safe := strings.ReplaceAll(strings.Trim(a.app.ID, "/"), "/", "_")
	t := &task{
		id:         fmt.Sprintf("%s.instance-%s._app.%d", safe, p.uuid, p.run),
		app:        a.app,
		generation: a.generation,
		place:      p,
		ports:      ports,
		container:  newUUID(),
		staged:     time.Now(),
		record:     taskInfo(a.app, ports),
		checks:     make([]checkState, len(a.app.HealthChecks)),
	}
	t.ctx, t.stop = context.WithCancel(ctx)
	t.sandbox = filepath.Join(c.workDir, t.id)
	t.record.TaskID, t.record.AgentID, t.record.FrameworkID = ident{t.id}, c.world.agentID(), c.world.frameworkID()
	t.command = command{argv: a.app.Args, dir: t.sandbox, env: c.environ(t), user: a.app.User, grace: c.cfg.KillGrace}
	if a.app.Cmd != "" {
		t.command.argv = shell(a.app.Cmd)
	}
	if t.command.user == "" {
		t.command.user = c.cfg.User
	}
	if g := a.app.TaskKillGracePeriodSeconds; g > 0 {
		t.command.grace = seconds(g)
	}
	return t
}

// runTask runs the process and its health checks until it has ended.
func (c *Cluster) runTask(t *task) error {
	var checks sync.WaitGroup
	defer checks.Wait()
	defer t.stop()
	return c.run(t.ctx, t.command, func(pid int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		t.pid, t.started = pid, time.Now()
		c.statusLocked(t, status{state: stateStarting})
		if t.killing {
			c.statusLocked(t, status{state: stateKilling})
			return
		}
		c.statusLocked(t, status{state: stateRunning})
		for i := range t.checks {
			checks.Go(func() { c.checkLoop(t.ctx, t, i) })
		}
	})
}

// killLocked ends a task in order: it is announced first, and its process is
// asked to end only when balancers have had time to turn away from it.
func (c *Cluster) killLocked(t *task) {
	if t.killing {
		return
	}
	t.killing = true
	if t.record.State == stateRunning {
		c.statusLocked(t, status{state: stateKilling})
	}
	time.AfterFunc(c.cfg.KillDelay, t.stop)
	c.pokeLocked()
}

// ended takes in how a task ended. err is how its process did, or why there
// was none; down says that the whole cluster is being stopped.
func (c *Cluster) ended(t *task, err error, down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := status{state: stateFinished, message: "Command exited with status 0"}
	if err != nil {
		s = status{state: stateFailed, message: capitalised(err)}
	}
	if t.killing || down {
		s.state = stateKilled
	}
	if t.cause != nil {
		s.healthy = new(bool)
	}
	t.pid = 0
	c.statusLocked(t, s)
	c.removeLocked(t)
	if !t.killing && !down {
		if err == nil {
			err = errors.New("command exited with status 0")
		}
		c.failedLocked(t, err)
	}
}

// minDelay keeps an app without back-off from taking the whole machine.
const minDelay = 100 * time.Millisecond

// failedLocked remembers why a task ends although it should run, and backs off:
// each time longer by backoffFactor, up to maxLaunchDelaySeconds. A task that
// lived for longer than twice the delay before it (and 10 s) starts that anew.
func (c *Cluster) failedLocked(t *task, err error) {
	a := c.apps[t.app.ID]
	if a == nil || a.generation != t.generation {
		return
	}
	now := time.Now()
	a.failure = err.Error()
	if line := lastLine(filepath.Join(t.sandbox, "stderr")); line != "" {
		a.failure += ": " + line
	}
	a.vacant = append(a.vacant, t.place)
	good := !t.started.IsZero() && now.Sub(t.started) > max(2*a.delay, 10*time.Second)
	wait := a.app.BackoffSeconds
	if a.delay > 0 && !good {
		wait = a.delay.Seconds() * a.app.BackoffFactor
	}
	a.delay = max(seconds(min(wait, a.app.MaxLaunchDelaySeconds)), minDelay)
	a.notBefore = now.Add(a.delay)
	c.log.Info("task fails", zap.String("task", t.id), zap.Error(err), zap.Duration("next start in", a.delay))
}

// healthy reports whether t runs and has passed all its checks. Tasks being
// killed are not.
func (t *task) healthy() bool {
	for _, s := range t.checks {
		if !s.alive {
			return false
		}
	}
	return t.record.State == stateRunning
}

// capitalised gives an error the form of Mesos' messages.
func capitalised(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}
