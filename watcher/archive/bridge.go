package archive

import (
	"slices"
	"strings"

	"waggle/model"
)

// bridge leads from the Snapshot that was on disk to the first complete one:
// meanwhile what is served is both together, and nothing is taken away.
type bridge struct {
	kept *model.Snapshot // from the disk
	live *model.Snapshot // the last one published; empty before the first
	both *model.Snapshot
}

func newBridge(kept *model.Snapshot) *bridge {
	return &bridge{kept: kept, live: &model.Snapshot{}, both: kept}
}

// cross returns live and what was kept beside it. It redoes what differs from
// the live Snapshot before.
func (b *bridge) cross(live *model.Snapshot) *model.Snapshot {
	both := *live
	both.Partial = true
	both.Apps = beside(b.both.Apps, b.kept.Apps, b.live.Apps, live.Apps, join)
	both.Agents = beside(b.both.Agents, b.kept.Agents, b.live.Agents, live.Agents, newer)
	both.Frameworks = beside(b.both.Frameworks, b.kept.Frameworks, b.live.Frameworks, live.Frameworks, newer)
	both.Held = beside(b.both.Held, b.kept.Held, b.live.Held, live.Held, newer)
	if !both.Leader.IsValid() {
		both.Leader = b.kept.Leader
	}
	if len(both.Masters) == 0 {
		both.Masters = b.kept.Masters
	}
	b.live, b.both = live, &both
	return b.both
}

// beside returns both with what changed between two live versions: what only
// one of kept and live has, and of what both have the merge.
func beside[K comparable, V any](both, kept, before, live model.Groups[K, *V], merge func(kept, live *V) *V) model.Groups[K, *V] {
	edit := both.Edit()
	for c := range model.Diff(before, live) {
		old, had := kept.Get(c.Key)
		switch {
		case c.InNew && had:
			edit.Set(c.Key, merge(old, c.New))
		case c.InNew:
			edit.Set(c.Key, c.New)
		case had:
			edit.Set(c.Key, old)
		default:
			edit.Delete(c.Key)
		}
	}
	return edit.Groups()
}

func newer[V any](_, live *V) *V { return live }

// join returns live with the tasks that only kept has.
func join(kept, live *model.App) *model.App {
	byID := func(a, b *model.Task) int { return strings.Compare(a.Key.ID, b.Key.ID) }
	tasks := slices.Clone(live.Tasks)
	for _, t := range kept.Tasks {
		if _, ok := slices.BinarySearchFunc(live.Tasks, t, byID); !ok {
			tasks = append(tasks, t)
		}
	}
	if len(tasks) == len(live.Tasks) {
		return live
	}
	slices.SortFunc(tasks, byID)
	app := *live
	app.Tasks = tasks
	return &app
}
