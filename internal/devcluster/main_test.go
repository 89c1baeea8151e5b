package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

// The test binary is also the programs that tests need: `waggle dev hello` and
// a cluster that is to be killed.
func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	var err error
	switch {
	case len(os.Args) == 5 && os.Args[2] == "hello":
		err = Hello(ctx, os.Args[4], 0, os.Stdout)
	case os.Getenv("DEVCLUSTER_VICTIM") != "":
		err = victim(ctx, os.Getenv("DEVCLUSTER_VICTIM"))
	default:
		stop()
		goleak.VerifyTestMain(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// quick is a configuration that keeps tests short. Tasks run as ourselves, for
// nobody cannot reach the test binary.
func quick() Config {
	cfg := DefaultConfig()
	cfg.User = "root"
	cfg.KillDelay = 10 * time.Millisecond
	cfg.KillGrace = 500 * time.Millisecond
	return cfg
}

// start runs a cluster until the test ends.
func start(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	c, err := New(cfg, zaptest.NewLogger(tb, zaptest.Level(zap.DebugLevel)))
	if err != nil {
		tb.Fatal(err)
	}
	runUntilCleanup(tb, c)
	return c
}

func runUntilCleanup(tb testing.TB, c *Cluster) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			tb.Errorf("Run returned %v", err)
		}
	})
}

func parse(tb testing.TB, definition string) App {
	tb.Helper()
	var a App
	if err := json.Unmarshal([]byte(definition), &a); err != nil {
		tb.Fatal(err)
	}
	return a
}

func deploy(tb testing.TB, c *Cluster, definition string) {
	tb.Helper()
	if err := c.Deploy(parse(tb, definition)); err != nil {
		tb.Fatal(err)
	}
}

func healthy(tb testing.TB, c *Cluster, id string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.WaitHealthy(ctx, id); err != nil {
		tb.Fatal(err)
	}
}

// until waits for cond, which looks at the cluster.
func until(tb testing.TB, c *Cluster, what string, cond func() bool) {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed := c.Changed()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			tb.Fatalf("%s: not within 20 s; apps %+v, tasks %+v", what, c.Apps(), c.Tasks())
		}
	}
}

// eventually polls something outside of the cluster.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("%s: not within 20 s", what)
		}
	}
}
