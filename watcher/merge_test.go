package watcher

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"waggle/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a Source that publishes what the test sends.
type script struct {
	snaps    chan *model.Snapshot
	restored *model.Snapshot
}

func (s *script) Run(ctx context.Context, publish func(*model.Snapshot)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case snap := <-s.snaps:
			if snap == nil {
				return errors.New("can never work")
			}
			publish(snap)
		}
	}
}

func (s *script) Restore(snap *model.Snapshot) { s.restored = snap }

// mute is a Source that cannot restore and never speaks.
type mute struct{}

func (mute) Run(ctx context.Context, _ func(*model.Snapshot)) error {
	<-ctx.Done()
	return ctx.Err()
}

// world is a Snapshot of apps of the framework with this id.
func world(framework string, apps ...string) *model.Snapshot {
	edit := model.Groups[model.AppKey, *model.App]{}.Edit()
	for _, name := range apps {
		key := model.AppKey{FrameworkID: framework, Name: name}
		edit.Set(key, &model.App{Key: key})
	}
	return &model.Snapshot{Apps: edit.Groups(), Problems: []model.Problem{{Task: framework}}}
}

func names(s *model.Snapshot) []string {
	var out []string
	for key := range s.Apps.All() {
		out = append(out, key.FrameworkID+"/"+key.Name)
	}
	slices.Sort(out)
	return out
}

// merge runs a Merge of n scripts until the test ends, and returns what it
// published so far when asked.
func merge(t *testing.T, n int) (*Merge, []*script, func() []*model.Snapshot) {
	var scripts []*script
	var sources []Source
	for range n {
		s := &script{snaps: make(chan *model.Snapshot)}
		scripts, sources = append(scripts, s), append(sources, s)
	}
	m := NewMerge(DefaultPatience, sources...)
	published := make(chan *model.Snapshot, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, func(s *model.Snapshot) { published <- s }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return m, scripts, func() (out []*model.Snapshot) {
		synctest.Wait()
		for len(published) > 0 {
			out = append(out, <-published)
		}
		return out
	}
}

func TestTheFirstSnapshotIsThatOfAllSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s, published := merge(t, 2)
		s[1].snaps <- world("file", "printer")
		if got := published(); len(got) != 0 || m.Spoken() {
			t.Errorf("one of two has spoken, and %d Snapshots are published", len(got))
		}
		s[0].snaps <- world("F", "web")
		got := published()
		if len(got) != 1 || !m.Spoken() || !slices.Equal(names(got[0]), []string{"F/web", "file/printer"}) || len(got[0].Problems) != 2 {
			t.Errorf("both have spoken: %v", got)
		}
		s[1].snaps <- world("file")
		if got := published(); len(got) != 1 || !slices.Equal(names(got[0]), []string{"F/web"}) {
			t.Errorf("one has less to say: %v", got)
		}
	})
}

func TestASourceThatIsAwayKeepsTheOthersWaitingForSoLongOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s, published := merge(t, 2)
		s[1].snaps <- world("file", "printer")
		<-time.After(DefaultPatience)
		if got := published(); len(got) != 1 || !slices.Equal(names(got[0]), []string{"file/printer"}) || m.Spoken() {
			t.Errorf("after the patience: %v", got)
		}
		s[0].snaps <- world("F", "web")
		if got := published(); len(got) != 1 || !slices.Equal(names(got[0]), []string{"F/web", "file/printer"}) || !m.Spoken() {
			t.Errorf("when it is back: %v", got)
		}
	})
}

func TestWhatTwoSourcesHaveIsWhatTheFirstSays(t *testing.T) {
	w := newMerged(make([]Source, 2))
	first, second := world("F", "web"), world("F", "web", "db")
	first.Leader = netip.MustParseAddrPort("10.0.0.1:5050")
	second.Leader, second.Masters = netip.MustParseAddrPort("10.0.0.2:5050"), []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:5050")}
	w.take(1, second)
	w.take(0, first)
	s := w.snapshot()
	mine, _ := first.Apps.Get(model.AppKey{FrameworkID: "F", Name: "web"})
	if got, _ := s.Apps.Get(mine.Key); got != mine || s.Apps.Len() != 2 || s.Leader != first.Leader || len(s.Masters) != 1 {
		t.Errorf("together: %+v", s)
	}
	w.take(0, &model.Snapshot{})
	if s := w.snapshot(); s.Apps.Len() != 2 || s.Leader != second.Leader {
		t.Errorf("when the first has nothing: %+v", s)
	}
}

func TestASourceThatCanNeverWorkEndsTheMerge(t *testing.T) {
	s := &script{snaps: make(chan *model.Snapshot, 1)}
	s.snaps <- nil
	if err := NewMerge(0, mute{}, s).Run(t.Context(), nil); err == nil || err.Error() != "can never work" {
		t.Errorf("Run ended with %v", err)
	}
	if err := NewMerge(0).Run(t.Context(), nil); err == nil {
		t.Error("no source is none to complain of")
	}
}

func TestRestoreReachesTheSourcesThatCan(t *testing.T) {
	s, snap := &script{}, world("F")
	NewMerge(0, mute{}, s).Restore(snap)
	if s.restored != snap {
		t.Error("it did not")
	}
}

// TestMergeRandomWalk holds what a Merge makes of changes against what it makes
// of the last Snapshots alone; unchanged apps keep their pointers.
func TestMergeRandomWalk(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		w := newMerged(make([]Source, 3))
		for step := range 60 {
			i := rnd.IntN(3)
			edit := w.parts[i].Apps.Edit()
			for range 1 + rnd.IntN(3) {
				key := model.AppKey{FrameworkID: "F", Name: fmt.Sprint("app", rnd.IntN(8))}
				if rnd.IntN(3) == 0 {
					edit.Delete(key)
				} else {
					edit.Set(key, &model.App{Key: key})
				}
			}
			before := w.snapshot()
			w.take(i, &model.Snapshot{Apps: edit.Groups()})
			fresh := newMerged(make([]Source, 3))
			for j, p := range w.parts {
				fresh.take(j, p)
			}
			for c := range model.Diff(fresh.snapshot().Apps, w.snapshot().Apps) {
				t.Fatalf("seed %d step %d: %v differs from what it is from nothing", seed, step, c.Key)
			}
			for c := range model.Diff(before.Apps, w.snapshot().Apps) {
				if was, is := first(w, c.Key), c.New; is != was {
					t.Fatalf("seed %d step %d: %v is not what the first source says (%s)", seed, step, c.Key, cmp.Diff(was, is))
				}
			}
		}
	}
}

// first is what the first part says that has the key.
func first(w *merged, key model.AppKey) *model.App {
	for _, p := range w.parts {
		if a, ok := p.Apps.Get(key); ok {
			return a
		}
	}
	return nil
}

// taskApp is an app of one task with a verdict and a service port.
func taskApp(name string, h model.Health, service uint16) *model.App {
	key := model.AppKey{FrameworkID: "F", Name: name}
	return &model.App{Key: key, Tasks: []*model.Task{{
		Key: model.TaskKey{FrameworkID: "F", ID: name + ".1"}, Health: h, Ports: []model.Port{{Name: "http", Number: 80, ServicePort: service}},
	}}}
}

func snapshotOf(apps ...*model.App) *model.Snapshot {
	edit := model.Groups[model.AppKey, *model.App]{}.Edit()
	for _, a := range apps {
		edit.Set(a.Key, a)
	}
	return &model.Snapshot{Apps: edit.Groups()}
}

func TestASupplementAddsToWhatTheFirstTellsOf(t *testing.T) {
	w := newMerged([]Source{nil, Supplement{}})
	get := func(name string) *model.App {
		a, _ := w.snapshot().Apps.Get(model.AppKey{FrameworkID: "F", Name: name})
		return a
	}
	w.take(1, snapshotOf(taskApp("web", model.Healthy, 10001), taskApp("old", model.Healthy, 0)))
	if get("web") == nil || get("old") == nil {
		t.Fatal("before the first has spoken the supplement stands in for it")
	}
	web := taskApp("web", model.HealthUnknown, 0)
	w.take(0, snapshotOf(web))
	if got := get("web"); got == web || got.Tasks[0].Health != model.Healthy || got.Tasks[0].Ports[0].ServicePort != 10001 {
		t.Errorf("together: %+v", got.Tasks[0])
	}
	if web.Tasks[0].Health != model.HealthUnknown || web.Tasks[0].Ports[0].ServicePort != 0 {
		t.Errorf("the first's own task was changed: %+v", web.Tasks[0])
	}
	if get("old") != nil {
		t.Error("what the first does not tell of runs no more")
	}
	was := get("web")
	w.take(1, snapshotOf(taskApp("web", model.Healthy, 10001), taskApp("new", model.Healthy, 1)))
	if get("web") != was || get("new") != nil {
		t.Error("the supplement says the same of it: it must be the same")
	}
	w.take(1, snapshotOf(taskApp("web", model.Unhealthy, 10001)))
	if got := get("web"); got.Tasks[0].Health != model.Unhealthy {
		t.Errorf("a worse verdict: %+v", got.Tasks[0])
	}
	w.take(1, &model.Snapshot{})
	if get("web") != web {
		t.Error("without the supplement it is what the first says")
	}
}

// TestSupplementRandomWalk holds what comes of many changes against what is made
// of the last Snapshots alone.
func TestSupplementRandomWalk(t *testing.T) {
	sources := []Source{nil, nil, Supplement{}}
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		w := newMerged(sources)
		for step := range 60 {
			i := rnd.IntN(3)
			edit := w.parts[i].Apps.Edit()
			for range 1 + rnd.IntN(3) {
				app := taskApp(fmt.Sprint("app", rnd.IntN(6)), model.Health(rnd.IntN(3)), uint16(rnd.IntN(2)))
				if rnd.IntN(3) == 0 {
					edit.Delete(app.Key)
				} else {
					edit.Set(app.Key, app)
				}
			}
			w.take(i, &model.Snapshot{Apps: edit.Groups()})
			fresh := newMerged(sources)
			for j := range w.parts {
				if j != 0 || w.spoken {
					fresh.take(j, w.parts[j])
				}
			}
			if d := cmp.Diff(content(fresh.snapshot()), content(w.snapshot())); d != "" {
				t.Fatalf("seed %d step %d (-from nothing +by changes):\n%s", seed, step, d)
			}
		}
	}
}

func content(s *model.Snapshot) map[string]string {
	out := map[string]string{}
	for key, a := range s.Apps.All() {
		out[key.Name] = fmt.Sprint(a.Tasks[0].Health, a.Tasks[0].Ports[0].ServicePort)
	}
	return out
}
