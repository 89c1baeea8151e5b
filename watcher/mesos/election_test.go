package mesos

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"waggle/model"
	"waggle/watcher/mesos/mesostest"
	"waggle/watcher/zk"
	"waggle/watcher/zk/zktest"
)

// polls is an Election whose outcome a test sends.
type polls chan []zk.Member

func (p polls) Run(ctx context.Context, elected func([]zk.Member)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-p:
			elected(m)
		}
	}
}

// members are candidates, the leader first.
func members(list ...*mesostest.Master) []zk.Member {
	var out []zk.Member
	for _, m := range list {
		out = append(out, zk.Member{Addr: m.Addr().String(), Hostname: m.Addr().Addr().String(), ID: m.Addr().String()})
	}
	return out
}

// ledBy is a want: these tasks, from that leader.
func ledBy(m *mesostest.Master, ids ...string) func(*model.Snapshot) string {
	return func(s *model.Snapshot) string {
		if s.Leader != m.Addr() {
			return "leader is " + s.Leader.String()
		}
		return shows(ids...)(s)
	}
}

func TestAnElectedLeaderIsFollowed(t *testing.T) {
	one, two := serve(t, picture), serve(t, picture)
	election := make(polls)
	cfg := soon()
	cfg.Election = election
	f := follow(t, cfg)
	election <- members(one, two)
	s := f.until(ledBy(one, "1", "2"))
	if want := []netip.AddrPort{one.Addr(), two.Addr()}; !slices.Equal(s.Masters, want) {
		t.Errorf("masters are %v, want %v", s.Masters, want)
	}

	// Another leads: its picture replaces the old one, and nothing is missing
	// before. The old stream goes on as that of a leader that hangs.
	two.SetPicture(mesostest.Subscribed(15, objects{agentA, agentB}, objects{fw}, []mesostest.Task{task2}))
	election <- members(two)
	f.until(ledBy(two, "2"))
	if err := one.WaitStreams(t.Context(), 0); err != nil {
		t.Error(err)
	}

	// Others come and go: the stream stays, and they are named at once.
	before := f.counter("waggle_mesos_reconnects_total")
	election <- members(two, one)
	f.until(func(s *model.Snapshot) string {
		if len(s.Masters) != 2 {
			return "two masters"
		}
		return ""
	})
	if n := f.counter("waggle_mesos_reconnects_total"); n != before {
		t.Errorf("the stream was lost %v times", n-before)
	}
}

func TestAnElectionFreesFromAMasterThatHangs(t *testing.T) {
	hangs, leads := serve(t, nil), serve(t, picture)
	hangs.Hang()
	election := make(polls)
	cfg := soon(hangs.Addr().String()) // and no time limit that a test could wait for
	cfg.Election = election
	f := follow(t, cfg)
	eventually(t, "it is asked", func() bool { return hangs.Asked() > 0 })
	election <- members(leads)
	f.until(ledBy(leads, "1", "2"))
}

// TestALeaderFoundBeforeItsElectionIsKept: masters know a new leader before a
// dead one's node has gone from ZooKeeper.
func TestALeaderFoundBeforeItsElectionIsKept(t *testing.T) {
	dead, leads := serve(t, nil), serve(t, picture)
	dead.Redirect(leads.Addr().String())
	election := make(polls)
	cfg := soon()
	cfg.Election = election
	f := follow(t, cfg)
	election <- members(dead, leads)
	f.until(ledBy(leads, "1", "2"))
	election <- members(leads)
	election <- members(leads, dead)
	f.until(func(s *model.Snapshot) string {
		if s.Masters[0] != leads.Addr() {
			return "the elected leader first"
		}
		return ""
	})
	if n := f.counter("waggle_mesos_reconnects_total"); n != 0 {
		t.Errorf("the stream was lost %v times", n)
	}
}

// TestMastersAreFoundInZooKeeper goes through what happens to a real ensemble:
// nothing that ZooKeeper suffers takes a task away.
func TestMastersAreFoundInZooKeeper(t *testing.T) {
	e := zktest.Start(t, 1)
	one, two := serve(t, picture), serve(t, picture)
	first, second := e.Client(""), e.Client("")
	first.Make("/mesos")
	first.Master("/mesos", one.Addr())
	second.Master("/mesos", two.Addr())

	zcfg := zk.DefaultConfig()
	var err error
	if zcfg.Location, err = zk.Parse(e.URL("/mesos")); err != nil {
		t.Fatal(err)
	}
	zcfg.Resolve, zcfg.SessionTimeout, zcfg.MaxBackoff = fakeResolve, 2*time.Second, 200*time.Millisecond
	detector := zk.New(zcfg, zaptest.NewLogger(t), nil)
	cfg := soon()
	cfg.Election = detector
	f := follow(t, cfg)
	f.until(ledBy(one, "1", "2"))

	e.Kill()
	eventually(t, "ZooKeeper is gone", func() bool { return !detector.Status().Connected })
	one.Send(mesostest.TaskUpdated(in(task1, "TASK_FINISHED")))
	f.until(ledBy(one, "2")) // the stream goes on
	one.Refuse(http.StatusServiceUnavailable, "no leader")
	one.Cut()
	f.until(ledBy(two, "1", "2")) // any known master may lead now
	n, _, _ := f.published()
	two.Refuse(http.StatusServiceUnavailable, "no leader")
	two.Cut()
	eventually(t, "nobody leads", func() bool { return strings.Contains(f.lastErr(), "503") })
	if now, s, _ := f.published(); now != n || len(tasksOf(s)) != 2 {
		t.Errorf("%d Snapshots came out of nothing, the last with %d tasks", now-n, len(tasksOf(s)))
	}

	one.SetAnswer(nil)
	e.Restart()
	f.until(ledBy(one, "1", "2"))
	two.SetAnswer(nil)
	first.Close()
	f.until(ledBy(two, "1", "2"))
}

func (f *follower) lastErr() string {
	if err := f.Status().Err; err != nil {
		return err.Error()
	}
	return ""
}
