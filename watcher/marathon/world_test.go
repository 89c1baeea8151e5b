package marathon

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"waggle/model"
)

// flat is a Snapshot without its order and pointers.
type flat struct {
	Apps     map[string]model.App
	Agents   map[string]model.Agent
	Problems []model.Problem
}

func flatten(s *model.Snapshot) flat {
	f := flat{map[string]model.App{}, map[string]model.Agent{}, s.Problems}
	for key, app := range s.Apps.All() {
		f.Apps[key.Name] = *app
	}
	for id, a := range s.Agents.All() {
		f.Agents[id] = *a
	}
	return f
}

var compareAddrs = gocmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// TestWorldRandomWalk holds what is left after many changes against what is made
// of the last documents alone. What did not change keeps its pointer.
func TestWorldRandomWalk(t *testing.T) {
	paths := []string{"/a", "/b.c/a", "/c/b/a", "/g/web", "/pod"}
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 8))
		w := newWorld(unknownFramework())
		texts := map[string][2]string{} // by path: the document, and whether it is a pod's
		for step := range 80 {
			p := paths[rnd.IntN(len(paths))]
			before := w.snapshot()
			switch rnd.IntN(6) {
			case 0:
				delete(texts, p)
				w.remove(p)
			case 1:
				w.resolved(map[string]netip.Addr{fmt.Sprint("host", rnd.IntN(3)): netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + rnd.IntN(2))})})
			case 2:
				w.replace(collect(t, texts))
				if !same(before, w.snapshot()) {
					t.Fatalf("seed %d step %d: reading the same again changed something:\n%s", seed, step, gocmp.Diff(flatten(before), flatten(w.snapshot()), compareAddrs))
				}
			default:
				texts[p] = randomDocument(rnd, p)
				w.put(collect(t, map[string][2]string{p: texts[p]}).specs[0])
			}
			after := w.snapshot()
			fresh := newWorld(unknownFramework())
			fresh.hosts = maps.Clone(w.hosts)
			fresh.replace(collect(t, texts))
			want, got := flatten(fresh.snapshot()), flatten(after)
			if d := gocmp.Diff(want, got, compareAddrs); d != "" {
				t.Fatalf("seed %d step %d (-from nothing +by changes):\n%s", seed, step, d)
			}
			if len(fresh.wants) != len(w.wants) || len(fresh.alone) != len(w.alone) {
				t.Fatalf("seed %d step %d: %d names wanted and %d lone problems, from nothing %d and %d", seed, step,
					len(w.wants), len(w.alone), len(fresh.wants), len(fresh.alone))
			}
			for c := range model.Diff(before.Apps, after.Apps) {
				if c.InOld && c.InNew && gocmp.Equal(c.Old, c.New, compareAddrs) {
					t.Fatalf("seed %d step %d: %v is the same and has another pointer", seed, step, c.Key)
				}
			}
		}
	}
}

func collect(t *testing.T, texts map[string][2]string) *collection {
	t.Helper()
	var all collection
	for _, p := range slices.Sorted(maps.Keys(texts)) {
		all.take([]byte(texts[p][0]), texts[p][1] != "")
	}
	if len(all.lost) > 0 {
		t.Fatal(all.lost)
	}
	return &all
}

// randomDocument makes an app or pod with up to three tasks, whose checks have
// always spoken: what a world remembers of verdicts is not in the last document.
func randomDocument(rnd *rand.Rand, path string) [2]string {
	tasks, sep := "", ""
	pod := path == "/pod"
	for i := range rnd.IntN(4) {
		id := fmt.Sprintf("%s.%d", strings.ReplaceAll(path[1:], "/", "_"), i)
		agent := rnd.IntN(3)
		host := []string{"10.0.0.9", "host1", "host2"}[agent]
		state := []string{"TASK_RUNNING", "TASK_RUNNING", "TASK_STAGING", "TASK_KILLING", "TASK_FAILED"}[rnd.IntN(5)]
		if pod {
			tasks += sep + fmt.Sprintf(`{"id": %q, "agentHostname": %q, "agentId": "S%d", "networks": [{"addresses": ["10.0.0.9"]}],
				"containers": [{"name": "c", "status": %q, "containerId": %q, "endpoints": [{"name": "e", "allocatedHostPort": %d}]}]}`,
				id, host, agent, state, id+".c", 31000+rnd.IntN(3))
		} else {
			tasks += sep + fmt.Sprintf(`{"id": %q, "host": %q, "slaveId": "S%d", "state": %q, "ports": [%d], "healthCheckResults": [{"alive": true}]}`,
				id, host, agent, state, 31000+rnd.IntN(3))
		}
		sep = ","
	}
	if pod {
		return [2]string{fmt.Sprintf(`{"id": %q, "spec": {"containers": [{"name": "c", "endpoints": [{"name": "e", "hostPort": 0}]}]}, "instances": [%s]}`, path, tasks), "pod"}
	}
	labels := []string{`{}`, `{"k": "v"}`, `{"k": 7}`}[rnd.IntN(3)]
	return [2]string{fmt.Sprintf(`{"id": %q, "labels": %s, "portDefinitions": [{"port": 0, "name": "http"}], "tasks": [%s]}`, path, labels, tasks), ""}
}

// TestAVerdictStandsUntilThereIsAnother: a new leader of Marathon has no results
// of its own checks yet.
func TestAVerdictStandsUntilThereIsAnother(t *testing.T) {
	w := newWorld(unknownFramework())
	read := func(results, checks string) model.Health {
		var all collection
		all.take([]byte(`{"id": "/a", "healthChecks": `+checks+`, "tasks": [{"id": "a.1", "state": "TASK_RUNNING", "healthCheckResults": `+results+`}]}`), false)
		w.replace(&all)
		app, _ := w.snapshot().Apps.Get(model.AppKey{FrameworkID: "marathon", Name: "a"})
		return app.Tasks[0].Health
	}
	for i, step := range []struct {
		results, checks string
		want            model.Health
	}{
		{`[]`, `[{}]`, model.Unhealthy},
		{`[{"alive": true}]`, `[{}]`, model.Healthy},
		{`[]`, `[{}]`, model.Healthy},
		{`[{"alive": false, "consecutiveFailures": 1}]`, `[{}]`, model.Unhealthy},
		{`[]`, `[{}]`, model.Unhealthy},
		{`[{"alive": true}]`, `[{}]`, model.Healthy},
		{`[]`, `[{}, {}]`, model.Unhealthy},
		{`[]`, `[]`, model.HealthUnknown},
	} {
		if got := read(step.results, step.checks); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func TestNamesAreLookedUpNowAndThen(t *testing.T) {
	w := newWorld(unknownFramework())
	var all collection
	all.take([]byte(`{"id": "/a", "tasks": [{"id": "a.1", "host": "n1", "state": "TASK_RUNNING"}, {"id": "a.2", "host": "10.0.0.1", "state": "TASK_RUNNING"}]}`), false)
	w.replace(&all)
	now := time.Now()
	due := func(at time.Time) []string { return slices.SortedFunc(maps.Keys(w.due(at)), cmp.Compare) }
	if got := due(now); !slices.Equal(got, []string{"n1"}) {
		t.Errorf("at first %v", got)
	}
	if got := due(now.Add(time.Second)); len(got) > 0 {
		t.Errorf("a second later %v again", got)
	}
	if got := due(now.Add(lookupRetry)); len(got) != 1 {
		t.Errorf("after a while %v", got)
	}
	w.resolved(map[string]netip.Addr{"n1": netip.MustParseAddr("10.0.0.2")})
	if got := due(now.Add(time.Hour)); len(got) > 0 {
		t.Errorf("once found %v", got)
	}
	w.remove("/a")
	if len(w.agents) > 0 || len(w.specs) > 0 || len(w.keyed) > 0 || len(w.wants) > 0 {
		t.Errorf("of a removed app there are left %v %v %v %v", w.agents, w.specs, w.keyed, w.wants)
	}
}
