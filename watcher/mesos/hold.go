package mesos

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"waggle/model"
)

const (
	// keepVanished is how long the tasks of an agent stay that a new picture
	// does not know at all. Mesos says of most agents it has lost that their
	// tasks are unreachable; these are left where we missed that, or where the
	// master has lost its registry and its agents register anew.
	keepVanished = time.Minute
	// quiet is how long nothing more may come of an agent that has registered
	// again before it counts as told of completely. All of its tasks are told of
	// in one turn of the master.
	quiet = 5 * time.Second
	// unquiet is how long such an agent is waited for at most: a busy one is
	// given new tasks all the time.
	unquiet = 30 * time.Second
)

// hold is an agent that a new master has not heard of yet. Its tasks, as the
// last Snapshot had them, are served meanwhile.
type hold struct {
	*model.Hold
	// returned is when the agent registered, and stirred when it did or the last
	// of its tasks was told of after that; zero before.
	returned, stirred time.Time
}

// over is when the hold ends if nothing more is heard.
func (h *hold) over() time.Time {
	if h.returned.IsZero() {
		return h.Until
	}
	end := h.stirred.Add(quiet)
	if limit := h.returned.Add(unquiet); limit.Before(end) {
		return limit
	}
	return end
}

// addRecovered notes an agent that the master knows from its registry only.
func (w *world) addRecovered(raw json.RawMessage) {
	var a struct {
		ID v1ID `json:"id"`
	}
	if err := readInto(raw, &a); !w.noted("recovered agent", a.ID.Value, err) {
		return
	}
	w.recovered[a.ID.Value] = struct{}{}
}

// empty reports whether the picture shows a master without any agent, as one
// does that has not recovered yet.
func (w *world) empty() bool {
	return w.agents.Len() == 0 && len(w.recovered) == 0 && w.tasks.len() == 0
}

// adopt completes a picture with what it may lack only because its master is
// new. From the last Snapshot it keeps the tasks of agents that have not
// registered yet, for patience, and those of agents that nobody knows any more,
// for a grace. Frameworks stay likewise. old is the world before, or nil. same
// says that it is of the same master: what that was waited for is not given more
// time.
func (w *world) adopt(old *world, patience time.Duration, same bool) {
	now := time.Now()
	for id := range w.recovered {
		until := now.Add(patience)
		if h, ok := w.before.Held.Get(id); ok && same {
			until = h.Until
		}
		if _, told := w.agents.Get(id); !told && now.Before(until) {
			w.hold(id, now, until)
		}
	}
	waits := len(w.holds) > 0
	for _, app := range w.before.Apps.All() {
		for _, t := range app.Tasks {
			if t.State == model.Running || t.State == model.Killing {
				w.keepTask(app, t, now)
			}
		}
	}
	for id, f := range w.before.Frameworks.All() {
		until := now.Add(keepVanished)
		if waits {
			until = now.Add(patience)
		}
		if old != nil && same {
			if end, ok := old.kept[id]; ok {
				until = end
			}
		}
		if _, told := w.frameworks.Get(id); told || !now.Before(until) && !w.hasTasks(id) {
			continue
		}
		w.frameworks.Set(id, f)
		w.kept[id] = until
		w.soon(until)
	}
}

// hold begins to hold the tasks of an agent; what the last Snapshot knows of it
// stands meanwhile.
func (w *world) hold(id string, since, until time.Time) *hold {
	if old, ok := w.before.Held.Get(id); ok {
		since = old.Since
	}
	h := &hold{Hold: &model.Hold{Since: since, Until: until}}
	w.holds[id] = h
	w.held.Set(id, h.Hold)
	if a, ok := w.before.Agents.Get(id); ok {
		w.agents.Set(id, a)
	}
	w.soon(until)
	w.changed = true
	return h
}

// keepTask holds t if its agent is one that has not been told of.
func (w *world) keepTask(app *model.App, t *model.Task, now time.Time) {
	if w.tasks.get(t.Key) != nil {
		return
	}
	agent, ok := w.before.Agents.Get(t.AgentID)
	framework, known := w.before.Frameworks.Get(t.Key.FrameworkID)
	if !ok || !known {
		return // no task of a Snapshot of ours
	}
	if w.holds[t.AgentID] == nil {
		if _, told := w.agents.Get(t.AgentID); told {
			return // it runs no more
		}
		until := now.Add(keepVanished)
		if old, ok := w.before.Held.Get(t.AgentID); ok && old.Until.Before(until) {
			until = old.Until
		}
		if !now.Before(until) {
			return
		}
		w.hold(t.AgentID, now, until)
	}
	// Published, so never changed again; joined as long as agent and framework
	// are told of the same.
	r := &record{task: t, agent: agent, framework: framework, mapped: len(t.Mappings) > 0, held: true}
	for _, p := range app.Problems {
		if p.Task == t.Key.ID {
			r.note(func(b *trouble) {
				b.described = append(b.described, &fieldError{p.Field, p.Value, errors.New(p.Error)})
			})
		}
	}
	w.insert(r)
}

// stir notes that an agent's task was told of: while there are more, its hold
// goes on, for so long.
func (w *world) stir(agent string) {
	if h := w.holds[agent]; h != nil && !h.returned.IsZero() {
		h.stirred = time.Now()
	}
}

// back notes that an agent has registered.
func (w *world) back(agent string) {
	if h := w.holds[agent]; h != nil {
		h.stirred = time.Now()
		if h.returned.IsZero() {
			h.returned = h.stirred
		}
		w.soon(h.over())
	}
}

// release ends the hold of an agent: of its tasks those go that were not told of
// again, and the agent too if it was not.
func (w *world) release(id string) {
	h := w.holds[id]
	delete(w.holds, id)
	w.held.Delete(id)
	w.changed = true
	if h.returned.IsZero() {
		w.agents.Delete(id)
	}
	for _, r := range slices.Clone(w.members[id]) {
		w.dirty[r.app()] = struct{}{}
		if r.held {
			w.drop(r.task.Key)
		}
	}
}

// extend sets how long agents are waited for that have not registered.
func (w *world) extend(until time.Time) {
	for id, h := range w.holds {
		if _, recovered := w.recovered[id]; !recovered || !h.returned.IsZero() || h.Until.Equal(until) {
			continue
		}
		h.Hold = &model.Hold{Since: h.Since, Until: until}
		w.held.Set(id, h.Hold)
		w.changed = true
		w.soon(until)
	}
}

// soon has sweep look at t for what ends then.
func (w *world) soon(t time.Time) {
	if w.due.IsZero() || t.Before(w.due) {
		w.due = t
	}
}

// sweep drops what no event will ever take away. w.due is when it has something
// to do again; zero means not before something changes.
func (w *world) sweep() {
	now := time.Now()
	if w.due.IsZero() || now.Before(w.due) {
		return
	}
	w.due = time.Time{}
	for id, since := range w.removed {
		if end := since.Add(keepRemoved); now.Before(end) {
			w.soon(end)
			continue
		}
		w.forget(id)
	}
	for id, h := range w.holds {
		if end := h.over(); now.Before(end) {
			w.soon(end)
			continue
		}
		w.release(id)
	}
	for id, end := range w.kept {
		if !now.Before(end) && w.hasTasks(id) {
			end = now.Add(keepVanished) // they say that it is there
			w.kept[id] = end
		}
		if now.Before(end) {
			w.soon(end)
			continue
		}
		w.forgetFramework(id)
	}
	for len(w.ended) > 0 {
		e := w.ended[0]
		if end := e.at.Add(keepEnded); now.Before(end) {
			w.soon(end)
			break
		}
		w.ended = w.ended[1:]
		if r := e.record; w.tasks.get(r.task.Key) == r && r.task.State == model.Terminal {
			w.drop(r.task.Key)
		}
	}
}

// forget drops an agent and whatever tasks of it are left.
func (w *world) forget(id string) {
	delete(w.removed, id)
	delete(w.unresolved, id)
	delete(w.holds, id)
	w.held.Delete(id)
	w.right(id)
	w.agents.Delete(id)
	w.changed = true
	for _, r := range slices.Clone(w.members[id]) {
		w.drop(r.task.Key)
	}
}

func (w *world) hasTasks(framework string) bool {
	for key := range w.apps {
		if key.FrameworkID == framework {
			return true
		}
	}
	return false
}

// heldTasks returns how many tasks are served only because they are held.
func (w *world) heldTasks() int {
	n := 0
	for id := range w.holds {
		for _, r := range w.members[id] {
			if r.held {
				n++
			}
		}
	}
	return n
}
