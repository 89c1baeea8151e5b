package mesos

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"waggle/model"
)

const (
	// keepEnded is how long a task that a description called terminal stays
	// visible; no event ever takes it away.
	keepEnded = 5 * time.Minute
	// keepRemoved is how long the tasks of a removed agent stay: their own
	// terminal updates come first, so whatever is left was missed.
	keepRemoved = 30 * time.Second
	// maxProblems bounds the list of objects that could not be read.
	maxProblems = 100
)

// world is the state a stream tells of: agents, frameworks and tasks, joined
// lazily because they arrive in any order. It is not safe for concurrent use.
type world struct {
	agents     *model.Editor[string, *model.Agent]
	frameworks *model.Editor[string, *model.Framework]
	tasks      *taskSet
	apps       map[model.AppKey][]*record // sorted by task id
	members    map[string][]*record       // by agent id
	removed    map[string]time.Time       // agents, since when
	ended      []ending                   // in order of time
	agentsTold int                        // how often an agent was told of
	recovered  map[string]struct{}        // agents that the master knew of the picture from its registry only
	holds      map[string]*hold           // by agent id
	held       *model.Editor[string, *model.Hold]
	kept       map[string]time.Time // frameworks that the picture lacked, until when
	due        time.Time            // when sweep has something to do; zero for never
	scratch    scratch              // for reading one task
	names      map[string]string    // one copy of ids that very many tasks hold

	unresolved map[string]string        // host name by agent or framework id
	problems   map[string]model.Problem // by id of the object, or by field

	before  *model.Snapshot // the last one of the world before; its parts are used again
	dirty   map[model.AppKey]struct{}
	changed bool            // something besides apps changed
	built   *model.Snapshot // the last one of this world; nil before
	trouble int             // problems in the apps of built
}

type ending struct {
	record *record
	at     time.Time
}

// newWorld returns an empty world that uses again what it can of before, the
// last Snapshot of another.
func newWorld(before *model.Snapshot) *world {
	w := &world{
		agents:     model.Groups[string, *model.Agent]{}.Edit(),
		frameworks: model.Groups[string, *model.Framework]{}.Edit(),
		tasks:      newTaskSet(),
		apps:       map[model.AppKey][]*record{},
		members:    map[string][]*record{},
		removed:    map[string]time.Time{},
		recovered:  map[string]struct{}{},
		holds:      map[string]*hold{},
		held:       model.Groups[string, *model.Hold]{}.Edit(),
		kept:       map[string]time.Time{},
		names:      map[string]string{},
		unresolved: map[string]string{},
		problems:   map[string]model.Problem{},
		before:     before,
		dirty:      map[model.AppKey]struct{}{},
		changed:    true,
	}
	for key, app := range before.Apps.All() {
		w.dirty[key] = struct{}{} // what does not come again is gone
		w.trouble += len(app.Problems)
	}
	return w
}

// wrong keeps err as the problem of the object with the given id, in place of
// an earlier one. Objects without an id are told apart by field.
func (w *world) wrong(id string, err error) {
	p := problem(id, err)
	key := id
	if key == "" {
		key = p.Field
	}
	if _, known := w.problems[key]; known || len(w.problems) < maxProblems {
		w.problems[key] = p
		w.changed = true
	}
}

// right says that the object with the given id could be read.
func (w *world) right(id string) {
	if _, ok := w.problems[id]; ok {
		delete(w.problems, id)
		w.changed = true
	}
}

// noted notes whether the object with the given id could be read, and reports
// whether it can be told from others.
func (w *world) noted(kind, id string, err error) bool {
	switch {
	case id == "":
		w.wrong("", &fieldError{kind, "", errors.Join(errors.New("id missing or unreadable"), err)})
		return false
	case err != nil:
		w.wrong(id, err)
	default:
		w.right(id)
	}
	return true
}

func (w *world) addTask(raw json.RawMessage) { w.put(newRecord(raw, &w.scratch)) }

// put takes a description, replacing the whole record of an equal key.
func (w *world) put(r *record) {
	t := r.task
	if err := r.missing(); err != nil {
		w.wrong(t.Key.ID, err)
		return
	}
	w.right(t.Key.ID)
	w.drop(t.Key)
	t.Key.FrameworkID, t.AgentID = w.name(t.Key.FrameworkID), w.name(t.AgentID)
	if before := w.insert(r); before != nil {
		share(t, before.task)
	}
	w.stir(t.AgentID)
	if t.State == model.Terminal {
		now := time.Now()
		w.ended = append(w.ended, ending{r, now})
		w.soon(now.Add(keepEnded))
	}
}

// insert adds a record that there is none of yet, and returns the one before it
// in its app, or nil.
func (w *world) insert(r *record) (before *record) {
	app := r.app()
	i, _ := slices.BinarySearchFunc(w.apps[app], r.task.Key.ID, byID)
	w.apps[app] = slices.Insert(w.apps[app], i, r)
	w.tasks.add(r)
	w.members[r.task.AgentID] = append(w.members[r.task.AgentID], r)
	w.dirty[app] = struct{}{}
	if i == 0 {
		return nil
	}
	return w.apps[app][i-1]
}

func (w *world) name(s string) string {
	if one, ok := w.names[s]; ok {
		return one
	}
	w.names[s] = s
	return s
}

func (w *world) drop(key model.TaskKey) {
	r := w.tasks.get(key)
	if r == nil {
		return
	}
	w.tasks.remove(key)
	app := r.app()
	without(w.apps, app, r)
	without(w.members, r.task.AgentID, r)
	w.dirty[app] = struct{}{}
}

func without[K comparable](lists map[K][]*record, key K, r *record) {
	list := lists[key]
	if i := slices.Index(list, r); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if lists[key] = list; len(list) == 0 {
		delete(lists, key)
	}
}

// errUnknownTask says that an update named a task nobody described: the picture
// is incomplete.
var errUnknownTask = errors.New("update for a task that was never described")

// updateTask takes a TASK_UPDATED. The outer state is the latest, the status
// may lag behind it. It returns errUnknownTask for a live task we do not know.
func (w *world) updateTask(raw json.RawMessage) error {
	var u v1Update
	err := readInto(raw, &u)
	key := model.TaskKey{FrameworkID: u.FrameworkID.Value, ID: u.Status.TaskID.Value}
	if key.ID == "" || key.FrameworkID == "" {
		w.wrong(key.ID, &fieldError{"task_updated", "", errors.Join(errors.New("task_id or framework_id missing or unreadable"), err)})
		return nil
	}
	r := w.tasks.get(key)
	switch state := model.ParseTaskState(u.State); {
	case state == model.Terminal:
		w.drop(key)
	case r == nil:
		return errUnknownTask
	default:
		r.held = false
		r.edit().State = state
		if err = errors.Join(err, r.take(u.Status.status())); err != nil || r.bad != nil {
			r.note(func(b *trouble) { b.updated = err })
		}
		w.dirty[r.app()] = struct{}{}
	}
	return nil
}
