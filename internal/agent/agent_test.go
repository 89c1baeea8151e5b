package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"waggle/dns"
	"waggle/lb"
	"waggle/lb/lbtest"
	"waggle/model"
	"waggle/vip"
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

// world is a Snapshot of apps on one agent, each with one port that carries a
// VIP label named as the app, and n tasks.
func world(apps map[string]int) *model.Snapshot {
	groups := model.Groups[model.AppKey, *model.App]{}.Edit()
	for name, n := range apps {
		app := &model.App{Key: model.AppKey{FrameworkID: "F", Name: name}, Framework: "marathon"}
		for i := range n {
			t := &model.Task{
				Key: model.TaskKey{FrameworkID: "F", ID: fmt.Sprintf("%s.%d", name, i)}, Name: name,
				Framework: "marathon", AgentID: "S0", AgentAddr: netip.MustParseAddr("10.0.0.1"),
				State: model.Running, Addrs: []model.Address{{Addr: netip.MustParseAddr("10.0.0.1")}},
			}
			t.Ports = []model.Port{{
				Name: "http", Proto: model.TCP, Number: uint16(8000 + i),
				Labels: []model.Label{{Key: "VIP_0", Value: "/" + name + ":80"}},
			}}
			app.Tasks = append(app.Tasks, t)
		}
		groups.Set(app.Key, app)
	}
	return &model.Snapshot{Apps: groups.Groups()}
}

// frontend is where the VIP named name of world is reached.
func frontend(tb testing.TB, s *State, name string) vip.Frontend {
	tb.Helper()
	for f, svc := range s.Table.Services.All() {
		if svc.Name == name+".marathon" {
			return f
		}
	}
	tb.Fatalf("the Table has no VIP %s", name)
	return vip.Frontend{}
}

func names(z *dns.Zone) []string {
	var out []string
	for _, r := range z.Records() {
		if r.Type == "A" {
			out = append(out, r.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// harness runs an Agent over an in-memory Dataplane inside a synctest bubble.
type harness struct {
	source script
	plane  *lbtest.Dataplane
	agent  *Agent
}

func start(t *testing.T) *harness {
	plane := lbtest.New()
	h := startWith(t, plane)
	h.plane = plane
	return h
}

// startWith runs an Agent over a Dataplane, which may be nil.
func startWith(t *testing.T, plane lb.Dataplane) *harness {
	h := &harness{source: make(script)}
	h.agent = New(DefaultConfig(), h.source, plane, zaptest.NewLogger(t), nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return h
}

func (h *harness) publish(s *model.Snapshot) *State {
	h.source <- s
	synctest.Wait()
	return h.agent.State()
}

func TestAnEventReachesKernelAndNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		synctest.Wait()
		if h.agent.State() != nil || h.agent.Zone() != nil {
			t.Fatal("there is a state before the first Snapshot")
		}
		s := h.publish(world(map[string]int{"web": 2}))
		if n := len(h.plane.Backends(frontend(t, s, "web"))); n != 2 {
			t.Errorf("the kernel balances over %d backends, want 2", n)
		}
		for _, want := range []string{"web.marathon.mesos.", "web.marathon.l4lb.thisdcos.directory."} {
			if !slices.Contains(names(s.Zone), want) {
				t.Errorf("%s is not named", want)
			}
		}
	})
}

func TestARemovedVIPLosesItsNameAtOnceAndRefusesForTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		web := frontend(t, h.publish(world(map[string]int{"web": 1})), "web")
		s := h.publish(world(nil))
		if slices.Contains(names(s.Zone), "web.marathon.l4lb.thisdcos.directory.") {
			t.Error("DNS still names the VIP")
		}
		if !h.plane.Has(web) || len(h.plane.Backends(web)) != 0 {
			t.Error("the kernel does not refuse the VIP")
		}
		<-time.After(DefaultConfig().LB.Grace + time.Second)
		synctest.Wait()
		if h.plane.Has(web) {
			t.Error("the kernel still holds the VIP after the grace")
		}
	})
}

func TestAPartialSnapshotTakesNothingFromTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plane := lbtest.New()
		old := startWith(t, plane)
		web := frontend(t, old.publish(world(map[string]int{"web": 1})), "web")
		next := startWith(t, plane) // as if the daemon had been restarted
		part := world(map[string]int{"new": 1})
		part.Partial = true
		if s := next.publish(part); !plane.Has(web) || !plane.Has(frontend(t, s, "new")) {
			t.Error("a partial Snapshot took a VIP away, or brought none")
		}
		if next.publish(world(map[string]int{"new": 1})); plane.Has(web) {
			t.Error("the VIP stays once all is known")
		}
	})
}

func TestAKernelFaultFreezesVIPNamesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.publish(world(map[string]int{"old": 1}))
		h.plane.Fail(errors.New("map full"))
		s := h.publish(world(map[string]int{"new": 1}))
		got := names(s.Zone)
		for name, want := range map[string]bool{
			"new.marathon.mesos.":                          true,
			"old.marathon.mesos.":                          false,
			"new.marathon.l4lb.thisdcos.directory.":        false,
			"old.marathon.l4lb.thisdcos.directory.":        true,
			"new.marathon.autoip.dcos.thisdcos.directory.": true,
		} {
			if slices.Contains(got, name) != want {
				t.Errorf("%s named: %v, want %v", name, !want, want)
			}
		}
		h.plane.Fail(nil)
		<-time.After(DefaultConfig().RetryAfter + time.Millisecond)
		synctest.Wait()
		if s := h.agent.State(); s.Err != nil || !slices.Contains(names(s.Zone), "new.marathon.l4lb.thisdcos.directory.") {
			t.Errorf("after the retry: %v", s.Err)
		}
	})
}

func TestOneServiceThatFailsLeavesTheOthersAlone(t *testing.T) {
	old := vip.Build(nil, world(map[string]int{"a": 1}), vip.DefaultConfig())
	want := vip.Build(old, world(map[string]int{"a": 2, "b": 1, "c": 1, "d": 1}), vip.DefaultConfig())
	s := &State{Table: want}
	a, b, c, d := frontend(t, s, "a"), frontend(t, s, "b"), frontend(t, s, "c"), frontend(t, s, "d")
	err := errors.Join(&lb.ServiceError{Frontend: a, Err: errors.New("full")}, &lb.ServiceError{Frontend: b, Err: errors.New("full")})

	err = errors.Join(err, &lb.ServiceError{Frontend: d, Err: fmt.Errorf("udp: %w", lb.ErrUnsupported)})

	s.take(old, err)
	if row, _ := s.Applied.Services.Get(a); len(row.Backends) != 1 {
		t.Errorf("a is not as it was before: %+v", row)
	}
	if _, ok := s.Applied.Services.Get(b); ok {
		t.Error("b is named though the kernel never had it")
	}
	if row, _ := s.Applied.Services.Get(c); row == nil {
		t.Error("c is missing")
	}
	if _, ok := s.Applied.Services.Get(d); ok || len(s.Unsupported) != 1 || errors.Is(s.Err, lb.ErrUnsupported) {
		t.Errorf("d can never be balanced: %v, %v", s.Unsupported, s.Err)
	}
	var problems []string
	s.Snapshot = world(nil)
	for _, p := range s.Problems() {
		problems = append(problems, p.Value+" "+p.Error)
	}
	if len(problems) != 3 || len(s.Failed) != 2 || !slices.ContainsFunc(problems, func(p string) bool { return strings.HasPrefix(p, b.Addr.String()) && strings.HasSuffix(p, "full") }) {
		t.Errorf("problems: %q", problems)
	}
	if _, ok := want.Services.Get(b); !ok {
		t.Error("the Table itself was changed")
	}
	if s.take(old, errors.Join(err, errors.New("kernel gone"))); s.Applied != old {
		t.Error("an error that tells nothing of the kernel does not freeze everything")
	}
}

// damaged is a Dataplane whose kernel needs repair.
type damaged struct {
	*lbtest.Dataplane
	repairs atomic.Int32
	err     atomic.Pointer[error]
}

func (d *damaged) Repair(context.Context) error {
	d.repairs.Add(1)
	if err := d.err.Load(); err != nil {
		return *err
	}
	return nil
}

func TestTheKernelIsRepairedAndTurnedAnewIfThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &damaged{Dataplane: lbtest.New()}
		h := startWith(t, d)
		h.publish(world(map[string]int{"web": 1}))
		<-time.After(3*DefaultConfig().RepairEvery + time.Millisecond)
		synctest.Wait()
		if n := d.repairs.Load(); n != 3 || len(d.Plans()) != 1 {
			t.Errorf("%d repairs and %d plans, want 3 and 1", n, len(d.Plans()))
		}
		never := error(&lb.ServiceError{Err: lb.ErrUnsupported})
		for want, err := range map[int]error{1: never, 2: errors.New("map gone")} {
			before := len(d.Plans())
			d.err.Store(&err)
			<-time.After(DefaultConfig().RepairEvery)
			synctest.Wait()
			if n := len(d.Plans()) - before; n != want-1 {
				t.Errorf("%d turns after a repair that said %v, want %d", n, err, want-1)
			}
		}
	})
}

func TestWithoutADataplaneNoVIPIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := names(startWith(t, nil).publish(world(map[string]int{"web": 1})).Zone)
		if !slices.Contains(got, "web.marathon.mesos.") || slices.Contains(got, "web.marathon.l4lb.thisdcos.directory.") {
			t.Errorf("names: %v", got)
		}
	})
}
