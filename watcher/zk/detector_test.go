package zk_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"waggle/watcher/zk"
	"waggle/watcher/zk/zktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// detector is a running Detector and what it told.
type detector struct {
	*zk.Detector
	tb testing.TB

	mu   sync.Mutex // guards the following
	told [][]zk.Member
}

// detect follows url until the test ends. Sessions are short.
func detect(tb testing.TB, url string) *detector {
	tb.Helper()
	loc, err := zk.Parse(url)
	if err != nil {
		tb.Fatal(err)
	}
	cfg := zk.DefaultConfig()
	cfg.Location, cfg.SessionTimeout, cfg.HandshakeTimeout = loc, 2*time.Second, time.Second
	cfg.MinBackoff, cfg.MaxBackoff = 10*time.Millisecond, 200*time.Millisecond
	cfg.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == "zk.test" {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
		return nil, errors.New("no such host: " + host)
	}
	d := &detector{Detector: zk.New(cfg, zaptest.NewLogger(tb), prometheus.NewRegistry()), tb: tb}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Run(ctx, d.elected) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			tb.Errorf("Run ended with %v", err)
		}
	})
	return d
}

func (d *detector) elected(members []zk.Member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told = append(d.told, members)
}

// leaders are the addresses of those who led, one after the other.
func (d *detector) leaders() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, m := range d.told {
		if len(out) == 0 || out[len(out)-1] != m[0].Addr {
			out = append(out, m[0].Addr)
		}
	}
	return out
}

// members are the addresses of the candidates last told of.
func (d *detector) members() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	if n := len(d.told); n > 0 {
		for _, m := range d.told[n-1] {
			out = append(out, m.Addr)
		}
	}
	return out
}

// until waits for what ok says; a loaded machine takes long.
func (d *detector) until(what string, ok func(zk.Status) bool) {
	d.tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(60 * time.Second); !ok(d.Status()); {
		select {
		case <-tick.C:
		case <-deadline:
			d.tb.Fatalf("never: %s; status %+v, leaders %v", what, d.Status(), d.leaders())
		}
	}
}

func (d *detector) untilLeader(addr string) {
	d.tb.Helper()
	d.until(addr+" leads", func(s zk.Status) bool { return s.Leader.Addr == addr && s.Err == nil && s.Connected })
}

// fails is a status with an error that contains text.
func fails(text string) func(zk.Status) bool {
	return func(s zk.Status) bool { return s.Err != nil && strings.Contains(s.Err.Error(), text) }
}

const m1, m2, m3 = "10.0.0.1:5050", "10.0.0.2:5050", "10.0.0.3:5050"

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func (d *detector) wantLeaders(want ...string) {
	d.tb.Helper()
	if diff := cmp.Diff(want, d.leaders(), cmpopts.EquateEmpty()); diff != "" {
		d.tb.Errorf("leaders (-want +got):\n%s", diff)
	}
}

func TestALeaderIsFollowed(t *testing.T) {
	e := zktest.Start(t, 1)
	d := detect(t, e.URL("/dcos/prod/mesos"))
	d.until("the path is said to be missing", fails("/dcos/prod/mesos does not exist"))

	one, two, three := e.Client(""), e.Client(""), e.Client("")
	one.Make("/dcos/prod/mesos")
	d.until("the path is said to be empty", fails("is empty"))
	one.Make("/dcos/prod/mesos/log_replicas")
	one.Master("/dcos/prod/mesos", addr(m1))
	d.untilLeader(m1)
	two.Master("/dcos/prod/mesos", addr(m2))
	three.Master("/dcos/prod/mesos", addr(m3))
	d.until("all three are members", func(s zk.Status) bool { return s.Members == 3 })
	if diff := cmp.Diff([]string{m1, m2, m3}, d.members()); diff != "" {
		t.Error(diff)
	}

	one.Close()
	d.untilLeader(m2)
	three.Close()
	d.until("one is left", func(s zk.Status) bool { return s.Members == 1 })
	two.Close()
	d.until("nobody leads", func(s zk.Status) bool { return errors.Is(s.Err, zk.ErrNoLeader) })
	if s := d.Status(); s.Leader.Addr != m2 || s.Members != 0 {
		t.Errorf("the last leader does not stand: %+v", s)
	}
	e.Client("").Master("/dcos/prod/mesos", addr(m3))
	d.untilLeader(m3)
	d.wantLeaders(m1, m2, m3)
}

func TestOldFormsAndBadDataAreTakenAsTheyAre(t *testing.T) {
	e := zktest.Start(t, 1)
	c := e.Client("")
	c.Make("/mesos")
	text := c.Register("/mesos/", []byte("master@10.0.0.9:5050"))
	old := c.Register("/mesos/info_", []byte("\x0a\x01x\x22\x14master@10.0.0.8:5050"))
	garbage := c.Register("/mesos/json.info_", []byte("{{{"))
	c.Master("/mesos", addr(m1))
	d := detect(t, e.URL("/mesos"))
	d.untilLeader("10.0.0.9:5050")
	if diff := cmp.Diff([]string{"10.0.0.9:5050", "10.0.0.8:5050", m1}, d.members()); diff != "" {
		t.Error(diff)
	}
	c.Delete(text)
	d.untilLeader("10.0.0.8:5050")
	c.Delete(old)
	d.until("the garbage is named", fails(garbage[len("/mesos/"):]))
	if s := d.Status(); s.Leader.Addr != "10.0.0.8:5050" {
		t.Errorf("who leads is unreadable, but the last leader does not stand: %+v", s)
	}
	c.Delete(garbage)
	d.untilLeader(m1)
	d.wantLeaders("10.0.0.9:5050", "10.0.0.8:5050", m1)
}

func TestCredentialsOpenWhatIsHidden(t *testing.T) {
	e := zktest.Start(t, 1)
	c := e.Client("mesos:s3cr@t")
	c.Make("/mesos")
	node := c.Master("/mesos", addr(m1))
	stranger := detect(t, e.URL("/mesos"))
	stranger.untilLeader(m1) // Mesos' own rights let everybody read

	c.Hide(node)
	late, member := detect(t, e.URL("/mesos")), detect(t, e.AuthURL("mesos:s3cr@t", "/mesos"))
	member.untilLeader(m1)
	late.until("it may not read", fails("not authenticated"))
	late.wantLeaders()
	c.Hide("/mesos")
	later := detect(t, e.URL("/mesos"))
	later.until("it may not list", fails("not authenticated"))

	e.Kill()
	member.until("it is cut off", func(s zk.Status) bool { return !s.Connected })
	e.Restart()
	e.Client("mesos:s3cr@t").Master("/mesos", addr(m2))
	member.until("the credentials are handed over again", func(s zk.Status) bool { return s.Members > 0 && s.Connected && s.Err == nil })
}

func TestAServerThatIsNoneIsPassedBy(t *testing.T) {
	e := zktest.Start(t, 1)
	e.Client("").Make("/mesos")
	e.Client("").Master("/mesos", addr(m1))
	good := strings.Split(e.Servers[0].Addr(), ":")[1]
	silent, garbage := listen(t, nil), listen(t, []byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	short := listen(t, []byte{0, 0, 0, 2, 1, 1, 0, 0, 0, 0})
	half := listen(t, []byte{0, 0, 0, 40, 1, 1})
	d := detect(t, "zk://"+strings.Join([]string{silent, garbage, short, half, "nowhere.test:1", "127.0.0.1:1"}, ",")+"/mesos")
	d.until("it says why", fails("not connected"))
	all := detect(t, "zk://"+strings.Join([]string{silent, garbage, short, half, "nowhere.test:1", "zk.test:" + good}, ",")+"/mesos")
	all.untilLeader(m1)
	d.wantLeaders()
}
