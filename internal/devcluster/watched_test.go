package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"waggle/model"
	"waggle/watcher/mesos"
)

// watched runs the daemon's own source on a cluster and returns where its last
// Snapshot is.
func watched(tb testing.TB, c *Cluster) *atomic.Pointer[model.Snapshot] {
	tb.Helper()
	cfg := mesos.DefaultConfig()
	cfg.MinBackoff, cfg.MaxBackoff = 10*time.Millisecond, 50*time.Millisecond
	for _, m := range c.Masters() {
		cfg.Masters = append(cfg.Masters, m.String())
	}
	source, err := mesos.New(cfg, zap.NewNop(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	var last atomic.Pointer[model.Snapshot]
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx, func(s *model.Snapshot) { last.Store(s) }) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			tb.Errorf("the source returned %v", err)
		}
	})
	return &last
}

// seen is what a Snapshot says of the tasks that run: endpoint and health.
func seen(s *model.Snapshot) map[string]string {
	out := map[string]string{}
	if s == nil {
		return out
	}
	for _, a := range s.Apps.All() {
		for _, t := range a.Tasks {
			if t.State == model.Running {
				out[t.Key.ID] = fmt.Sprint(t.Endpoints(t.Ports[0]), t.Health)
			}
		}
	}
	return out
}

// running is the same from the cluster's own view.
func running(c *Cluster) map[string]string {
	out := map[string]string{}
	for _, t := range c.Tasks() {
		if t.State == stateRunning {
			at := netip.AddrPortFrom(c.cfg.AgentAddr, uint16(t.Ports[0]))
			out[t.ID] = fmt.Sprint([]netip.AddrPort{at}, t.Health)
		}
	}
	return out
}

func TestTheDaemonsSourceSeesWhatRuns(t *testing.T) {
	cfg := quick()
	cfg.Masters = 2
	cfg.ReregisterDelay = 50 * time.Millisecond
	c := start(t, cfg)
	last := watched(t, c)
	agree := func(what string) {
		t.Helper()
		eventually(t, what, func() bool { return cmp.Equal(running(c), seen(last.Load())) })
	}
	deploy(t, c, `{"id": "/g/web", "cmd": "exec sleep 100", "instances": 3, "healthChecks": [{"protocol": "COMMAND", "command": {"value": "true"}}]}`)
	deploy(t, c, `{"id": "/bridge", "cmd": "exec sleep 100", "container": {"type": "DOCKER", "docker": {"image": "i", "network": "BRIDGE", "portMappings": [{"containerPort": 80}]}}}`)
	deploy(t, c, `{"id": "/overlay", "cmd": "exec sleep 100", "networks": [{"mode": "container", "name": "n"}], "container": {"type": "MESOS", "portMappings": [{"containerPort": 31888}]}}`)
	for _, id := range []string{"/g/web", "/bridge", "/overlay"} {
		healthy(t, c, id)
	}
	agree("three apps seen")
	if len(running(c)) != 5 {
		t.Errorf("%d tasks run, want 5", len(running(c)))
	}

	if err := c.Scale("/g/web", 10); err != nil {
		t.Fatal(err)
	}
	healthy(t, c, "/g/web")
	agree("scaled up")

	before := running(c)
	if err := c.Elect(1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new leader followed", func() bool { return last.Load().Leader == c.Masters()[1] })
	agree("after the failover")
	if diff := cmp.Diff(before, seen(last.Load())); diff != "" {
		t.Errorf("the failover lost or changed tasks (-before +after):\n%s", diff)
	}

	if err := c.Scale("/g/web", 2); err != nil {
		t.Fatal(err)
	}
	healthy(t, c, "/g/web")
	if err := c.Remove("/bridge"); err != nil {
		t.Fatal(err)
	}
	until(t, c, "no bridge left", func() bool {
		return !slices.ContainsFunc(c.Tasks(), func(t TaskStatus) bool { return t.App == "/bridge" })
	})
	agree("scaled down")
	if p := last.Load().AllProblems(); len(p) > 0 {
		t.Errorf("problems: %+v", p)
	}
}
