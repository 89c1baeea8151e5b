package vip

import (
	"fmt"
	"net/netip"
	"testing"

	"waggle/model"
)

// crowd returns a world of n tasks, three to an app, each app with one named
// VIP.
func crowd(n int) *model.Snapshot {
	e := model.Groups[model.AppKey, *model.App]{}.Edit()
	for i := range n / 3 {
		app := crowdApp(i, model.Healthy)
		e.Set(app.Key, app)
	}
	return &model.Snapshot{Apps: e.Groups()}
}

func crowdApp(i int, first model.Health) *model.App {
	app := appOf(fmt.Sprint("app", i))
	for j := range 3 {
		addr := netip.AddrFrom4([4]byte{9, byte(i >> 8), byte(i), byte(j)})
		t := newTask(fmt.Sprintf("app%d.%d", i, j), model.Running, []string{addr.String()}, fmt.Sprintf("/group/svc%d:80", i))
		t.Health = first
		app.Tasks, first = append(app.Tasks, t), model.Healthy
	}
	return app
}

// BenchmarkBuildOneChange is what one task's change of health costs.
func BenchmarkBuildOneChange(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			snap := crowd(n)
			table := Build(nil, snap, DefaultConfig())
			var flips [2]*model.Snapshot
			for i, h := range []model.Health{model.Unhealthy, model.Healthy} {
				e := snap.Apps.Edit()
				app := crowdApp(7, h)
				e.Set(app.Key, app)
				flips[i] = &model.Snapshot{Apps: e.Groups()}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table = Build(table, flips[i&1], DefaultConfig())
			}
		})
	}
}

// BenchmarkBuildOneApp is what a new app with a new name, and its end, cost.
func BenchmarkBuildOneApp(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			snap := crowd(n)
			table := Build(nil, snap, DefaultConfig())
			e := snap.Apps.Edit()
			app := crowdApp(n, model.Healthy)
			e.Set(app.Key, app)
			flips := [2]*model.Snapshot{{Apps: e.Groups()}, snap}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table = Build(table, flips[i&1], DefaultConfig())
			}
		})
	}
}

// BenchmarkBuildFromNothing is what a start costs.
func BenchmarkBuildFromNothing(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			snap := crowd(n)
			b.ReportAllocs()
			for b.Loop() {
				Build(nil, snap, DefaultConfig())
			}
		})
	}
}

// BenchmarkBuildOneChangeInABigApp is what one task's change of health costs
// among the tasks of its own app.
func BenchmarkBuildOneChangeInABigApp(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			flips := bigApp(n)
			table := Build(nil, flips[0], DefaultConfig())
			b.ReportAllocs()
			for i := 1; b.Loop(); i++ {
				table = Build(table, flips[i&1], DefaultConfig())
			}
		})
	}
}

// bigApp returns two worlds of one app of n tasks, which differ in one.
func bigApp(n int) (worlds [2]*model.Snapshot) {
	app := appOf("big")
	for i := range n {
		j := i * 7919 % n // addresses know nothing of task ids
		addr := netip.AddrFrom4([4]byte{9, 1, byte(j >> 8), byte(j)})
		app.Tasks = append(app.Tasks, newTask(fmt.Sprintf("big.%06d", i), model.Running, []string{addr.String()}, "/big:80"))
	}
	e := model.Groups[model.AppKey, *model.App]{}.Edit()
	e.Set(app.Key, app)
	worlds[0] = &model.Snapshot{Apps: e.Groups()}
	other := *app
	other.Tasks = append([]*model.Task(nil), app.Tasks...)
	ill := *app.Tasks[n/2]
	ill.Health = model.Unhealthy
	other.Tasks[n/2] = &ill
	e.Set(app.Key, &other)
	worlds[1] = &model.Snapshot{Apps: e.Groups()}
	return worlds
}
