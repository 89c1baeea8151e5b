package model

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// AppKey names an app: one named thing of one framework.
type AppKey struct {
	FrameworkID string
	Name        string // Task.DiscoveryName of its tasks
}

// App groups the tasks that share a name within a framework. It is the unit of
// change: an App none of whose tasks changed is the same pointer in the next
// Snapshot.
type App struct {
	Key       AppKey
	Framework string  // the framework's name
	Tasks     []*Task // sorted by Key.ID, never empty
	// Problems are what was wrong in the scheduler's description of the tasks.
	Problems []Problem
}

// Keep returns old if app says the same, and else app with each task of old that
// is equal to its own. Both have one key.
func (app *App) Keep(old *App) *App {
	if old == nil {
		return app
	}
	same := len(old.Tasks) == len(app.Tasks) && slices.Equal(old.Problems, app.Problems) && old.Framework == app.Framework
	for i, t := range app.Tasks {
		if was := old.Task(t.Key.ID); was != nil && reflect.DeepEqual(was, t) {
			app.Tasks[i] = was
		} else {
			same = false
		}
	}
	if same {
		return old
	}
	return app
}

// Task returns the task with an id, nil for none.
func (app *App) Task(id string) *Task {
	at, ok := slices.BinarySearchFunc(app.Tasks, id, func(t *Task, id string) int { return strings.Compare(t.Key.ID, id) })
	if !ok {
		return nil
	}
	return app.Tasks[at]
}

// Agent is a node that runs tasks.
type Agent struct {
	ID       string
	Hostname string     // a DNS name or an address, as the agent says
	Addr     netip.Addr // zero while unknown (a name not resolved yet)
	Port     uint16
	Active   bool
	Zone     string // region/zone of its fault domain; empty where it has none
}

// FaultDomain returns what Agent.Zone is: region/zone, since zones are told apart
// within a region only.
func FaultDomain(region, zone string) string {
	if region == "" && zone == "" {
		return ""
	}
	return region + "/" + zone
}

// Hold is the waiting for an agent to register with a new leader. Once it has,
// the Hold stays for some seconds, until all of its tasks can have been told of.
type Hold struct {
	Since time.Time // when the picture came that lacked it
	Until time.Time // when its tasks are let go if it has not registered
}

// Framework is a registered scheduler of tasks.
type Framework struct {
	ID       string
	Name     string
	Hostname string     // host of the framework's scheduler; may be empty
	Addr     netip.Addr // its address; zero while unknown
	Port     uint16     // port of its PID; 0 when it has none
	Active   bool
}

// Snapshot is what the schedulers say runs, at one moment. The zero value is an
// empty world.
type Snapshot struct {
	Apps       Groups[AppKey, *App]
	Agents     Groups[string, *Agent]     // by agent id
	Frameworks Groups[string, *Framework] // by framework id

	// Held are the agents that a new leader has not heard from yet, by agent id.
	// Their tasks are served as the last leader told of them: what Apps has of
	// such an agent may be as old as Hold.Since.
	Held Groups[string, *Hold]

	// Partial says that more may run than this: a source has not spoken since the
	// daemon started. Nothing has ended for being absent.
	Partial bool

	Leader  netip.AddrPort   // the leading master; zero while unknown
	Masters []netip.AddrPort // every master known, the leader's included or not

	// Problems are those that belong to no app: an object that could not be
	// read, an agent without an address.
	Problems []Problem
}

// Problem is one thing that was wrong in the input and cost only itself.
// Task is the task's id, or the id of the object concerned, or empty.
type Problem struct {
	Task  string `json:"task"`
	Field string `json:"field"`
	Value string `json:"value"`
	Error string `json:"error"`
}

// Compare orders problems by task, field, value and error.
func (p Problem) Compare(q Problem) int {
	return cmp.Or(strings.Compare(p.Task, q.Task), strings.Compare(p.Field, q.Field),
		strings.Compare(p.Value, q.Value), strings.Compare(p.Error, q.Error))
}

// AllProblems returns the problems of the Snapshot and of its apps, in no
// particular order.
func (s *Snapshot) AllProblems() []Problem {
	out := append([]Problem(nil), s.Problems...)
	for _, a := range s.Apps.All() {
		out = append(out, a.Problems...)
	}
	return out
}
