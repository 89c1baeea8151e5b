package devcluster

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"waggle/internal/testnet"
)

// victim runs a cluster with one app, prints the sandbox once it runs, and
// waits to be killed.
func victim(ctx context.Context, definition string) error {
	cfg := quick()
	cfg.WorkDir = os.Getenv("DEVCLUSTER_DIR")
	c, err := New(cfg, zap.NewNop())
	if err != nil {
		return err
	}
	apps, err := ParseApps([]byte(definition))
	if err != nil {
		return err
	}
	go func() {
		if c.Deploy(apps[0]) == nil && c.WaitHealthy(ctx, apps[0].ID) == nil {
			println("ready")
		}
	}()
	return c.Run(ctx)
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	rest := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
	return strings.Fields(rest)[0] != "Z"
}

// pids reads process ids that tasks wrote to files of a folder below dir.
func pids(tb testing.TB, dir string, want int) []int {
	tb.Helper()
	var out []int
	eventually(tb, "process ids written", func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "*", "pid*"))
		if err != nil {
			tb.Fatal(err)
		}
		out = nil
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				tb.Fatal(err)
			}
			if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
				out = append(out, n)
			}
		}
		return len(out) == want
	})
	return out
}

func gone(tb testing.TB, pids []int) {
	tb.Helper()
	for _, p := range pids {
		eventually(tb, "process "+strconv.Itoa(p)+" gone", func() bool { return !alive(p) })
	}
}

const family = `echo $$ >pid1; sh -c 'trap "" TERM; echo $$ >pid2; while :; do sleep 1; done' & while :; do sleep 1; done`

func TestNoProcessOutlivesTheCluster(t *testing.T) {
	dir := t.TempDir()
	cfg := quick()
	cfg.WorkDir = dir
	var found []int
	t.Run("running", func(t *testing.T) {
		c := start(t, cfg)
		app := parse(t, `{"id": "/family", "cmd": "x", "instances": 2}`)
		app.Cmd = family
		if err := c.Deploy(app); err != nil {
			t.Fatal(err)
		}
		found = pids(t, dir, 4)
	})
	for _, p := range found {
		if alive(p) {
			t.Errorf("process %d is alive after Run has returned", p)
		}
	}
}

func TestNoProcessOutlivesAClusterThatIsKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	definition := `{"id": "/family", "cmd": ` + strconv.Quote(family) + `}`
	cmd.Env = append(os.Environ(), "DEVCLUSTER_VICTIM="+definition, "DEVCLUSTER_DIR="+dir)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stderr).ReadString('\n'); err != nil || line != "ready\n" {
		t.Errorf("the cluster said %q (%v)", line, err)
	}
	found := pids(t, dir, 2)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	gone(t, found)
}

func TestHowAProcessEnds(t *testing.T) {
	s, err := newSpawner()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	tests := []struct {
		name, cmd string
		stop      bool // when it has written a line
		want      string
		grace     time.Duration // a minute if there is none
	}{
		{name: "exit status 0 is no error", cmd: "true"},
		{name: "another exit status is told", cmd: "exit 3", want: "command exited with status 3"},
		{name: "a signal is told", cmd: "kill -9 $$", want: "command terminated with signal Killed"},
		{name: "SIGTERM stops it", cmd: "echo; exec sleep 100", stop: true, want: "command terminated with signal Terminated"},
		{name: "SIGKILL stops what ignores SIGTERM", cmd: "trap '' TERM; echo; while :; do sleep 1; done", stop: true, want: "command terminated with signal Killed", grace: 300 * time.Millisecond},
		{name: "it may end in order on SIGTERM", cmd: "trap 'exit 0' TERM; echo; while :; do sleep 0.01; done", stop: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			dir := t.TempDir()
			c := command{argv: shell(tt.cmd), dir: dir, user: "root", grace: time.Minute}
			if tt.grace > 0 {
				c.grace = tt.grace
			}
			result := make(chan error, 1)
			go func() { result <- s.run(ctx, c, func(int) {}) }()
			if tt.stop {
				eventually(t, "a line written", func() bool {
					data, _ := os.ReadFile(filepath.Join(dir, "stdout"))
					return len(data) > 0
				})
				cancel()
			}
			got := ""
			if err := <-result; err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestATaskRunsAsNobodyInASandboxOfItsOwn(t *testing.T) {
	testnet.NeedRoot(t) // to become somebody else
	cfg := quick()
	cfg.User = "nobody"
	c := start(t, cfg)
	deploy(t, c, `{"id": "/who/am-i", "cmd": "id -un; pwd; touch mine; exec sleep 100", "env": {"GREETING": "hi"}}`)
	deploy(t, c, `{"id": "/root", "cmd": "id -un; exec sleep 100", "user": "root"}`)
	for id, want := range map[string]string{"/who/am-i": "nobody\n", "/root": "root\n"} {
		healthy(t, c, id)
		for _, task := range c.Tasks() {
			if task.App != id {
				continue
			}
			if id == "/who/am-i" {
				want += task.Sandbox + "\n"
			}
			eventually(t, "output of "+id, func() bool {
				data, err := os.ReadFile(filepath.Join(task.Sandbox, "stdout"))
				return err == nil && cmp.Diff(want, string(data)) == ""
			})
		}
	}
}

func TestTheLastLineOfAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stderr")
	for text, want := range map[string]string{
		"":                                "",
		"one":                             "one",
		"one\ntwo\n\n":                    "two",
		"\n\n":                            "",
		"a\n" + strings.Repeat("x", 5000): strings.Repeat("x", 200),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastLine(file); got != want {
			t.Errorf("lastLine of %.20q: got %q, want %q", text, got, want)
		}
	}
	if got := lastLine(file + ".not"); got != "" {
		t.Errorf("lastLine of no file: got %q", got)
	}
}
