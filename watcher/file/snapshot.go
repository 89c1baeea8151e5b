package file

import (
	"errors"
	"slices"
	"strings"

	"waggle/model"
)

// snapshot returns what all files say together. A task that two entries
// describe is what the first says. Whatever is as in old keeps its pointer.
func snapshot(old *model.Snapshot, files []*content) *model.Snapshot {
	snap := &model.Snapshot{}
	tasks := map[model.TaskKey]string{}
	apps := map[model.AppKey][]*model.Task{}
	for _, f := range files {
		snap.Problems = append(snap.Problems, f.problems()...)
		if f.good == nil {
			continue
		}
		for _, t := range f.good.tasks {
			if other, twice := tasks[t.Key]; twice {
				snap.Problems = append(snap.Problems, model.Problem{
					Task: t.Key.ID, Field: f.path, Error: errors.New("another entry describes this task, in " + other).Error(),
				})
				continue
			}
			tasks[t.Key] = f.path
			key := model.AppKey{FrameworkID: t.Key.FrameworkID, Name: t.DiscoveryName()}
			apps[key] = append(apps[key], t)
		}
	}
	slices.SortFunc(snap.Problems, model.Problem.Compare)
	edit := old.Apps.Edit()
	for key := range old.Apps.All() {
		if apps[key] == nil {
			edit.Delete(key)
		}
	}
	for key, list := range apps {
		slices.SortFunc(list, func(a, b *model.Task) int { return strings.Compare(a.Key.ID, b.Key.ID) })
		app := &model.App{Key: key, Framework: list[0].Framework, Tasks: list}
		was, _ := edit.Get(key)
		edit.Set(key, app.Keep(was))
	}
	snap.Apps = edit.Groups()
	return snap
}
