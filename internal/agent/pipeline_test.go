package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/dns"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// walk is a world that changes at random: agents, frameworks, apps and their
// tasks.
type walk struct {
	rnd  *rand.Rand
	snap *model.Snapshot
}

func (w *walk) step() {
	next := *w.snap
	apps, agents, frameworks := next.Apps.Edit(), next.Agents.Edit(), next.Frameworks.Edit()
	for range 1 + w.rnd.IntN(3) {
		key := model.AppKey{FrameworkID: fmt.Sprint("F", w.rnd.IntN(2)), Name: fmt.Sprint("app", w.rnd.IntN(8))}
		old, _ := apps.Get(key)
		if w.rnd.IntN(4) == 0 {
			apps.Delete(key)
		} else {
			apps.Set(key, w.app(key, old))
		}
	}
	if id := fmt.Sprint("S", w.rnd.IntN(3)); w.rnd.IntN(3) == 0 {
		agents.Set(id, &model.Agent{ID: id, Addr: addr(10, w.rnd.IntN(3)), Port: 5051})
	} else if w.rnd.IntN(6) == 0 {
		agents.Delete(id)
	}
	if id := fmt.Sprint("F", w.rnd.IntN(2)); w.rnd.IntN(6) == 0 {
		frameworks.Set(id, &model.Framework{ID: id, Name: "marathon", Addr: addr(10, w.rnd.IntN(3)), Port: 8080})
	}
	if w.rnd.IntN(6) == 0 {
		next.Leader = netip.AddrPortFrom(addr(10, w.rnd.IntN(3)), 5050)
	}
	next.Apps, next.Agents, next.Frameworks = apps.Groups(), agents.Groups(), frameworks.Groups()
	w.snap = &next
}

func addr(net, host int) netip.Addr { return netip.AddrFrom4([4]byte{byte(net), 0, 0, byte(1 + host)}) }

// app returns an app that shares some tasks with old, which may be nil.
func (w *walk) app(key model.AppKey, old *model.App) *model.App {
	app := &model.App{Key: key, Framework: "marathon"}
	for i := range 4 {
		id := fmt.Sprintf("%s.%d", key.Name, i)
		if old != nil && w.rnd.IntN(2) == 0 {
			app.Tasks = append(app.Tasks, slices.DeleteFunc(slices.Clone(old.Tasks), func(t *model.Task) bool { return t.Key.ID != id })...)
		} else if w.rnd.IntN(2) == 0 {
			app.Tasks = append(app.Tasks, w.task(key, id))
		}
	}
	if len(app.Tasks) == 0 {
		app.Tasks = append(app.Tasks, w.task(key, key.Name+".0"))
	}
	return app
}

func (w *walk) task(key model.AppKey, id string) *model.Task {
	t := &model.Task{
		Key: model.TaskKey{FrameworkID: key.FrameworkID, ID: id}, Name: key.Name, Framework: "marathon",
		AgentID: "S0", AgentAddr: addr(10, w.rnd.IntN(3)), State: model.TaskState(w.rnd.IntN(4)), Health: model.Health(w.rnd.IntN(3)),
		Addrs: []model.Address{{Addr: addr(9, w.rnd.IntN(20))}},
		Discovery: &model.Discovery{Name: key.Name, Ports: []model.DiscoveryPort{{
			Number: int64(w.rnd.IntN(3)), Name: "http", Protocol: "tcp",
			Labels: []model.Label{{Key: "VIP_0", Value: fmt.Sprintf("/vip%d:80", w.rnd.IntN(10))}},
		}}},
	}
	t.Ports, _ = model.JoinPorts(t)
	return t
}

// TestThePipelineBuiltStepByStepEqualsOneBuiltAtOnce walks a world through every
// stage. What each stage made of the steps is what it makes of the last world
// alone, and what the step did not touch is the same pointer as before.
func TestThePipelineBuiltStepByStepEqualsOneBuiltAtOnce(t *testing.T) {
	cfg := DefaultConfig()
	now := time.Unix(0, 0)
	for seed := range uint64(4) {
		w := &walk{rnd: rand.New(rand.NewPCG(seed, 11)), snap: &model.Snapshot{}}
		s := &State{}
		for step := range 60 {
			w.step()
			now = now.Add(time.Second)
			prev := s
			s = &State{Snapshot: w.snap, Table: vip.Build(prev.Table, w.snap, cfg.VIP)}
			s.Plan = lb.Build(prev.Plan, s.Table, cfg.LB, now)
			s.Zone = dns.Build(prev.Zone, w.snap, s.Table, cfg.DNS)

			fresh := vip.Build(nil, w.snap, cfg.VIP)
			where := fmt.Sprintf("seed %d step %d", seed, step)
			if d := cmp.Diff(said(fresh.Services), said(s.Table.Services)); d != "" {
				t.Fatalf("%s: Table (-fresh +stepwise):\n%s", where, d)
			}
			if d := cmp.Diff(fresh.Problems(), s.Table.Problems()); d != "" {
				t.Fatalf("%s: problems (-fresh +stepwise):\n%s", where, d)
			}
			if d := cmp.Diff(live(lb.Build(nil, fresh, cfg.LB, now)), live(s.Plan)); d != "" {
				t.Fatalf("%s: Plan (-fresh +stepwise):\n%s", where, d)
			}
			if d := cmp.Diff(dns.Build(nil, w.snap, fresh, cfg.DNS).Records(), s.Zone.Records()); d != "" {
				t.Fatalf("%s: Zone (-fresh +stepwise):\n%s", where, d)
			}
			if prev.Table != nil {
				sharing(t, where, prev, s)
			}
		}
	}
}

// said says what rows hold.
func said[V any](g model.Groups[vip.Frontend, *V]) map[string]string {
	out := map[string]string{}
	for f, s := range g.All() {
		out[fmt.Sprint(f)] = fmt.Sprintf("%+v", *s)
	}
	return out
}

// live says what a Plan balances: the services that have left are history.
func live(p *lb.Plan) map[string]string {
	out := map[string]string{}
	for f, s := range p.Services.All() {
		if s.Retired.IsZero() {
			out[fmt.Sprint(f)] = fmt.Sprintf("%+v", *s)
		}
	}
	return out
}

// sharing fails if a row that says what it said is another pointer, or if one
// changed whose app did not.
func sharing(t *testing.T, where string, prev, s *State) {
	t.Helper()
	touched := map[string]bool{}
	for c := range model.Diff(prev.Snapshot.Apps, s.Snapshot.Apps) {
		for _, app := range []*model.App{c.Old, c.New} {
			if app == nil {
				continue
			}
			for _, task := range app.Tasks {
				for _, p := range task.Ports {
					name, _, _ := strings.Cut(strings.TrimPrefix(p.Labels[0].Value, "/"), ":")
					touched[name+".marathon"] = true
				}
			}
		}
	}
	for c := range model.Diff(prev.Table.Services, s.Table.Services) {
		switch {
		case c.InOld && c.InNew && fmt.Sprintf("%+v", *c.Old) == fmt.Sprintf("%+v", *c.New):
			t.Fatalf("%s: row %v says the same and is another pointer", where, c.Key)
		case c.InNew && !touched[c.New.Name]:
			t.Fatalf("%s: row %v changed, its apps did not", where, c.New.Name)
		}
	}
	for c := range model.Diff(prev.Plan.Services, s.Plan.Services) {
		if c.InOld && c.InNew && fmt.Sprintf("%+v", *c.Old) == fmt.Sprintf("%+v", *c.New) {
			t.Fatalf("%s: planned service %v says the same and is another pointer", where, c.Key)
		}
	}
}
