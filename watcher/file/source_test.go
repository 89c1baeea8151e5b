package file

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"waggle/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// follower runs a Source and keeps what it published.
type follower struct {
	t      *testing.T
	source *Source
	snaps  chan *model.Snapshot
}

func follow(t *testing.T, cfg Config, paths ...string) *follower {
	t.Helper()
	cfg.Paths = paths
	f := &follower{t: t, source: New(cfg, zaptest.NewLogger(t), nil), snaps: make(chan *model.Snapshot, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.source.Run(ctx, func(s *model.Snapshot) { f.snaps <- s }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return f
}

// tasks waits until exactly these task ids are published, and returns the
// Snapshot.
func (f *follower) tasks(want ...string) *model.Snapshot {
	f.t.Helper()
	return f.until(fmt.Sprint("tasks ", want), func(s *model.Snapshot) bool { return slices.Equal(ids(s), want) })
}

func (f *follower) until(what string, ok func(*model.Snapshot) bool) *model.Snapshot {
	f.t.Helper()
	patience := time.After(time.Minute)
	var last *model.Snapshot
	for {
		select {
		case last = <-f.snaps:
			if ok(last) {
				return last
			}
		case <-patience:
			f.t.Fatalf("waited in vain for %s; the last Snapshot has %v, %v", what, ids(last), last)
		}
	}
}

func ids(s *model.Snapshot) []string {
	var out []string
	for _, app := range s.Apps.All() {
		for _, t := range app.Tasks {
			out = append(out, t.Key.ID)
		}
	}
	slices.Sort(out)
	return out
}

func services(names ...string) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for _, n := range names {
		fmt.Fprintf(&b, "- {name: %s, addresses: [10.0.0.1]}\n", n)
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// replace writes the text beside path and renames it over it.
func replace(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// noReread is a Config in which only the kernel's word counts.
func noReread() Config {
	cfg := DefaultConfig()
	cfg.Reread = time.Hour
	return cfg
}

func TestEveryWayToChangeAFileIsNoticed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write(t, path, services("a"))
	f := follow(t, noReread(), path)
	f.tasks("a.10.0.0.1")
	write(t, path, services("a", "b"))
	f.tasks("a.10.0.0.1", "b.10.0.0.1")
	replace(t, path, services("c"))
	f.tasks("c.10.0.0.1")
	if err := os.Rename(path, path+"~"); err != nil {
		t.Fatal(err)
	}
	f.tasks()
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
	f.tasks("c.10.0.0.1")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.tasks()
	if err := os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), path); err != nil {
		t.Fatal(err)
	}
	replace(t, path, services("d")) // over the link
	f.tasks("d.10.0.0.1")
}

func TestAFolderIsItsYAMLAndJSONFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "services.d")
	f := follow(t, noReread(), dir)
	if s := f.tasks(); len(s.Problems) != 1 || s.Problems[0].Field != dir {
		t.Errorf("a folder that does not exist: %v", s.Problems)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "b.yml"), services("b"))
	f.tasks("b.10.0.0.1")
	write(t, filepath.Join(dir, "a.JSON"), `{"services": [{"name": "a", "addresses": ["10.0.0.1"]}]}`)
	write(t, filepath.Join(dir, ".hidden.yaml"), services("x"))
	write(t, filepath.Join(dir, "c.yaml~"), services("x"))
	write(t, filepath.Join(dir, "README"), "x")
	f.tasks("a.10.0.0.1", "b.10.0.0.1")
	if err := os.Remove(filepath.Join(dir, "b.yml")); err != nil {
		t.Fatal(err)
	}
	f.tasks("a.10.0.0.1")
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	f.tasks()
	if err := os.Rename(dir+".old", dir); err != nil {
		t.Fatal(err)
	}
	f.tasks("a.10.0.0.1")
	write(t, filepath.Join(dir, "d.yaml"), services("d"))
	f.tasks("a.10.0.0.1", "d.10.0.0.1")
}

func TestAFileThatMakesNoSenseKeepsWhatItSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	write(t, path, services("a"))
	f := follow(t, noReread(), path)
	first := f.tasks("a.10.0.0.1")
	for _, bad := range []string{"services:\n- {name: a\n", "", "services:\n- name: a\n  addresses: ["} {
		replace(t, path, bad)
		s := f.until("a problem", func(s *model.Snapshot) bool { return len(s.Problems) == 1 })
		if !slices.Equal(ids(s), []string{"a.10.0.0.1"}) || s.Problems[0].Field != path {
			t.Errorf("after %q: %v, %v", bad, ids(s), s.Problems)
		}
		for range model.Diff(first.Apps, s.Apps) {
			t.Error("an app changed")
		}
		if f.source.Status().Err == nil {
			t.Error("the status says nothing of it")
		}
		replace(t, path, services("a"))
		f.until("no problem", func(s *model.Snapshot) bool { return len(s.Problems) == 0 })
	}
}

func TestWhatNobodyTellsOfIsReadLater(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Reread = 20 * time.Millisecond
	dir := t.TempDir()
	target, link := filepath.Join(t.TempDir(), "target"), filepath.Join(dir, "a.yaml")
	write(t, target, services("a"))
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	f := follow(t, cfg, link)
	f.tasks("a.10.0.0.1")
	write(t, target, services("b")) // in a folder that is not watched
	f.tasks("b.10.0.0.1")
}

func TestATaskDescribedTwiceIsWhatTheFirstFileSays(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), "tasks: [{id: x, name: one, addresses: [10.0.0.1]}]")
	write(t, filepath.Join(dir, "b.yaml"), "tasks: [{id: x, name: two, addresses: [10.0.0.2]}, {id: y, name: one, addresses: [10.0.0.3]}]")
	s := follow(t, noReread(), dir).tasks("x", "y")
	want := []model.Problem{{Task: "x", Field: filepath.Join(dir, "b.yaml"), Error: "another entry describes this task, in " + filepath.Join(dir, "a.yaml")}}
	if d := cmp.Diff(want, s.Problems); d != "" {
		t.Error(d)
	}
	if app, ok := s.Apps.Get(model.AppKey{FrameworkID: "file:static", Name: "one"}); !ok || len(app.Tasks) != 2 {
		t.Errorf("app one: %+v", app)
	}
}

func TestAFileTooLargeIsNotRead(t *testing.T) {
	cfg := noReread()
	cfg.MaxSize = 100
	path := filepath.Join(t.TempDir(), "a.yaml")
	write(t, path, strings.Repeat("#", 101))
	s := follow(t, cfg, path).tasks()
	if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Error, "larger than 100 bytes") {
		t.Errorf("%v", s.Problems)
	}
}

func TestWithoutPathsThereIsNothingToDo(t *testing.T) {
	if err := New(DefaultConfig(), zaptest.NewLogger(t), nil).Run(t.Context(), nil); err == nil {
		t.Error("Run took no paths for a configuration")
	}
}

// TestFilesRandomWalk changes files at random: what is known then equals what a
// fresh reading says, and what did not change kept its pointer.
func TestFilesRandomWalk(t *testing.T) {
	for seed := range uint64(20) {
		rnd, dir := rand.New(rand.NewPCG(seed, 3)), t.TempDir()
		s := New(Config{Paths: []string{dir}, MaxSize: 1 << 20}, zaptest.NewLogger(t), nil)
		for range 40 {
			path := filepath.Join(dir, fmt.Sprint(rnd.IntN(4), ".yaml"))
			switch rnd.IntN(5) {
			case 0:
				os.Remove(path)
			default:
				var names []string
				for i := range 6 {
					if rnd.IntN(2) == 0 {
						names = append(names, fmt.Sprint("s", i, ", labels: {v: '", rnd.IntN(3), "'}"))
					}
				}
				write(t, path, services(names...))
			}
			before := s.last
			s.last = s.read()
			fresh := New(s.cfg, zaptest.NewLogger(t), nil).read()
			if d := cmp.Diff(flat(fresh), flat(s.last), cmp.Comparer(func(a, b model.AppKey) bool { return a == b })); d != "" {
				t.Fatalf("seed %d (-fresh +now):\n%s", seed, d)
			}
			if before == nil {
				continue
			}
			for c := range model.Diff(before.Apps, s.last.Apps) {
				if c.InOld && c.InNew && cmp.Equal(texts(c.Old), texts(c.New)) {
					t.Fatalf("seed %d: %v changed its pointer for nothing", seed, c.Key)
				}
			}
		}
	}
}

func texts(a *model.App) []string {
	var out []string
	for _, t := range a.Tasks {
		out = append(out, fmt.Sprintf("%+v", *t.Discovery), fmt.Sprintf("%v %v %v", t.Key, t.Addrs, t.Labels))
	}
	return out
}

func flat(s *model.Snapshot) map[string][]string {
	out := map[string][]string{}
	for key, app := range s.Apps.All() {
		out[key.Name] = texts(app)
	}
	for _, p := range s.Problems {
		out["problems"] = append(out["problems"], fmt.Sprint(p))
	}
	return out
}
