package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/api"
	"waggle/internal/agent"
	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/model"
	"waggle/watcher"
	"waggle/watcher/mesos"
	"waggle/watcher/mesos/mesostest"
)

// scales are the sizes of cluster that BenchmarkScale compares, in tasks.
var scales = []int{1_000, 10_000, 100_000}

// perApp is how many tasks an app has.
const perApp = 4

// clock notes when the change under way got past a stage.
type clock struct {
	snapshot, kernel atomic.Pointer[time.Time]
}

func stamp(at *atomic.Pointer[time.Time]) {
	now := time.Now()
	at.CompareAndSwap(nil, &now)
}

// timedSource stamps each Snapshot.
type timedSource struct {
	watcher.Source
	clock *clock
}

func (s timedSource) Run(ctx context.Context, publish func(*model.Snapshot)) error {
	return s.Source.Run(ctx, func(snap *model.Snapshot) { stamp(&s.clock.snapshot); publish(snap) })
}

// timedPlane stamps each Plan that the kernel has taken.
type timedPlane struct {
	lb.Dataplane
	clock *clock
}

func (p timedPlane) Apply(ctx context.Context, plan *lb.Plan) error {
	defer stamp(&p.clock.kernel)
	return p.Dataplane.Apply(ctx, plan)
}

// BenchmarkScaleStages measures from the moment a master writes that a task's
// health has changed to the Snapshot, the kernel and the Zone that say so, in
// this process. The cluster is idle otherwise: what is compared is what one
// change costs with that many tasks around it.
func BenchmarkScaleStages(b *testing.B) {
	for _, tasks := range scales {
		b.Run(fmt.Sprint(tasks, "tasks"), func(b *testing.B) {
			r := &rig{ns: testnet.New(b), tasks: apps(tasks)}
			c := &clock{}
			r.master = mesostest.Serve(picture(r.tasks))
			b.Cleanup(r.master.Close)
			cfg := mesos.DefaultConfig()
			cfg.Masters = []string{r.master.Addr().String()}
			source, err := mesos.New(cfg, zap.NewNop(), nil)
			if err != nil {
				b.Fatal(err)
			}
			r.agent = agent.New(agent.DefaultConfig(), timedSource{source, c}, timedPlane{openPlane(b), c}, zap.NewNop(), nil)
			r.run(b)
			r.stages(b, c)
		})
	}
}

// stages flips the health of one task after the other.
func (r *rig) stages(b *testing.B, c *clock) {
	var snapshot, kernel, zone sample
	tick := time.NewTicker(50 * time.Microsecond)
	defer tick.Stop()
	for i := 0; b.Loop(); i++ {
		ill := i%2 == 0
		t := r.tasks[perApp*(i/2)%len(r.tasks)]
		healthy := !ill
		t.Healthy = &healthy
		before := r.agent.State()
		rest() // what is measured is a change that comes alone
		c.snapshot.Store(nil)
		c.kernel.Store(nil)
		start := time.Now()
		r.master.Send(mesostest.TaskUpdated(t))
		for r.agent.State() == before {
			<-tick.C
		}
		snapshot = append(snapshot, c.snapshot.Load().Sub(start))
		kernel = append(kernel, c.kernel.Load().Sub(start))
		zone = append(zone, time.Since(start))
	}
	snapshot.report(b, "snapshot")
	kernel.report(b, "kernel")
	zone.report(b, "zone")
	b.ReportMetric(0, "ns/op")
}

// apps are tasks in apps of a few, each app with a VIP.
func apps(tasks int) []mesostest.Task {
	var out []mesostest.Task
	for i := range tasks {
		app := fmt.Sprint("app", i/perApp)
		out = append(out, mesostest.Task{
			Framework: "F", Agent: fmt.Sprint("S", i%100), ID: fmt.Sprintf("%s.0ef76549-2630-11e8-af52-%012d", app, i%perApp), Name: app,
			State: "TASK_RUNNING", IP: netip.AddrFrom4([4]byte{9, byte(i >> 16), byte(i >> 8), byte(i)}),
			Ports: []mesostest.Port{{Number: 8080, Name: "http", Protocol: "tcp", Labels: []string{"VIP_0", "/" + app + ":80", "network-scope", "container"}}},
		})
	}
	return out
}

func picture(tasks []mesostest.Task) []byte {
	var agents []map[string]any
	for i := range 100 {
		agents = append(agents, mesostest.Agent(fmt.Sprint("S", i), netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})))
	}
	return mesostest.Subscribed(15, agents, []map[string]any{mesostest.Framework("F", "marathon")}, tasks)
}

// BenchmarkScaleProcess runs the program itself on clusters of growing size: how
// long it takes from its start to being ready, from the scheduler and from the
// disk, what it holds in memory, what it costs it to follow updates that come
// one by one, and what in a storm.
func BenchmarkScaleProcess(b *testing.B) {
	bin := filepath.Join(b.TempDir(), "waggle")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/waggle").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for _, tasks := range scales {
		b.Run(fmt.Sprint(tasks, "tasks"), func(b *testing.B) {
			p := &waggleProcess{bin: bin, dir: b.TempDir(), ns: testnet.New(b), tasks: apps(tasks), cgroup: testnet.Cgroup(b)}
			p.ns.Must(b, func() error { p.master = mesostest.Serve(picture(p.tasks)); return nil })
			b.Cleanup(p.master.Close)
			p.measure(b)
		})
	}
}

// waggleProcess is a waggle in a process of its own.
type waggleProcess struct {
	bin, dir, cgroup string
	ns               *testnet.Namespace
	master           *mesostest.Master
	tasks            []mesostest.Task
	cmd              *exec.Cmd
	sent             int
}

func (p *waggleProcess) measure(b *testing.B) {
	for b.Loop() {
		// Without the archive, and after the first look for damage in the kernel,
		// whose shares of a core are bounded by themselves.
		b.ReportMetric(p.start(b, "").Seconds()*1e3, "ready-ms")
		p.flip(b, 1) // the first change copies what later ones share
		p.calm(b)
		b.ReportMetric(p.resident(b), "rss-MB")
		b.ReportMetric(p.updates(b, 200, 5*time.Millisecond), "cpu-µs/update")
		turns := p.turns(b)
		b.ReportMetric(p.updates(b, 2000, time.Millisecond), "cpu-µs/storm-update")
		b.ReportMetric((p.turns(b)-turns)/2, "turns/storm-s")
		p.stop(b)
		lib := filepath.Join(p.dir, "lib")
		p.start(b, lib)
		p.settle(b, lib)
		p.stop(b)
		b.ReportMetric(p.start(b, lib).Seconds()*1e3, "ready-again-ms")
		p.stop(b)
		os.RemoveAll(lib)
	}
	b.ReportMetric(0, "ns/op")
}

// start runs the program with its archive in lib and returns how long it took to
// serve everything.
func (p *waggleProcess) start(b *testing.B, lib string) time.Duration {
	b.Helper()
	p.cmd = exec.Command(p.bin, "run", "--mesos.masters", p.master.Addr().String(), "--dns.listen", "127.0.0.1:53",
		"--http.listen", "", "--http.socket", p.socket(), "--lb.backend", "ebpf", "--lb.cgroup", p.cgroup,
		"--lb.pin_dir", "/sys/fs/bpf/waggle-bench-"+filepath.Base(p.cgroup), "--state.dir", lib, "--log.level", "error")
	p.cmd.Stdout, p.cmd.Stderr = os.Stderr, os.Stderr
	begin := time.Now()
	p.ns.Must(b, p.cmd.Start)
	poll(b, "the daemon", func() bool { st, err := p.status(); return err == nil && st.Ready })
	return time.Since(begin)
}

func (p *waggleProcess) socket() string { return filepath.Join(p.dir, "waggle.sock") }

func (p *waggleProcess) status() (st api.Status, err error) {
	return st, api.Client{Socket: p.socket()}.Get(context.Background(), "/v2/status", &st)
}

// settle waits until the daemon has seen the master and written its archive.
func (p *waggleProcess) settle(b *testing.B, lib string) {
	b.Helper()
	poll(b, "the stream", func() bool {
		st, err := p.status()
		_, errFile := os.Stat(filepath.Join(lib, "snapshot"))
		return err == nil && errFile == nil && st.Source.Connected && st.Counts.Tasks == len(p.tasks)
	})
}

func (p *waggleProcess) stop(b *testing.B) {
	b.Helper()
	if err := errors.Join(p.cmd.Process.Signal(os.Interrupt), p.cmd.Wait()); err != nil {
		b.Error(err)
	}
	if out, err := exec.Command(p.bin, "unload", "--lb.pin_dir", "/sys/fs/bpf/waggle-bench-"+filepath.Base(p.cgroup)).CombinedOutput(); err != nil {
		b.Errorf("%v: %s", err, out)
	}
}

// flip sends n changes of health, each of another app, without waiting.
func (p *waggleProcess) flip(b *testing.B, n int) {
	for range n {
		t := p.tasks[perApp*(p.sent/2)%len(p.tasks)]
		healthy := p.sent%2 == 1
		t.Healthy = &healthy
		p.sent++
		p.master.Send(mesostest.TaskUpdated(t))
	}
}

// calm waits until the daemon has done next to nothing for longer than it waits
// between two looks at the kernel.
func (p *waggleProcess) calm(b *testing.B) {
	b.Helper()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for last, times := p.cpu(b), 0; times < 8; {
		<-tick.C
		now := p.cpu(b)
		if times++; now-last > 10*time.Millisecond {
			times = 0
		}
		last = now
	}
}

// updates sends n changes at a steady rate and returns what each cost the
// daemon, in microseconds.
func (p *waggleProcess) updates(b *testing.B, n int, every time.Duration) float64 {
	b.Helper()
	before := p.cpu(b)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for range n {
		<-tick.C
		p.flip(b, 1)
	}
	m := new(mdns.Msg)
	m.SetQuestion("app0.marathon.mesos.", mdns.TypeA)
	p.ns.Must(b, func() error { _, err := mdns.Exchange(m, "127.0.0.1:53"); return err })
	return float64((p.cpu(b) - before).Microseconds()) / float64(n)
}

// turns returns how often the pipeline has turned.
func (p *waggleProcess) turns(b *testing.B) float64 {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", p.socket())
	}}}
	resp, err := client.Get("http://waggle/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "waggle_turns_total "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal("no waggle_turns_total")
	return 0
}

// cpu returns the time that all threads of the process have used.
func (p *waggleProcess) cpu(b *testing.B) (sum time.Duration) {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has just ended
		}
		ns, err := strconv.ParseInt(string(bytes.Fields(text)[0]), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// resident returns the process' memory in MB, once the first garbage is gone.
func (p *waggleProcess) resident(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}
