package vip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/model"
)

func TestOptionsAsWritten(t *testing.T) {
	pfx := netip.MustParsePrefix
	for _, tt := range []struct {
		option, value string
		want          Options
		bad           bool
	}{
		{"choice", "least-active", Options{Choice: LeastActive}, false},
		{"CHOICE", " Random ", Options{}, false},
		{"affinity", "client", Options{Affinity: Affinity{ByNamespace, 3 * time.Hour}}, false},
		{"affinity", "cgroup:10m", Options{Affinity: Affinity{ByCgroup, 10 * time.Minute}}, false},
		{"affinity", "source:1s", Options{Affinity: Affinity{BySource, time.Second}}, false},
		{"affinity", "none", Options{}, false},
		{"affinity", "cookie", Options{}, true},
		{"affinity", "client:1ms", Options{}, true},
		{"affinity", "client:", Options{}, true},
		{"locality", "zone", Options{Locality: SameZone}, false},
		{"locality", "agent", Options{Locality: SameAgent}, false},
		{"locality", "rack", Options{}, true},
		{"drain", "90s", Options{Drain: 90 * time.Second}, false},
		{"drain", "-1s", Options{}, true},
		{"drain", "10000h", Options{}, true},
		{"allow", "10.1.2.3/8, cgroup:mesos/public/, namespace:/run/netns/a,::1", Options{Allow: []Client{
			{Source: pfx("10.0.0.0/8")}, {Source: pfx("::1/128")}, {Cgroup: "/mesos/public"}, {Namespace: "/run/netns/a"}}}, false},
		{"allow", "", Options{}, true},
		{"allow", "cgroup:/", Options{}, true},
		{"allow", "namespace:a", Options{}, true},
		{"weight", "1", Options{}, true},
	} {
		var got Options
		err := got.Set(tt.option, tt.value)
		if (err != nil) != tt.bad {
			t.Errorf("%s %q: error %v", tt.option, tt.value, err)
		}
		if !got.Equal(tt.want) && len(got.Allow) != len(tt.want.Allow) {
			t.Errorf("%s %q: %+v, want %+v", tt.option, tt.value, got, tt.want)
		}
		for _, c := range tt.want.Allow {
			found := false
			for _, g := range got.Allow {
				found = found || g == c
			}
			if !found {
				t.Errorf("%s %q: %+v lacks %+v", tt.option, tt.value, got.Allow, c)
			}
		}
	}
}

func randomOptions(r *rand.Rand) Options {
	values := map[string][]string{
		"choice": {"random", "least-active"}, "affinity": {"none", "client:1m", "client:2m", "source:1m"},
		"locality": {"none", "zone", "agent"}, "drain": {"0s", "1s", "2s"}, "allow": {"10.0.0.0/8", "cgroup:a", "10.0.0.0/8,cgroup:b"},
	}
	var o Options
	for option, list := range values {
		if r.IntN(2) == 0 {
			if err := o.Set(option, list[r.IntN(len(list))]); err != nil {
				panic(fmt.Sprint(option, err))
			}
		}
	}
	return o
}

func TestTheOrderOfLabelsDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		a, b, c := randomOptions(r), randomOptions(r), randomOptions(r)
		for name, pair := range map[string][2]Options{
			"swapped": {a.join(b), b.join(a)}, "twice": {a.join(b), a.join(b).join(b)},
			"grouped": {a.join(b).join(c), a.join(b.join(c))}, "nothing said": {a, Options{}.join(a)},
		} {
			if x, y := pair[0], pair[1]; !x.Equal(y) || x.said != y.said {
				t.Fatalf("%s: %+v and %+v", name, x, y)
			}
		}
	}
}

func TestAppsThatShareAVIPShareItsOptions(t *testing.T) {
	with := func(task *model.Task, labels string) *model.Task {
		task.Ports[0].Labels = append(task.Ports[0].Labels, parseLabels(labels)...)
		return task
	}
	blue := with(newTask("blue", model.Running, []string{"9.0.0.1"}, "/web:80"), "VIP_0_DRAIN=5s VIP_0_AFFINITY=client:1m VIP_0_WEIGHT=0")
	green := with(newTask("green", model.Running, []string{"9.0.0.2"}, "/web:80"), "VIP_0_DRAIN=7s VIP_0_LOCALITY=zone")
	plain := newTask("plain", model.Running, []string{"9.0.0.3"}, "/web:80")
	cfg := DefaultConfig()
	said := func(option, value string) (o Options) {
		if err := o.Set(option, value); err != nil {
			t.Fatal(err)
		}
		return o
	}
	cfg.Options = said("choice", "least-active")
	cfg.Services = map[string]Options{"web.marathon": said("affinity", "none")}
	for name, tc := range map[string]struct {
		cfg  Config
		want Options
	}{
		"labels join":                     {DefaultConfig(), Options{Drain: 7 * time.Second, Locality: SameZone, Affinity: Affinity{ByNamespace, time.Minute}}},
		"the configuration has last word": {cfg, Options{Drain: 7 * time.Second, Locality: SameZone, Choice: LeastActive}},
	} {
		t.Run(name, func(t *testing.T) {
			table := Build(nil, snapshotOf(appOf("a", blue), appOf("b", green), appOf("c", plain)), tc.cfg)
			for _, s := range table.Services.All() {
				if !s.Options.Equal(tc.want) || s.Options.said != 0 {
					t.Errorf("options (-want +got):\n%s", cmp.Diff(fmt.Sprintf("%+v", tc.want), fmt.Sprintf("%+v", s.Options)))
				}
			}
		})
	}
}

func FuzzOptions(f *testing.F) {
	for _, seed := range [][2]string{{"affinity", "client:10m"}, {"drain", "1h"}, {"allow", "10.0.0.0/8,cgroup:/a"}, {"locality", "zone"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, option, value string) {
		o := Options{Drain: 7}
		if err := o.Set(option, value); err != nil && !o.Equal(Options{Drain: 7}) {
			t.Errorf("an error changed something: %+v", o)
		}
	})
}
