package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"waggle/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a Source that publishes what the test sends.
type script chan *model.Snapshot

func (s script) Run(ctx context.Context, publish func(*model.Snapshot)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case snap := <-s:
			publish(snap)
		}
	}
}

// world is a Snapshot of the given tasks, "app.id" each.
func world(tasks ...string) *model.Snapshot {
	slices.Sort(tasks)
	apps := map[model.AppKey]*model.App{}
	for _, id := range tasks {
		name, _, _ := strings.Cut(id, ".")
		key := model.AppKey{FrameworkID: "F", Name: name}
		if apps[key] == nil {
			apps[key] = &model.App{Key: key, Framework: "marathon"}
		}
		apps[key].Tasks = append(apps[key].Tasks, &model.Task{Key: model.TaskKey{FrameworkID: "F", ID: id}, Name: name, State: model.Running})
	}
	edit := model.Groups[model.AppKey, *model.App]{}.Edit()
	for key, app := range apps {
		edit.Set(key, app)
	}
	return &model.Snapshot{Apps: edit.Groups()}
}

func ids(s *model.Snapshot) []string {
	out := []string{}
	for _, app := range s.Apps.All() {
		for _, t := range app.Tasks {
			out = append(out, t.Key.ID)
		}
	}
	slices.Sort(out)
	return out
}

// daemon is one life of a Source on a folder.
type daemon struct {
	source    *Source
	script    script
	spoken    atomic.Bool
	published chan *model.Snapshot
	stop      func()
}

func begin(t *testing.T, cfg Config, log *zap.Logger) *daemon {
	t.Helper()
	d := &daemon{script: make(script), published: make(chan *model.Snapshot, 100_000)}
	d.source = New(cfg, d.script, d.spoken.Load, log, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.source.Run(ctx, func(s *model.Snapshot) { d.published <- s }) }()
	stopped := false
	d.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	}
	t.Cleanup(d.stop)
	return d
}

func in(dir string) Config {
	cfg := DefaultConfig()
	cfg.Dir = dir
	return cfg
}

// send publishes a Snapshot of these tasks and returns what came of it.
func (d *daemon) send(tasks ...string) []string {
	d.script <- world(tasks...)
	return ids(<-d.published)
}

func TestARestartServesWhatRanAndTakesNothingAwayUntilAllHaveSpoken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	d := begin(t, in(dir), zaptest.NewLogger(t))
	d.spoken.Store(true)
	start := time.Now()
	d.send("a.1", "a.2", "b.1")
	d.stop()

	d = begin(t, in(dir), zaptest.NewLogger(t))
	if got := ids(<-d.published); !slices.Equal(got, []string{"a.1", "a.2", "b.1"}) {
		t.Errorf("at once after the restart: %v", got)
	}
	if at := d.source.Status().Restored; at.Before(start) || at.After(time.Now()) {
		t.Errorf("restored of %v", at)
	}
	if got := d.send("a.2", "c.1"); !slices.Equal(got, []string{"a.1", "a.2", "b.1", "c.1"}) {
		t.Errorf("when one of two sources has spoken: %v", got)
	}
	if got := d.send("a.3"); !slices.Equal(got, []string{"a.1", "a.2", "a.3", "b.1"}) {
		t.Errorf("when it has changed its mind: %v", got)
	}
	restored := d.source.Status().Restored
	d.stop()

	d = begin(t, in(dir), zaptest.NewLogger(t))
	if got := ids(<-d.published); !slices.Equal(got, []string{"a.1", "a.2", "a.3", "b.1"}) {
		t.Errorf("after a restart before all had spoken: %v", got)
	}
	if again := d.source.Status().Restored; !again.Equal(restored) {
		t.Errorf("what was old has become young: %v, was %v", again, restored)
	}
	d.spoken.Store(true)
	if got := d.send("a.3"); !slices.Equal(got, []string{"a.3"}) {
		t.Errorf("once all have spoken: %v", got)
	}
	if st := d.source.Status(); !st.Restored.IsZero() || st.Err != nil {
		t.Errorf("status: %+v", st)
	}
}

func TestTheFirstStartAndAFolderThatIsNotGivenAreNoMatter(t *testing.T) {
	for _, cfg := range []Config{in(t.TempDir()), in("")} {
		d := begin(t, cfg, zaptest.NewLogger(t))
		if got := d.send("a.1"); !slices.Equal(got, []string{"a.1"}) {
			t.Errorf("%+v: %v", cfg, got)
		}
		if got := d.send(); len(got) != 0 {
			t.Errorf("%+v: %v is kept", cfg, got)
		}
	}
}

func TestAFileThatCannotBeReadIsSaidAndDoneWithout(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "snapshot")
	for _, text := range []string{"", "#!/bin/sh\nsomebody else's file\n", magic + "\x00\x00\x00\x09" + "0123456789"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zap.ErrorLevel)
		d := begin(t, in(dir), zap.New(core))
		if got := d.send("a.1"); !slices.Equal(got, []string{"a.1"}) {
			t.Errorf("after %q: %v", text, got)
		}
		d.stop()
		if logs.Len() != 1 || !strings.Contains(fmt.Sprint(logs.All()[0].ContextMap()["error"]), path) {
			t.Errorf("after %q the log says %v", text, logs.All())
		}
	}
}

func TestADiskThatFailsIsSaidOnceAndTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file", "below")
	if err := os.WriteFile(filepath.Dir(dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.ErrorLevel)
	cfg := in(dir)
	cfg.Every = time.Millisecond
	// Reading fails too: what is no folder is not a missing file.
	d := begin(t, cfg, zap.New(core))
	d.send("a.1")
	wait(t, func() bool { return testutil.ToFloat64(d.source.metrics.errors) >= 3 })
	if err := d.source.Status().Err; err == nil {
		t.Error("the status says nothing of it")
	}
	if n := logs.FilterMessageSnippet("not written").Len(); n != 1 {
		t.Errorf("said %d times", n)
	}
	if err := os.Remove(filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { return !d.source.Status().Written.IsZero() && d.source.Status().Err == nil })
}

func wait(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for patience := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatal("waited in vain")
		}
	}
}

func TestAStormIsWrittenOnceASecondAndItsEndIsOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := begin(t, in(dir), zaptest.NewLogger(t))
		d.spoken.Store(true)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := range 10_000 {
			<-tick.C
			d.send(fmt.Sprint("a.", i))
		}
		d.stop()
		if n := testutil.ToFloat64(d.source.metrics.writes); n < 10 || n > 12 {
			t.Errorf("written %v times in 10 s", n)
		}
		if snap, _, err := d.source.load(); err != nil || !slices.Equal(ids(snap), []string{"a.9999"}) {
			t.Errorf("on the disk: %v, %v", snap, err)
		}
	})
}

// TestBridgeRandomWalk holds what is served between two lives against what
// both say together, worked out from nothing.
func TestBridgeRandomWalk(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		tasks := func() []string {
			set := map[string]bool{}
			for range rnd.IntN(12) {
				set[fmt.Sprintf("app%d.%d", rnd.IntN(4), rnd.IntN(4))] = true
			}
			return slices.Sorted(maps.Keys(set))
		}
		kept := world(tasks()...)
		over := newBridge(kept)
		live := world(tasks()...)
		for range 30 {
			got := over.cross(live)
			want := slices.Compact(slices.Sorted(slices.Values(append(ids(kept), ids(live)...))))
			if d := cmp.Diff(want, ids(got)); d != "" {
				t.Fatalf("seed %d: tasks (-want +got):\n%s", seed, d)
			}
			if d := sameSnapshot(newBridge(kept).cross(live), got); d != "" {
				t.Fatalf("seed %d: (-from nothing +got):\n%s", seed, d)
			}
			for key, app := range live.Apps.All() {
				if old, ok := kept.Apps.Get(key); !ok || len(join(old, app).Tasks) == len(app.Tasks) {
					if now, _ := got.Apps.Get(key); now != app {
						t.Fatalf("seed %d: app %v is not the live one", seed, key)
					}
				}
			}
			next := live.Apps.Edit() // of the same lineage, as a Source's are
			for key, app := range world(tasks()...).Apps.All() {
				next.Set(key, app)
			}
			if rnd.IntN(3) == 0 {
				next.Delete(model.AppKey{FrameworkID: "F", Name: "app1"})
			}
			live = &model.Snapshot{Apps: next.Groups()}
		}
	}
}

func TestABridgeKeepsAgentsFrameworksAndMasters(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	kept, live := randomSnapshot(rnd, 3), randomSnapshot(rnd, 2)
	for kept.Agents.Len() == 0 || live.Agents.Len() == 0 {
		kept, live = randomSnapshot(rnd, 3), randomSnapshot(rnd, 2)
	}
	got := newBridge(kept).cross(live)
	want := plain(kept.Agents)
	maps.Copy(want, plain(live.Agents))
	if !maps.Equal(want, plain(got.Agents)) {
		t.Errorf("agents %v, want %v", plain(got.Agents), want)
	}
	empty := newBridge(kept).cross(&model.Snapshot{})
	if empty.Leader != kept.Leader || !slices.Equal(empty.Masters, kept.Masters) || empty.Frameworks.Len() != kept.Frameworks.Len() {
		t.Errorf("beside an empty world: %+v", empty)
	}
}
