package dns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"waggle/dns/wire"
	"waggle/model"
	"waggle/vip"
)

// walk changes a small world at random. Names, addresses and ports are few, so
// that they collide all the time.
type walk struct {
	rng   *rand.Rand
	snap  *model.Snapshot
	table *vip.Table
}

func pick[T any](w *walk, of ...T) T { return of[w.rng.IntN(len(of))] }

func (w *walk) addr() netip.Addr {
	return pick(w, netip.Addr{}, agentIP, ownIP, ownIP2, ownIP6, netip.MustParseAddr("fe80::1%eth0"))
}

func (w *walk) port() uint16 { return uint16(w.rng.IntN(3)) }

func (w *walk) framework() string {
	return pick(w, "marathon", "Marathon", "a.b", "b", "slave", "leader", "agent", "")
}

func (w *walk) task() *model.Task {
	t := &model.Task{
		Key:       model.TaskKey{FrameworkID: fmt.Sprint("F", w.rng.IntN(3)), ID: fmt.Sprint("t", w.rng.IntN(6))},
		Name:      pick(w, "web", "a", "a.b", "Web", ""),
		Framework: w.framework(),
		AgentID:   pick(w, "A-S0", "A-S1"),
		AgentAddr: w.addr(),
		State:     pick(w, model.Running, model.Running, model.Running, model.Killing),
		Resources: []model.PortRange{{First: w.port(), Last: w.port()}},
	}
	for range w.rng.IntN(3) {
		t.Addrs = append(t.Addrs, model.Address{Addr: w.addr(), Network: pick(w, "", "n", "m")})
	}
	if w.rng.IntN(2) == 0 {
		t.Discovery = &model.Discovery{Name: pick(w, "web", "web.x", "WEB.x", "")}
		for range w.rng.IntN(3) {
			t.Ports = append(t.Ports, model.Port{
				Name: pick(w, "", "http"), Proto: pick(w, model.TCP, model.UDP), Number: w.port(), HostPort: w.port(), Network: pick(w, "", "n"),
			})
		}
	}
	return t
}

// without returns tasks less the one with the key of t.
func without(tasks []*model.Task, t *model.Task) []*model.Task {
	return slices.DeleteFunc(slices.Clone(tasks), func(o *model.Task) bool { return o.Key == t.Key })
}

// changeTask replaces a task, or removes it, in the app it is in.
func (w *walk) changeTask() {
	apps := w.snap.Apps.Edit()
	t := w.task()
	for key, app := range w.snap.Apps.All() {
		rest := without(app.Tasks, t)
		switch {
		case len(rest) == len(app.Tasks):
		case len(rest) == 0:
			apps.Delete(key)
		default:
			apps.Set(key, &model.App{Key: key, Framework: app.Framework, Tasks: rest})
		}
	}
	if w.rng.IntN(3) > 0 {
		addTask(apps, t)
	}
	w.snap.Apps = apps.Groups()
}

// renameFramework gives an app's framework another name.
func (w *walk) renameFramework() {
	apps := w.snap.Apps.Edit()
	for key, app := range w.snap.Apps.All() {
		apps.Set(key, &model.App{Key: key, Framework: w.framework(), Tasks: app.Tasks})
		break
	}
	w.snap.Apps = apps.Groups()
}

func (w *walk) changeAgent() {
	agents, id := w.snap.Agents.Edit(), fmt.Sprint("S", w.rng.IntN(4))
	if w.rng.IntN(3) == 0 {
		agents.Delete(id)
	} else {
		agents.Set(id, &model.Agent{ID: id, Hostname: pick(w, "", "a.b", "S1"), Addr: w.addr(), Port: w.port()})
	}
	w.snap.Agents = agents.Groups()
}

func (w *walk) changeFramework() {
	frameworks, id := w.snap.Frameworks.Edit(), fmt.Sprint("F", w.rng.IntN(3))
	if w.rng.IntN(3) == 0 {
		frameworks.Delete(id)
	} else {
		frameworks.Set(id, &model.Framework{ID: id, Name: w.framework(), Addr: w.addr(), Port: w.port()})
	}
	w.snap.Frameworks = frameworks.Groups()
}

func (w *walk) changeMasters() {
	at := func() netip.AddrPort {
		if a := w.addr(); a.IsValid() {
			return netip.AddrPortFrom(a, 5050+w.port())
		}
		return netip.AddrPort{}
	}
	w.snap.Leader, w.snap.Masters = at(), nil
	for range w.rng.IntN(4) {
		w.snap.Masters = append(w.snap.Masters, at())
	}
}

func (w *walk) changeService() {
	if w.rng.IntN(10) == 0 {
		w.table = nil
		return
	}
	var services model.Groups[vip.Frontend, *vip.Service]
	if w.table != nil {
		services = w.table.Services
	}
	edit := services.Edit()
	s := service(pick(w, "", "web.marathon", "web.a.b"), pick(w, "11.0.0.1:80", "11.0.0.1:81", "11.0.0.2:80", "[fd01::1]:80"))
	if w.rng.IntN(3) == 0 {
		edit.Delete(s.Frontend)
	} else {
		edit.Set(s.Frontend, s)
	}
	w.table = &vip.Table{Services: edit.Groups()}
}

func (w *walk) step() {
	next := *w.snap
	w.snap = &next
	for range 1 + w.rng.IntN(3) {
		pick(w, w.changeTask, w.changeTask, w.changeTask, w.changeTask, w.renameFramework,
			w.changeAgent, w.changeFramework, w.changeMasters, w.changeService)()
	}
}

// content returns all that a Zone holds, the counts behind its records too.
func content(z *Zone) map[string]string {
	out := map[string]string{}
	for w := range z.index.All() {
		n := nodeOf(w, nil)
		out[wire.Text(w.Name())] = fmt.Sprint(n.records, n.below)
	}
	return out
}

func TestRandomWalkEqualsAZoneBuiltFromNothing(t *testing.T) {
	auto, listed := DefaultConfig(), DefaultConfig()
	auto.NSAddrs = []netip.Addr{agentIP}
	listed.IPSources = []IPSource{IPSourceNetInfo, IPSourceHost}
	listed.DCOSDomain, listed.Exact = "", true
	fixed := listed
	fixed.Exact, fixed.DCOSDomain, fixed.CryptoID = false, "thisdcos.directory", "id"
	fixed.Records = []string{"web.marathon.mesos A 192.0.2.1", "6.1.0.9.in-addr.arpa PTR web.example", "a.b.example CNAME web.example"}
	for i, cfg := range []Config{auto, listed, fixed} {
		for seed := range uint64(4) {
			w := &walk{rng: rand.New(rand.NewPCG(uint64(i), seed)), snap: &model.Snapshot{}}
			var z *Zone
			var before []Record
			var serial uint32
			for step := range 100 {
				w.step()
				z = Build(z, w.snap, w.table, cfg)
				fresh := Build(nil, w.snap, w.table, cfg)
				if diff := cmp.Diff(content(fresh), content(z)); diff != "" {
					t.Fatalf("seed %d, step %d:\n%s", seed, step, diff)
				}
				records := z.Records()
				if changed := !slices.Equal(before, records); changed != (z.serial != serial) && step > 0 {
					t.Fatalf("seed %d, step %d: records changed: %v, serial from %d to %d", seed, step, changed, serial, z.serial)
				}
				before, serial = records, z.serial
			}
			if empty := Build(z, &model.Snapshot{}, nil, cfg); empty.index.Len() != Build(nil, &model.Snapshot{}, nil, cfg).index.Len() {
				t.Fatalf("seed %d: %v left behind", seed, content(empty))
			}
		}
	}
}

func TestBuildLeavesThePreviousZoneAsItWas(t *testing.T) {
	w := &walk{rng: rand.New(rand.NewPCG(1, 2)), snap: &model.Snapshot{}}
	var z *Zone
	for range 100 {
		w.step()
		next := Build(z, w.snap, w.table, DefaultConfig())
		if z != nil {
			want := content(Build(nil, z.snap, &vip.Table{Services: z.services}, DefaultConfig()))
			if diff := cmp.Diff(want, content(z)); diff != "" {
				t.Fatal(diff)
			}
		}
		z = next
	}
}

// cluster returns a Snapshot of n tasks, three to an app, and its apps' keys.
func cluster(n int) (*model.Snapshot, []model.AppKey) {
	snap := &model.Snapshot{}
	apps := snap.Apps.Edit()
	var keys []model.AppKey
	for i := 0; i < n; i += 3 {
		var tasks []*model.Task
		name := fmt.Sprintf("service-%06d.group", i)
		for j := range min(3, n-i) {
			tasks = append(tasks, benchTask(name, j, byte(i)))
		}
		key := model.AppKey{FrameworkID: "F0", Name: name}
		apps.Set(key, &model.App{Key: key, Framework: "marathon", Tasks: tasks})
		keys = append(keys, key)
	}
	snap.Apps = apps.Groups()
	return snap, keys
}

func benchTask(name string, instance int, salt byte) *model.Task {
	return &model.Task{
		Key: model.TaskKey{FrameworkID: "F0", ID: fmt.Sprintf("%s.%d", name, instance)}, Name: name, Framework: "marathon",
		AgentID: fmt.Sprintf("0f7a-S%d", instance), AgentAddr: netip.AddrFrom4([4]byte{10, 0, salt, byte(instance)}),
		State: model.Running, Addrs: in("", netip.AddrFrom4([4]byte{9, 0, salt, byte(instance)})),
		Discovery: &model.Discovery{Name: name},
		Ports:     []model.Port{port("http", 8080, 31000)},
		Resources: []model.PortRange{{First: 31000, Last: 31000}},
	}
}

// BenchmarkBuildOneChange is the cost of one task that moves to another agent.
// 7 000 tasks have 100 000 names.
func BenchmarkBuildOneChange(b *testing.B) {
	for _, n := range []int{1_000, 7_000, 100_000} {
		b.Run(fmt.Sprint("tasks=", n), func(b *testing.B) {
			snap, keys := cluster(n)
			cfg := DefaultConfig()
			z := Build(nil, snap, nil, cfg)
			b.ReportAllocs()
			before := cpuTime(b)
			for i := 0; b.Loop(); i++ {
				key := keys[i*7919%len(keys)]
				old, _ := snap.Apps.Get(key)
				app := &model.App{Key: key, Framework: old.Framework, Tasks: slices.Clone(old.Tasks)}
				app.Tasks[0] = benchTask(key.Name, 0, app.Tasks[0].AgentAddr.As4()[2]+1)
				apps := snap.Apps.Edit()
				apps.Set(key, app)
				snap = &model.Snapshot{Apps: apps.Groups()}
				z = Build(z, snap, nil, cfg)
			}
			b.ReportMetric(float64(z.index.Len()), "names")
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op") // the collector's too
		})
	}
}

// cpuTime returns what all threads have used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkBuildFromNothing is the cost of the first picture.
func BenchmarkBuildFromNothing(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint("tasks=", n), func(b *testing.B) {
			snap, _ := cluster(n)
			for b.Loop() {
				Build(nil, snap, nil, DefaultConfig())
			}
		})
	}
}

// BenchmarkReply is the cost of one answer, without sockets.
func BenchmarkReply(b *testing.B) {
	snap, keys := cluster(10_000)
	z := Build(nil, snap, nil, DefaultConfig())
	name := keys[len(keys)/2].Name + ".marathon.mesos."
	for _, c := range []struct {
		name  string
		query *dns.Msg
	}{
		{"A", ask(name, dns.TypeA)}, {"SRV", ask("_"+strings.Replace(name, ".marathon", "._tcp.marathon", 1), dns.TypeSRV)},
		{"NODATA", ask(name, dns.TypeAAAA)}, {"NXDOMAIN", ask("x."+name, dns.TypeA)},
	} {
		b.Run(c.name, func(b *testing.B) {
			packet := pack(b, c.query)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := reply(z, packet, false, 0).Pack(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAZoneOfAnotherConfigurationComesAfterTheLast(t *testing.T) {
	snap := world(memcached(nil))
	cfg := DefaultConfig()
	first := Build(nil, snap, nil, cfg)
	cfg.TTL = 7 * time.Second
	next := Rebuild(first, snap, nil, cfg)
	if next.serial <= first.serial {
		t.Errorf("the serial went from %d to %d", first.serial, next.serial)
	}
	if d := cmp.Diff(Build(nil, snap, nil, cfg).Records(), next.Records()); d != "" {
		t.Errorf("records (-from nothing +from another):\n%s", d)
	}
}
