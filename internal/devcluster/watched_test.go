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
	"waggle/watcher"
	"waggle/watcher/marathon"
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
	return published(tb, source)
}

// watchedMarathon is watched by the source that reads Marathon.
func watchedMarathon(tb testing.TB, c *Cluster) *atomic.Pointer[model.Snapshot] {
	tb.Helper()
	return published(tb, newMarathonSource(tb, c))
}

func newMarathonSource(tb testing.TB, c *Cluster) watcher.Source {
	tb.Helper()
	cfg := marathon.DefaultConfig()
	cfg.MinBackoff, cfg.MaxBackoff = 10*time.Millisecond, 50*time.Millisecond
	cfg.Hosts = []string{c.MarathonAddr().String()}
	source, err := marathon.New(cfg, zap.NewNop(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	return source
}

// published runs a source and returns where its last Snapshot is.
func published(tb testing.TB, source watcher.Source) *atomic.Pointer[model.Snapshot] {
	tb.Helper()
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

// TestMarathonTellsOfTheSameTasks holds the tasks that are read from Marathon
// against those of Mesos, field by field.
func TestMarathonTellsOfTheSameTasks(t *testing.T) {
	c := start(t, quick())
	mesosSays, marathonSays := watched(t, c), watchedMarathon(t, c)
	defer func() {
		if a, b := mesosSays.Load(), marathonSays.Load(); t.Failed() && a != nil && b != nil {
			t.Logf("-mesos +marathon:\n%s", cmp.Diff(tasksOf(a), tasksOf(b), compareAddrs))
		}
	}()
	agree := func(what string) {
		t.Helper()
		eventually(t, what, func() bool {
			a, b := mesosSays.Load(), marathonSays.Load()
			return a != nil && b != nil && len(tasksOf(a)) == len(c.Tasks()) && cmp.Equal(tasksOf(a), tasksOf(b), compareAddrs)
		})
	}
	deploy(t, c, `{"id": "/g/web", "cmd": "exec sleep 100", "instances": 3, "labels": {"k": "v"},
		"portDefinitions": [{"port": 0, "name": "http", "labels": {"VIP_0": "/web:80"}}, {"port": 0, "protocol": "udp,tcp"}],
		"healthChecks": [{"protocol": "COMMAND", "command": {"value": "true"}}]}`)
	deploy(t, c, `{"id": "/bridge", "cmd": "exec sleep 100", "networks": [{"mode": "container/bridge"}], "container": {"type": "DOCKER", "docker": {"image": "i"}, "portMappings": [{"containerPort": 80, "name": "http"}]}}`)
	for _, id := range []string{"/g/web", "/bridge"} {
		healthy(t, c, id)
	}
	agree("both see two apps")
	if err := c.Scale("/g/web", 6); err != nil {
		t.Fatal(err)
	}
	healthy(t, c, "/g/web")
	agree("both see more")
	if err := c.Remove("/bridge"); err != nil {
		t.Fatal(err)
	}
	agree("both see an app less")
	for _, key := range []string{"/g/web"} {
		if err := c.Remove(key); err != nil {
			t.Fatal(err)
		}
	}
	until(t, c, "nothing runs", func() bool { return len(c.Tasks()) == 0 })
	agree("both see nothing")
}

var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// tasksOf returns the tasks that have not ended, without what only one scheduler
// has a place for.
func tasksOf(s *model.Snapshot) map[string]model.Task {
	out := map[string]model.Task{}
	for _, a := range s.Apps.All() {
		for _, task := range a.Tasks {
			if task.State == model.Terminal {
				continue
			}
			one := *task
			one.Ports = slices.Clone(one.Ports)
			for i := range one.Ports {
				one.Ports[i].ServicePort = 0
			}
			d := *one.Discovery
			d.Ports = slices.Clone(d.Ports)
			for i := range d.Ports {
				d.Ports[i].ServicePort = 0
			}
			one.Discovery = &d
			out[one.Key.ID] = one
		}
	}
	return out
}

// TestMarathonAddsTheVerdictsOfItsOwnChecks: Mesos never hears of them.
func TestMarathonAddsTheVerdictsOfItsOwnChecks(t *testing.T) {
	c := start(t, quick())
	cfg := mesos.DefaultConfig()
	cfg.Masters = []string{c.Masters()[0].String()}
	first, err := mesos.New(cfg, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	together := published(t, watcher.NewMerge(watcher.DefaultPatience, first, watcher.Supplement{Source: newMarathonSource(t, c)}))
	deploy(t, c, `{"id": "/sick", "cmd": "exec sleep 100", "portDefinitions": [{"port": 10001, "name": "http"}],
		"healthChecks": [{"protocol": "TCP", "gracePeriodSeconds": 0, "intervalSeconds": 1, "timeoutSeconds": 1, "maxConsecutiveFailures": 0}]}`)
	eventually(t, "unhealthy, with a service port", func() bool {
		if together.Load() == nil {
			return false
		}
		for _, a := range together.Load().Apps.All() {
			return a.Tasks[0].State == model.Running && a.Tasks[0].Health == model.Unhealthy && a.Tasks[0].Ports[0].ServicePort == 10001
		}
		return false
	})
	if err := c.Remove("/sick"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "gone with Mesos' word", func() bool { return len(tasksOf(together.Load())) == 0 })
}
