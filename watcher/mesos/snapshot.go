package mesos

import (
	"cmp"
	"errors"
	"maps"
	"reflect"
	"slices"

	"waggle/model"
)

// publishable reports whether a Snapshot may differ from the last one.
func (w *world) publishable() bool { return w.changed || len(w.dirty) > 0 }

// snapshot returns what runs now. Only apps that something touched are built,
// and one that came out equal keeps its pointer.
func (w *world) snapshot() *model.Snapshot {
	if w.built == nil {
		w.built, w.before = w.before, &model.Snapshot{}
	}
	snap := &model.Snapshot{
		Agents: w.agents.Groups(), Frameworks: w.frameworks.Groups(), Held: w.held.Groups(), Problems: w.built.Problems,
	}
	if w.changed {
		snap.Problems = w.objectProblems()
	}
	apps := w.built.Apps.Edit()
	for key := range w.dirty {
		old, ok := apps.Get(key)
		if !ok {
			old = &model.App{}
		}
		app := w.app(key, old)
		w.trouble += len(app.Problems) - len(old.Problems)
		if len(app.Tasks) > 0 {
			apps.Set(key, app)
		} else {
			apps.Delete(key)
		}
	}
	snap.Apps = apps.Groups()
	clear(w.dirty)
	w.changed = false
	w.built = snap
	return snap
}

func (w *world) objectProblems() []model.Problem {
	out := slices.Collect(maps.Values(w.problems))
	for id, host := range w.unresolved {
		a, isAgent := w.agents.Get(id)
		f, isFramework := w.frameworks.Get(id)
		if isAgent && !a.Addr.IsValid() || isFramework && !f.Addr.IsValid() {
			out = append(out, problem(id, &fieldError{"hostname", host, errors.New("no address is known for it")}))
		}
	}
	slices.SortFunc(out, model.Problem.Compare)
	return out[:min(len(out), maxProblems)]
}

// app builds one app. A task whose agent or framework is unknown waits for it,
// so the app may come out without any.
func (w *world) app(key model.AppKey, old *model.App) *model.App {
	app := &model.App{Key: key}
	framework, ok := w.frameworks.Get(key.FrameworkID)
	if !ok {
		return app
	}
	app.Framework = framework.Name
	app.Tasks = make([]*model.Task, 0, len(w.apps[key]))
	for _, r := range w.apps[key] {
		agent, ok := w.agents.Get(r.task.AgentID)
		if !ok {
			continue
		}
		if r.agent != agent || r.framework != framework {
			r.join(agent, framework)
			if n := len(app.Tasks); n > 0 {
				share(r.task, app.Tasks[n-1])
			}
			r.keep(old.Tasks)
		}
		app.Tasks = append(app.Tasks, r.task)
		app.Problems = r.problems(app.Problems)
	}
	slices.SortFunc(app.Problems, model.Problem.Compare)
	if old.Framework == app.Framework && slices.Equal(old.Tasks, app.Tasks) && slices.Equal(old.Problems, app.Problems) {
		return old
	}
	return app
}

// keep takes the task of the last Snapshot if nothing about it changed.
func (r *record) keep(old []*model.Task) {
	i, ok := slices.BinarySearchFunc(old, r.task.Key.ID, func(t *model.Task, id string) int { return cmp.Compare(t.Key.ID, id) })
	if ok && reflect.DeepEqual(old[i], r.task) {
		r.task = old[i]
	}
}
