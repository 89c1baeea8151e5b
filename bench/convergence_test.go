package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/dns"
	"waggle/ebpf"
	"waggle/internal/agent"
	"waggle/internal/testnet"
	"waggle/model"
	"waggle/vip"
	"waggle/watcher/mesos"
	"waggle/watcher/mesos/mesostest"
)

// rig is a daemon in this process that follows a master of ours, in a namespace
// and a cgroup of its own.
type rig struct {
	ns     *testnet.Namespace
	master *mesostest.Master
	agent  *agent.Agent
	dns    netip.AddrPort
	tasks  []mesostest.Task
}

const agentAddr = "127.0.0.1"

// newRig starts the daemon with tasks in apps of three; each app has a VIP.
func newRig(b *testing.B, tasks int, backend netip.AddrPort, ns *testnet.Namespace) *rig {
	b.Helper()
	r := &rig{ns: ns}
	for i := range tasks {
		app := fmt.Sprint("app", i/3)
		r.tasks = append(r.tasks, mesostest.Task{
			Framework: "F", Agent: "S0", ID: fmt.Sprintf("%s.%d", app, i%3), Name: app,
			State: "TASK_RUNNING", IP: netip.MustParseAddr(agentAddr),
			Ports: []mesostest.Port{{Number: int(backend.Port()), Name: "p", Protocol: "tcp", Labels: []string{"VIP_0", "/" + app + ":80"}}},
		})
	}
	r.master = mesostest.Serve(mesostest.Subscribed(15,
		[]map[string]any{mesostest.Agent("S0", netip.MustParseAddr(agentAddr))},
		[]map[string]any{mesostest.Framework("F", "marathon")}, r.tasks))
	b.Cleanup(r.master.Close)

	cfg := mesos.DefaultConfig()
	cfg.Masters = []string{r.master.Addr().String()}
	source, err := mesos.New(cfg, zap.NewNop(), nil)
	if err != nil {
		b.Fatal(err)
	}
	r.agent = agent.New(agent.DefaultConfig(), source, openPlane(b), zap.NewNop(), nil)
	r.run(b)
	return r
}

// openPlane opens a balancer for a cgroup of its own, which this process enters.
func openPlane(b *testing.B) *ebpf.Dataplane {
	b.Helper()
	cfg := ebpf.DefaultConfig()
	cfg.Cgroup = testnet.Cgroup(b)
	cfg.PinDir = "/sys/fs/bpf/waggle-bench-" + filepath.Base(cfg.Cgroup)
	testnet.Enter(b, cfg.Cgroup)
	plane, err := ebpf.Open(cfg, zap.NewNop(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		err := plane.Close()
		if _, unload := ebpf.Unload(cfg); err != nil || unload != nil {
			b.Error(errors.Join(err, unload))
		}
	})
	return plane
}

func (r *rig) run(b *testing.B) {
	sc := dns.DefaultServerConfig()
	sc.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	server := dns.NewServer(sc, r.agent.Zone, zap.NewNop(), nil)
	r.ns.Must(b, server.Listen)
	r.dns = server.Addrs()[0]
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- r.agent.Run(ctx) }()
	go func() { done <- server.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; !errors.Is(err, context.Canceled) {
				b.Error(err)
			}
		}
	})
	poll(b, "the first picture", func() bool { return r.agent.State() != nil })
}

func poll(b *testing.B, what string, ok func() bool) {
	b.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.Fatal("waited in vain for ", what)
		}
	}
}

// address returns the VIP of an app, known before it exists.
func address(app string) netip.AddrPort {
	t := &model.Task{Framework: "marathon", State: model.Running, Addrs: []model.Address{{Addr: netip.MustParseAddr(agentAddr)}}}
	t.Ports = []model.Port{{Proto: model.TCP, Number: 1, Labels: []model.Label{{Key: "VIP_0", Value: "/" + app + ":80"}}}}
	apps := model.Groups[model.AppKey, *model.App]{}.Edit()
	key := model.AppKey{Name: app}
	apps.Set(key, &model.App{Key: key, Framework: "marathon", Tasks: []*model.Task{t}})
	for f := range vip.Build(nil, &model.Snapshot{Apps: apps.Groups()}, vip.DefaultConfig()).Services.All() {
		return f.Addr
	}
	return netip.AddrPort{}
}

// BenchmarkConvergence measures from the moment a master writes the event that
// a task runs to the first connection through its new VIP that works, and to
// the first answer that names it.
func BenchmarkConvergence(b *testing.B) {
	for _, tasks := range []int{300, 3_000, 30_000} {
		b.Run(fmt.Sprint(tasks, "tasks"), func(b *testing.B) {
			ns := testnet.New(b)
			var backend net.Listener
			ns.Must(b, func() (err error) { backend, err = net.Listen("tcp", "127.0.0.1:0"); return err })
			defer backend.Close()
			go acceptAll(backend)
			r := newRig(b, tasks, backend.Addr().(*net.TCPAddr).AddrPort(), ns)
			var connect, name sample
			for i := 0; b.Loop(); i++ {
				c, n := r.converge(b, fmt.Sprint("new", i))
				connect, name = append(connect, c), append(name, n)
			}
			connect.report(b, "connect")
			name.report(b, "name")
			b.ReportMetric(0, "ns/op") // it would count the wait for the next round
		})
	}
}

// rest lets the pipeline forget the changes that led up to the next one, so that
// it counts as one that comes alone.
func rest() {
	cfg := agent.DefaultConfig()
	<-time.After(4 * cfg.TurnEvery)
}

func acceptAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

// converge starts the only task of a new app and ends it again.
func (r *rig) converge(b *testing.B, app string) (connect, name time.Duration) {
	at := address(app).String()
	task := r.tasks[0]
	task.ID, task.Name, task.State, task.Ports = app+".0", app, "TASK_STAGING", []mesostest.Port{task.Ports[0]}
	task.Ports[0].Labels = []string{"VIP_0", "/" + app + ":80"}
	r.master.Send(mesostest.TaskAdded(task))
	task.State = "TASK_RUNNING"

	var start time.Time
	ready := make(chan struct{})
	durations := make(chan time.Duration, 2)
	try := func(once func() bool) chan error {
		done := make(chan error, 1)
		go func() {
			done <- r.ns.Do(func() error {
				<-ready
				// A client that never pauses would take a core from the daemon.
				pause := time.NewTicker(100 * time.Microsecond)
				defer pause.Stop()
				for ; !once(); <-pause.C {
					if time.Since(start) > 10*time.Second {
						return fmt.Errorf("%s did not converge within 10 s", app)
					}
				}
				durations <- time.Since(start)
				return nil
			})
		}()
		return done
	}
	measure := func(once func() bool) time.Duration {
		done := try(once)
		rest()
		r.master.Send(mesostest.Heartbeat()) // the stream is idle before the clock starts
		start = time.Now()
		r.master.Send(mesostest.TaskUpdated(task))
		close(ready)
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		return <-durations
	}
	connect = measure(func() bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	r.end(b, app, task)

	ready = make(chan struct{})
	task.State = "TASK_STAGING"
	r.master.Send(mesostest.TaskAdded(task))
	task.State = "TASK_RUNNING"
	q := new(mdns.Msg)
	q.SetQuestion(app+".marathon.l4lb.thisdcos.directory.", mdns.TypeA)
	name = measure(func() bool {
		m, err := mdns.Exchange(q, r.dns.String())
		return err == nil && len(m.Answer) == 1
	})
	r.end(b, app, task)
	return connect, name
}

// end ends a task and waits until nothing of it is served.
func (r *rig) end(b *testing.B, app string, task mesostest.Task) {
	task.State = "TASK_FINISHED"
	r.master.Send(mesostest.TaskUpdated(task))
	poll(b, "the end of "+app, func() bool {
		_, ok := r.agent.State().Snapshot.Apps.Get(model.AppKey{FrameworkID: "F", Name: app})
		return !ok
	})
}
