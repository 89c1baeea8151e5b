package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"waggle/watcher/mesos/mesostest"
)

// soak is the environment variable with the length of the fault test, and with
// it the strict limits; seed is the one with its seed.
const soak, seed = "WAGGLE_SOAK", "WAGGLE_SEED"

// faultApps is how many apps come and go.
const faultApps = 24

// TestFaults runs the program against real ZooKeeper and three masters while
// these, ZooKeeper, the network and the program itself fail at random. All the
// time: what runs is served, from 1 s after it was told; what ended is not, from
// 1 s after that was told; what is served does not disappear while it runs. In
// the end the program holds no more than in the beginning.
func TestFaults(t *testing.T) {
	f := newFaultTest(t)
	f.observe()
	for start := time.Now(); time.Since(start) < f.length && !t.Failed(); {
		f.once(time.Since(start) > f.length/2)
	}
	f.finish()
}

type faultTest struct {
	*testCluster
	rnd    *rand.Rand
	length time.Duration
	limit  time.Duration // between being told and serving so
	args   []string
	daemon *process
	killed bool // by us

	mu     sync.Mutex // guards the following
	seen   [faultApps]sight
	worst  time.Duration
	checks int
	vips   map[string]netip.AddrPort

	stop chan struct{}
	done sync.WaitGroup
	base usage // what the program held once warm
}

// sight is when an app was last seen to be served, and in which turn.
type sight struct {
	turn int
	at   time.Time
}

func newFaultTest(t *testing.T) *faultTest {
	t.Helper()
	// A loaded machine may stop us all for a second; the soak is run on one that
	// is not.
	f := &faultTest{length: 12 * time.Second, limit: 10 * time.Second, vips: map[string]netip.AddrPort{}, stop: make(chan struct{})}
	if text := os.Getenv(soak); text != "" {
		var err error
		if f.length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", soak, err)
		}
		f.limit = time.Second
	}
	s := uint64(time.Now().UnixNano())
	if text := os.Getenv(seed); text != "" {
		var err error
		if s, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seed, err)
		}
	}
	t.Logf("%s=%d", seed, s)
	f.rnd = rand.New(rand.NewPCG(s, 0))
	n := newNode(t)
	f.testCluster = newTestCluster(t, n, faultApps)
	f.args = n.verb("run", "--mesos.zk", f.zkProxy())
	f.daemon = n.start(t, f.args...)
	return f
}

// observe starts the cluster's life and the checks.
func (f *faultTest) observe() {
	every := func(d time.Duration, what func()) {
		f.done.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for {
				select {
				case <-f.stop:
					return
				case <-tick.C:
					what()
				}
			}
		})
	}
	churn := rand.New(rand.NewPCG(f.rnd.Uint64(), 0))
	every(50*time.Millisecond, func() { f.flip(churn.IntN(faultApps)) })
	every(20*time.Millisecond, f.hear)
	every(heartbeat/2, f.beat)
	var q questioner
	every(50*time.Millisecond, func() { f.check(&q) })
	connect := rand.New(rand.NewPCG(f.rnd.Uint64(), 0))
	every(100*time.Millisecond, func() { f.connect(connect.IntN(faultApps)) })
	f.t.Cleanup(f.end)
	f.mended()
	eventually(f.t, "the daemon follows", f.hears)
}

func (f *faultTest) end() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.done.Wait()
}

// once lets one fault happen and end, and waits until all is well.
func (f *faultTest) once(late bool) {
	faults := f.faults()
	if late {
		faults = faults[1:] // its usage is compared over one life of the program
		if f.base == (usage{}) {
			f.base = f.usage()
		}
	}
	x := faults[f.rnd.IntN(len(faults))]
	hold := time.Duration(f.rnd.Int64N(int64(2 * time.Second)))
	f.t.Logf("%s for %s", x.name, hold)
	x.begin()
	exited := f.daemon.exited
	if f.killed {
		exited = nil
	}
	select {
	case <-time.After(hold):
	case err := <-exited:
		f.daemon.exited <- err
		f.t.Fatalf("the program ended: %v", err)
	}
	x.end()
	f.mended()
	eventually(f.t, "the daemon follows again after: "+x.name, f.hears)
	<-time.After(time.Duration(f.rnd.Int64N(int64(2 * time.Second)))) // some limits are reached before the next
}

type fault struct {
	name       string
	begin, end func()
}

// faults are what may happen; the program's own death is the first.
func (f *faultTest) faults() []fault {
	nothing := func() {}
	woken := make(chan struct{})
	hang := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-woken:
			http.Error(w, "Master has not finished recovery", http.StatusServiceUnavailable)
		case <-r.Context().Done():
		}
	}
	return []fault{
		{"the program is killed", f.killDaemon, f.restartDaemon},
		{"the leader dies", func() { f.dethrone(true) }, f.join},
		{"the leader dies, the next has not heard from the agent", func() { f.forget(); f.dethrone(true) }, func() { f.join(); f.remember() }},
		{"the leader loses its session", func() { f.dethrone(false) }, f.join},
		{"the leader stops talking", func() { f.mute(true) }, func() { f.mute(false) }},
		{"the network is cut", f.cut, f.mend},
		{"ZooKeeper stops answering", f.zk.Servers[0].Pause, f.zk.Servers[0].Resume},
		{"the leader talks garbage", f.garbage, nothing},
		{"the leader sends objects that make no sense", f.nonsense, nothing},
		{"the leader refuses", func() { f.answer(func(m *mesostest.Master) { m.Refuse(503, "Master has not finished recovery") }) }, f.elect},
		{"the leader hangs", func() { f.answer(func(m *mesostest.Master) { m.SetAnswer(http.HandlerFunc(hang)) }) }, func() { f.elect(); close(woken) }},
		{"the stream breaks", func() { f.deafen(underWay); f.masters[0].Cut() }, nothing},
	}
}

// onDisk is how long after it was told something is on the disk, at the latest:
// it is written once a second, and a disk takes its time.
const onDisk = 3 * time.Second

func (f *faultTest) killDaemon() {
	f.deafen(onDisk)
	f.mu.Lock()
	for i := range f.seen { // what may not be on the disk yet has to be told again
		if f.fact(i).told.IsZero() {
			f.seen[i] = sight{}
		}
	}
	f.mu.Unlock()
	f.killed = true
	f.daemon.stop(f.t, syscall.SIGKILL)
	f.masters[0].Cut()
}

func (f *faultTest) restartDaemon() {
	f.daemon, f.killed = f.node.start(f.t, f.args...), false
}

// dethrone takes the first master's node away, and the master too if it dies.
func (f *faultTest) dethrone(dies bool) {
	old := f.masters[0]
	f.masters = f.masters[1:]
	old.session.Close()
	if dies {
		f.deafen(underWay)
		old.Close()
	}
	f.elect()
	if !dies {
		old.Redirect(f.masters[0].addr.String())
		old.Cut()
		f.t.Cleanup(old.Close)
	}
}

func (f *faultTest) mute(on bool) {
	f.deafen(underWay)
	f.testCluster.mu.Lock()
	f.muted = on
	f.testCluster.mu.Unlock()
	if !on {
		f.masters[0].Cut() // what was not said is in the next picture
	}
}

func (f *faultTest) cut() {
	f.mute(true)
	f.node.client.Cut(f.t)
}

func (f *faultTest) mend() {
	f.node.client.Mend(f.t)
	f.mute(false)
}

func (f *faultTest) garbage() {
	f.deafen(underWay)
	junk := make([]byte, 1+f.rnd.IntN(5000))
	for i := range junk {
		junk[i] = byte(f.rnd.Uint32())
	}
	f.masters[0].SendRaw(junk)
	f.masters[0].Cut()
}

// nonsense costs nothing but itself, so the stream goes on.
func (f *faultTest) nonsense() {
	for _, e := range []string{
		`{}`, `{"type":"NO_SUCH_EVENT"}`, `{"type":"TASK_ADDED"}`, `{"type":"TASK_ADDED","task_added":{"task":{"task_id":7}}}`,
		`{"type":"TASK_ADDED","task_added":{"task":{"task_id":{"value":"x"},"framework_id":{"value":"F"},"agent_id":{"value":"S0"},"name":"x","state":[]}}}`,
		`{"type":"AGENT_ADDED","agent_added":{"agent":{"agent_info":{"id":{"value":"S9"},"hostname":"no such host"}}}}`,
		`{"type":"FRAMEWORK_UPDATED","framework_updated":null}`,
	} {
		f.masters[0].Send([]byte(e))
	}
}

func (f *faultTest) answer(set func(*mesostest.Master)) {
	f.deafen(underWay)
	set(f.masters[0].Master)
	f.masters[0].Cut()
}

// questioner asks all its questions from one socket in the node's namespace.
type questioner struct{ conn *dns.Conn }

func (c *questioner) ask(n *node, name string) (*dns.Msg, error) {
	if c.conn == nil {
		if err := n.Do(func() (err error) {
			c.conn, err = dns.DialTimeout("udp", n.addr.String()+":53", time.Second)
			return err
		}); err != nil {
			return nil, err
		}
	}
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	client := dns.Client{Timeout: time.Second}
	r, _, err := client.ExchangeWithConn(m, c.conn)
	if err != nil {
		c.conn.Close()
		c.conn = nil
	}
	return r, err
}

// check asks for every app's name and holds the answer against what is true.
func (f *faultTest) check(q *questioner) {
	for i := range faultApps {
		before := f.fact(i)
		asked := time.Now()
		r, err := q.ask(f.node, appName(i)+".marathon.mesos.")
		if f.fact(i) != before || err != nil || r.Rcode == dns.RcodeServerFailure {
			continue // it has changed meanwhile, or the program is down or starts
		}
		f.judge(i, before, len(r.Answer) > 0, asked)
	}
}

func (f *faultTest) judge(i int, is fact, served bool, asked time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checks++
	seen := f.seen[i]
	late := time.Duration(0)
	if !is.told.IsZero() {
		late = asked.Sub(is.told)
	}
	if served != is.running {
		f.worst = max(f.worst, late)
	}
	switch {
	case served && is.running:
		f.seen[i] = sight{is.turn, asked}
	case served && late > f.limit:
		f.t.Errorf("%s is served %s after its end was told", appName(i), late)
	case !served && is.running && late > f.limit:
		f.t.Errorf("%s is missing %s after it was told", appName(i), late)
	case !served && is.running && seen.turn == is.turn && !seen.at.IsZero():
		f.t.Errorf("%s runs, was served %s ago, and has disappeared", appName(i), asked.Sub(seen.at))
	}
}

// connect makes a connection through the VIP of an app that has been served.
func (f *faultTest) connect(i int) {
	before := f.fact(i)
	f.mu.Lock()
	seen, at := f.seen[i], f.vips[appName(i)]
	f.mu.Unlock()
	if !before.running || seen.turn != before.turn || time.Since(seen.at) > time.Second {
		return
	}
	if !at.IsValid() {
		for name, v := range f.node.vips(f.t) {
			f.mu.Lock()
			f.vips[strings.TrimSuffix(name, ".marathon")] = netip.AddrPortFrom(v.Address, v.Port)
			f.mu.Unlock()
		}
		return
	}
	if err := f.node.greeted(at); err != nil && f.fact(i) == before {
		f.t.Errorf("%s runs, its name is served, its VIP %s is not: %v", appName(i), at, err)
	}
}

// finish waits until everything told is served and compares what the program
// holds with what it held.
func (f *faultTest) finish() {
	f.end()
	now := f.usage()
	if f.base == (usage{}) {
		f.base = now
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.t.Logf("%d answers judged, the latest right one %s after it was told; held %+v, now %+v", f.checks, f.worst.Round(time.Millisecond), f.base, now)
	if f.checks < 500 {
		f.t.Errorf("only %d answers were judged", f.checks)
	}
	if now.fds > f.base.fds+10 || now.goroutines > f.base.goroutines+20 || now.rss > 2*f.base.rss+32<<20 {
		f.t.Errorf("the program has grown from %+v to %+v", f.base, now)
	}
}

// usage is what a process holds.
type usage struct {
	fds, goroutines, rss int
}

func (f *faultTest) usage() usage {
	f.t.Helper()
	pid := f.daemon.cmd.Process.Pid
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	text, errStat := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil || errStat != nil {
		f.t.Fatal(err, errStat)
	}
	pages, _ := strconv.Atoi(strings.Fields(string(text))[1])
	return usage{fds: len(fds), goroutines: f.metric("go_goroutines"), rss: pages * os.Getpagesize()}
}

// metric reads one number of the program's metrics.
func (f *faultTest) metric(name string) int {
	f.t.Helper()
	text, err := f.node.get("/metrics")
	m := regexp.MustCompile(`(?m)^` + name + ` ([0-9.e+]+)$`).FindStringSubmatch(text)
	if err != nil || m == nil {
		f.t.Fatalf("no metric %s: %v", name, err)
	}
	v, _ := strconv.ParseFloat(m[1], 64)
	return int(v)
}
