package vip

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/model"
)

// newTask returns a task of the framework marathon on agent 10.0.0.1 with ports
// 8000, 8001 and so on, each with one VIP label.
func newTask(id string, state model.TaskState, addrs []string, values ...string) *model.Task {
	t := &model.Task{
		Key: model.TaskKey{FrameworkID: "F", ID: id}, Framework: "marathon", State: state,
		AgentAddr: netip.MustParseAddr("10.0.0.1"),
	}
	for _, a := range addrs {
		t.Addrs = append(t.Addrs, model.Address{Addr: netip.MustParseAddr(a)})
	}
	for i, v := range values {
		t.Ports = append(t.Ports, model.Port{
			Name: fmt.Sprint("p", i), Proto: model.TCP, Number: uint16(8000 + i), Labels: []model.Label{{Key: "VIP_0", Value: v}},
		})
	}
	return t
}

func appOf(name string, tasks ...*model.Task) *model.App {
	return &model.App{Key: model.AppKey{FrameworkID: "F", Name: name}, Framework: "marathon", Tasks: tasks}
}

func snapshotOf(apps ...*model.App) *model.Snapshot {
	e := model.Groups[model.AppKey, *model.App]{}.Edit()
	for _, a := range apps {
		e.Set(a.Key, a)
	}
	return &model.Snapshot{Apps: e.Groups()}
}

// text renders the rows of a Table.
func text(t *Table) []string {
	var out []string
	for f, s := range t.Services.All() {
		line := fmt.Sprintf("%s/%s %q %q", f.Addr, f.Proto, s.Name, s.Label)
		for _, b := range s.Backends {
			line += fmt.Sprintf(" %s=%s*%d(%s)", b.Addr, b.State, b.Weight, b.Task.ID)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// lines renders the problems of a Table.
func lines(t *Table) []string { return problemLines(t.Problems(), "") }

func TestTables(t *testing.T) {
	v4, both, v6 := []string{"9.0.0.1"}, []string{"9.0.0.1", "fd00::1"}, []string{"fd00::1"}
	task := func(id string, addrs []string, values ...string) *model.Task {
		return newTask(id, model.Running, addrs, values...)
	}
	change := func(t *model.Task, f func(*model.Task)) *model.Task { f(t); return t }
	udp := func(t *model.Task) { t.Ports[0].Proto = model.UDP }
	sick := func(t *model.Task) { t.Health = model.Unhealthy }
	onHost := func(t *model.Task) { t.Ports[0].HostPort = 20000 }
	weight := func(w string) func(*model.Task) {
		return func(t *model.Task) {
			t.Ports[0].Labels = append(t.Ports[0].Labels, model.Label{Key: "VIP_0_WEIGHT", Value: w})
		}
	}
	only4 := DefaultConfig()
	only4.IPv6 = false
	two := DefaultConfig() // room for two names
	two.Last4 = netip.MustParseAddr("11.0.0.1")

	for _, tt := range []struct {
		name     string
		cfg      *Config // nil means the default
		apps     []*model.App
		want     []string
		problems []string
	}{
		{name: "an empty world"},
		{name: "a named VIP", apps: []*model.App{appOf("a", task("a", v4, "/web:80"))},
			want: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=up*1(a)`}},
		{name: "a VIP given by address", apps: []*model.App{appOf("a", task("a", v4, "/10.1.1.1:80"))},
			want: []string{`10.1.1.1:80/tcp "" "" 9.0.0.1:8000=up*1(a)`}},
		{name: "a host port is on the agent", apps: []*model.App{appOf("a", change(task("a", v4, "/web:80"), onHost))},
			want: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 10.0.0.1:20000=up*1(a)`}},
		{name: "apps share a VIP, with or without the slash, in either letter case, and the lowest spelling shows",
			apps: []*model.App{appOf("b", task("b", v4, "web:80")), appOf("a", task("a", []string{"9.0.0.2"}, "/WEB:80"))},
			want: []string{`11.225.36.193:80/tcp "web.marathon" "/WEB" 9.0.0.1:8000=up*1(b) 9.0.0.2:8000=up*1(a)`}},
		{name: "spellings that fold alike are one VIP, with a warning",
			apps: []*model.App{appOf("a", task("a", v4, "/web_app:80", "/web_app:81")), appOf("b", task("b", []string{"9.0.0.2"}, "/web-app:80"), task("c", []string{"9.0.0.3"}, "/web-app:80"))},
			want: []string{
				`11.178.68.214:80/tcp "web-app.marathon" "/web-app" 9.0.0.1:8000=up*1(a) 9.0.0.2:8000=up*1(b) 9.0.0.3:8000=up*1(c)`,
				`11.178.68.214:81/tcp "web-app.marathon" "/web_app" 9.0.0.1:8001=up*1(a)`,
			},
			problems: []string{`a VIP_0=/web_app:80: folds to web-app.marathon as "/web-app:80" of task b (framework marathon) does: both are one VIP`}},
		{name: "a name is one address for all its ports and protocols",
			apps: []*model.App{appOf("a", task("a", v4, "/web:80", "/web:81")), appOf("b", change(task("b", []string{"9.0.0.2"}, "/web:80"), udp))},
			want: []string{
				`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=up*1(a)`,
				`11.225.36.193:80/udp "web.marathon" "/web" 9.0.0.2:8000=up*1(b)`,
				`11.225.36.193:81/tcp "web.marathon" "/web" 9.0.0.1:8001=up*1(a)`,
			}},
		{name: "a name has an address in each family that it has backends of",
			apps: []*model.App{appOf("a", task("a", both, "/web:80"))},
			want: []string{
				`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=up*1(a)`,
				`[fd01:c::cb8:74fe:906b:dee]:80/tcp "web.marathon" "/web" [fd00::1]:8000=up*1(a)`,
			}},
		{name: "killing drains, unhealthy shows, the others do not count",
			apps: []*model.App{appOf("a",
				newTask("k", model.Killing, v4, "/web:80"), newTask("p", model.Preparing, []string{"9.0.0.3"}, "/web:80"),
				change(task("s", []string{"9.0.0.2"}, "/web:80"), sick), newTask("t", model.Terminal, []string{"9.0.0.4"}, "/web:80"))},
			want: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=draining*1(k) 9.0.0.2:8000=unhealthy*1(s)`}},
		{name: "a VIP lives while a backend drains", apps: []*model.App{appOf("a", newTask("k", model.Killing, v4, "/web:80"))},
			want: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=draining*1(k)`}},
		{name: "and not while its tasks prepare", apps: []*model.App{appOf("a", newTask("p", model.Preparing, v4, "/web:80"))}},
		{name: "of two claims on an address the better counts, and weights do not add",
			apps: []*model.App{appOf("a", change(task("2sick", v4, "/web:80"), sick), newTask("1old", model.Killing, v4, "/web:80")), appOf("b", change(task("3new", v4, "/web:80"), weight("2")))},
			want: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=up*2(3new)`}},
		{name: "a task that is ill goes before one that is being killed",
			apps: []*model.App{appOf("a", newTask("1old", model.Killing, v4, "/web:80"), change(task("2sick", v4, "/web:80"), sick))},
			want: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=unhealthy*1(2sick)`}},
		{name: "of two equal claims the heavier counts, then that of the lower task",
			apps: []*model.App{appOf("a", change(task("1", v4, "/web:80"), weight("2")), change(task("2", v4, "/web:80"), weight("3")), change(task("3", v4, "/web:80"), weight("3")))},
			want: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=up*3(2)`}},
		{name: "a weight", apps: []*model.App{appOf("a", change(task("a", both, "/web:80"), weight("5")))},
			want: []string{
				`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=up*5(a)`,
				`[fd01:c::cb8:74fe:906b:dee]:80/tcp "web.marathon" "/web" [fd00::1]:8000=up*5(a)`,
			}},
		{name: "a bad label costs only itself", apps: []*model.App{appOf("a", task("a", v4, "/web:0", "/web:80"))},
			want:     []string{`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8001=up*1(a)`},
			problems: []string{`a VIP_0=/web:0: port "0" is not a number within 1 to 65535`}},
		{name: "what is wrong with labels is said before the task runs, and not once it ended",
			apps:     []*model.App{appOf("a", newTask("p", model.Preparing, nil, "/web"), newTask("t", model.Terminal, nil, "/web"))},
			problems: []string{"p VIP_0=/web: no :port at the end"}},
		{name: "problems come sorted and once", apps: []*model.App{appOf("b", task("b", nil, "x", "x")), appOf("a", task("a", nil, "z", "y"))},
			problems: []string{"a VIP_0=y: no :port at the end", "a VIP_0=z: no :port at the end", "b VIP_0=x: no :port at the end"}},
		{name: "a VIP without a backend of its family refuses",
			apps: []*model.App{appOf("a", task("a", v6, "10.1.1.1:80")), appOf("b", change(task("b", v6, "fd01:c::1:80"), onHost))},
			want: []string{`10.1.1.1:80/tcp "" ""`, `[fd01:c::1]:80/tcp "" ""`},
			problems: []string{
				"a VIP_0=10.1.1.1:80: no backend is of the VIP's address family: [[fd00::1]:8000]",
				"b VIP_0=fd01:c::1:80: no backend is of the VIP's address family: [10.0.0.1:20000]",
			}},
		{name: "with IPv6 off no VIP and no backend has it", cfg: &only4,
			apps: []*model.App{appOf("a", task("a", both, "/web:80", "fd01:c::1:80")), appOf("b", task("b", v6, "/web:80"))},
			want: []string{`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=up*1(a)`},
			problems: []string{
				"a VIP_0=fd01:c::1:80: IPv6 VIPs are switched off",
				"b VIP_0=/web:80: no backend is of a family that is switched on: [[fd00::1]:8000]",
			}},
		{name: "a task without an address", apps: []*model.App{appOf("a", task("a", nil, "/web:80"))},
			problems: []string{"a VIP_0=/web:80: the address of the task is not known"}},
		{name: "a framework without a name", apps: []*model.App{{Key: model.AppKey{Name: "a"}, Framework: "é", Tasks: []*model.Task{task("a", v4, "/web:80", "10.1.1.1:80")}}},
			want:     []string{`10.1.1.1:80/tcp "" "" 9.0.0.1:8001=up*1(a)`},
			problems: []string{`a VIP_0=/web:80: the framework's name "é" has no ASCII letter or digit`}},
		{name: "a mapped address is the IPv4 one", apps: []*model.App{appOf("a", task("a", []string{"::ffff:9.0.0.1"}, "10.1.1.1:80"))},
			want: []string{`10.1.1.1:80/tcp "" "" 9.0.0.1:8000=up*1(a)`}},
		{name: "an address that a name has is the name's alone", apps: []*model.App{appOf("a", task("a", v4, "/web:80")), appOf("b", task("b", []string{"9.0.0.2"}, "11.225.36.193:80", "11.225.36.193:81", "11.225.36.194:80"))},
			want: []string{
				`11.225.36.193:80/tcp "web.marathon" "/web" 9.0.0.1:8000=up*1(a)`,
				`11.225.36.194:80/tcp "" "" 9.0.0.2:8002=up*1(b)`,
			},
			problems: []string{"b VIP_0=11.225.36.193:80: the address is that of the named VIP web.marathon"}},
		{name: "a range too small leaves the highest names without an address", cfg: &two,
			apps: []*model.App{appOf("a", task("a", v4, "/c:80", "/a:80", "/b:80"))},
			want: []string{
				`11.0.0.0:80/tcp "a.marathon" "/a" 9.0.0.1:8001=up*1(a)`,
				`11.0.0.1:80/tcp "b.marathon" "/b" 9.0.0.1:8002=up*1(a)`,
			},
			problems: []string{"a VIP_0=/c:80: lower names than c.marathon have all addresses of 11.0.0.0-11.0.0.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			if tt.cfg != nil {
				cfg = *tt.cfg
			}
			table := Build(nil, snapshotOf(tt.apps...), cfg)
			if d := cmp.Diff(tt.want, text(table)); d != "" {
				t.Errorf("rows (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.problems, lines(table)); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

func TestAServiceSaysWhatItIsMadeOf(t *testing.T) {
	one := appOf("1", newTask("1", model.Running, []string{"9.0.0.2"}, "/web:80"))
	two := appOf("2", newTask("2", model.Killing, []string{"9.0.0.1"}, "web:80"))
	two.Framework = "Marathon"
	front := Frontend{Addr: netip.MustParseAddrPort("11.225.36.193:80"), Proto: model.TCP}
	agent := netip.MustParseAddr("10.0.0.1")
	want := map[Frontend]*Service{front: {
		Frontend: front, Name: "web.marathon", Label: "/web", Framework: "Marathon",
		Backends: []Backend{
			{Addr: netip.MustParseAddrPort("9.0.0.1:8000"), Weight: 1, State: Draining, Agent: agent, Task: model.TaskKey{FrameworkID: "F", ID: "2"}},
			{Addr: netip.MustParseAddrPort("9.0.0.2:8000"), Weight: 1, State: Up, Agent: agent, Task: model.TaskKey{FrameworkID: "F", ID: "1"}},
		},
	}}
	for _, apps := range [][]*model.App{{one, two}, {two, one}} {
		got := services(Build(nil, snapshotOf(apps...), DefaultConfig()))
		if d := cmp.Diff(want, got, compareAddrs(), compareAddrPorts()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

// TestNodesAgreeOnNamesThatCollide: svc1265 and svc4703 have one home.
func TestNodesAgreeOnNamesThatCollide(t *testing.T) {
	low := appOf("low", newTask("low", model.Running, []string{"9.0.0.1"}, "/svc1265:80"))
	high := appOf("high", newTask("high", model.Running, []string{"9.0.0.2"}, "/svc4703:80"))
	const home, next = "11.29.210.66:80/tcp ", "11.29.210.67:80/tcp "
	const lowRow = `"svc1265.marathon" "/svc1265" 9.0.0.1:8000=up*1(low)`
	const highRow = `"svc4703.marathon" "/svc4703" 9.0.0.2:8000=up*1(high)`
	for _, tt := range []struct {
		name  string
		steps [][]*model.App
		want  []string
	}{
		{"lower name first", [][]*model.App{{low}, {low, high}}, []string{home + lowRow, next + highRow}},
		{"higher name first", [][]*model.App{{high}, {low, high}}, []string{home + lowRow, next + highRow}},
		{"the lower name goes", [][]*model.App{{low, high}, {high}}, []string{home + highRow}},
		{"both swap in one step", [][]*model.App{{high}, {low}, {high}}, []string{home + highRow}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var table *Table
			for _, apps := range tt.steps {
				table = Build(table, snapshotOf(apps...), DefaultConfig())
			}
			if d := cmp.Diff(tt.want, text(table)); d != "" {
				t.Errorf("rows (-want +got):\n%s", d)
			}
		})
	}
}

// walk is a world that changes at random.
type walk struct {
	r    *rand.Rand
	snap *model.Snapshot
}

func (w *walk) step() {
	e := w.snap.Apps.Edit()
	for range 1 + w.r.IntN(3) {
		key := model.AppKey{FrameworkID: fmt.Sprint("F", w.r.IntN(3)), Name: fmt.Sprint("app", w.r.IntN(6))}
		old, ok := e.Get(key)
		switch n := w.r.IntN(8); {
		case n < 2:
			e.Delete(key)
		case ok && n < 6:
			e.Set(key, w.change(old))
		default:
			e.Set(key, w.app(key))
		}
	}
	w.snap = &model.Snapshot{Apps: e.Groups()}
}

// change returns old with another name of its framework, or some tasks less,
// more or different; the others keep their pointers.
func (w *walk) change(old *model.App) *model.App {
	app, other := *old, w.app(old.Key)
	if w.r.IntN(6) == 0 {
		app.Framework = pick(w.r, "marathon", "Mara-thon", "...")
		return &app
	}
	app.Tasks = nil
	for i := range 3 {
		from := pick(w.r, old, old, other)
		if i < len(from.Tasks) {
			app.Tasks = append(app.Tasks, from.Tasks[i])
		}
	}
	slices.SortFunc(app.Tasks, func(a, b *model.Task) int { return strings.Compare(a.Key.ID, b.Key.ID) })
	app.Tasks = slices.CompactFunc(app.Tasks, func(a, b *model.Task) bool { return a.Key == b.Key })
	if len(app.Tasks) == 0 {
		return other
	}
	return &app
}

func (w *walk) app(key model.AppKey) *model.App {
	frameworks := map[string]string{"F0": "marathon", "F1": "Marathon", "F2": "dev/kafka"}
	app := &model.App{Key: key, Framework: frameworks[key.FrameworkID]}
	for i := range 1 + w.r.IntN(3) {
		t := &model.Task{
			Key:       model.TaskKey{FrameworkID: key.FrameworkID, ID: fmt.Sprint(key.Name, ".", i)},
			Framework: app.Framework, State: pick(w.r, model.Running, model.Running, model.Preparing, model.Killing, model.Terminal),
			Health: pick(w.r, model.HealthUnknown, model.Healthy, model.Unhealthy), AgentAddr: netip.MustParseAddr("10.0.0.1"),
		}
		for _, a := range pick(w.r, []string{"9.0.0.1"}, []string{"9.0.0.2", "fd00::2"}, []string{"fd00::3"}, nil) {
			t.Addrs = append(t.Addrs, model.Address{Addr: netip.MustParseAddr(a)})
		}
		for range w.r.IntN(3) {
			t.Ports = append(t.Ports, model.Port{
				Proto: pick(w.r, model.TCP, model.UDP), Number: pick[uint16](w.r, 80, 81), HostPort: pick[uint16](w.r, 0, 0, 9000),
				Labels: []model.Label{
					{Key: "VIP_0", Value: pick(w.r, "/a:80", "a:80", "/A:80", "/b:80", "/b:81", "b_c:80", "b-c:80", "/c:80", "/d:80", "/e:80", "/f:80", "/g:80",
						"11.0.0.2:80", "11.0.0.5:80", "11.0.0.5:81", "fd01:c::2:80", "10.9.9.9:80", "/bad", "1.2.3:80", "/été:80")},
					{Key: pick(w.r, "VIP_0_WEIGHT", "other"), Value: pick(w.r, "1", "2", "x")},
				},
			})
		}
		app.Tasks = append(app.Tasks, t)
	}
	return app
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func TestATableBuiltStepByStepEqualsOneBuiltAtOnce(t *testing.T) {
	small := DefaultConfig()
	small.Last4, small.Last6 = netip.MustParseAddr("11.0.0.6"), netip.MustParseAddr("fd01:c::4")
	only4 := small
	only4.IPv6 = false
	for i, cfg := range []Config{small, only4, DefaultConfig()} {
		w := &walk{r: rand.New(rand.NewPCG(uint64(i), 1)), snap: &model.Snapshot{}}
		var prev *Table
		for step := range 400 {
			w.step()
			var before []string
			if prev != nil {
				before = append(text(prev), lines(prev)...)
			}
			table, fresh := Build(prev, w.snap, cfg), Build(nil, w.snap, cfg)
			if d := cmp.Diff(services(fresh), services(table), compareAddrs(), compareAddrPorts()); d != "" {
				t.Fatalf("config %d step %d: services (-fresh +stepwise):\n%s", i, step, d)
			}
			if d := cmp.Diff(lines(fresh), lines(table)); d != "" {
				t.Fatalf("config %d step %d: problems (-fresh +stepwise):\n%s", i, step, d)
			}
			if prev != nil {
				if d := cmp.Diff(text(fresh), text(Build(prev, w.snap, cfg))); d != "" {
					t.Fatalf("config %d step %d: rows built again on the Table before (-fresh +again):\n%s", i, step, d)
				}
				if d := cmp.Diff(before, append(text(prev), lines(prev)...)); d != "" {
					t.Fatalf("config %d step %d: the Table before changed:\n%s", i, step, d)
				}
				for c := range model.Diff(prev.Services, table.Services) {
					if c.InOld && c.InNew && cmp.Equal(c.Old, c.New, compareAddrs(), compareAddrPorts()) {
						t.Fatalf("config %d step %d: %v did not change and yet is another pointer", i, step, c.Key)
					}
				}
			}
			prev = table
		}
	}
}

func compareAddrPorts() cmp.Option {
	return cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
}

func services(t *Table) map[Frontend]*Service { return maps.Collect(t.Services.All()) }

func TestATableOfTheSameWorldSharesEverything(t *testing.T) {
	snap := snapshotOf(appOf("a", newTask("a", model.Running, []string{"9.0.0.1"}, "/web:80", "/bad")))
	first := Build(nil, snap, DefaultConfig())
	second := Build(first, &model.Snapshot{Apps: snap.Apps}, DefaultConfig())
	for c := range model.Diff(first.Services, second.Services) {
		t.Errorf("%v changed", c.Key)
	}
	if a, b := first.Problems(), second.Problems(); len(a) != 1 || &a[0] != &b[0] {
		t.Errorf("the problems were sorted again: %v, %v", a, b)
	}
}

func TestTheZeroTableIsThatOfAnEmptyWorld(t *testing.T) {
	zero := &Table{}
	if got := zero.Problems(); got != nil {
		t.Errorf("it has problems: %v", got)
	}
	snap := snapshotOf(appOf("a", newTask("a", model.Running, []string{"9.0.0.1"}, "/web:80")))
	want := services(Build(nil, snap, DefaultConfig()))
	if d := cmp.Diff(want, services(Build(zero, snap, DefaultConfig())), compareAddrs(), compareAddrPorts()); d != "" {
		t.Errorf("built on it (-fresh +stepwise):\n%s", d)
	}
}

// A backend is shared where the labels of its port ask for two services, whatever
// else they say.
func TestWhichBackendsAreShared(t *testing.T) {
	for name, tc := range map[string]struct {
		values []string
		want   bool
	}{
		"one label":          {[]string{"/web:80"}, false},
		"two of one service": {[]string{"/web:80", "web:80"}, false},
		"two names":          {[]string{"/web:80", "/api:80"}, true},
		"two ports":          {[]string{"/web:80", "/web:81"}, true},
		"a name, an address": {[]string{"/web:80", "10.98.0.1:80"}, true},
		"one cannot be read": {[]string{"/web:80", "/web:0"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			task := newTask("1", model.Running, []string{"9.0.0.1"}, tc.values[0])
			for i, v := range tc.values[1:] {
				task.Ports[0].Labels = append(task.Ports[0].Labels, model.Label{Key: fmt.Sprintf("VIP_%d", i+1), Value: v})
			}
			for f, s := range services(Build(nil, snapshotOf(appOf("a", task)), DefaultConfig())) {
				if got := s.Backends[0].Shared; got != tc.want {
					t.Errorf("backend of %s: shared %v, want %v", f.Addr, got, tc.want)
				}
			}
		})
	}
}
