package ebpf

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// BenchmarkProgram prints what `make bench-program` promises, as medians with
// the best and the worst: programming an empty kernel, one change in a full one,
// and what the hook adds to a connect, seen on one UDP socket that connects
// again and again.
func BenchmarkProgram(b *testing.B) {
	b.Run("cold 10000 VIPs x 100 backends", func(b *testing.B) {
		p := many(10_000, 100)
		var took []float64
		for b.Loop() {
			d := benchBed(b).open(b)
			took = append(took, cpu(b, func() error { return d.Apply(b.Context(), p) }))
			if err := d.Close(); err != nil {
				b.Fatal(err)
			}
		}
		report(b, took, 1e6, "ms")
	})
	b.Run("one change among 10000", func(b *testing.B) {
		d := benchBed(b).open(b)
		base := many(10_000, 100)
		f := tcp(addr("11.0.0.1:80"))
		old, _ := base.Services.Get(f)
		e := base.Services.Edit()
		e.Set(f, &lb.Service{Frontend: f, Backends: old.Backends[1:]})
		plans := []*lb.Plan{{Services: e.Groups()}, base}
		if err := d.Apply(b.Context(), base); err != nil {
			b.Fatal(err)
		}
		var took []float64
		i := 0
		for b.Loop() {
			took = append(took, cpu(b, func() error { return d.Apply(b.Context(), plans[i%2]) }))
			i++
		}
		report(b, took, 1e3, "µs")
	})
	b.Run("hook", benchHook)
}

// cpu returns the CPU time in ns that the thread spends in f.
func cpu(tb testing.TB, f func() error) float64 {
	tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime(tb)
	if err := f(); err != nil {
		tb.Fatal(err)
	}
	return float64(threadTime(tb) - before)
}

func threadTime(tb testing.TB) int64 {
	tb.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		tb.Fatal(err)
	}
	return ts.Nano()
}

func report(b *testing.B, took []float64, unit float64, name string) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(took[len(took)/2]/unit, "p50-"+name)
	b.ReportMetric(took[0]/unit, "min-"+name)
	b.ReportMetric(took[len(took)-1]/unit, "max-"+name)
}

// benchHook connects one UDP socket in turn to what is no VIP without programs
// attached, to the same with them, and to VIPs among 1, 1 000 and 10 000: UDP
// ones, which a socket remembers, and ones that also count. Batches are
// interleaved and each is compared with the direct one of its round.
func benchHook(b *testing.B) {
	type line struct {
		name string
		bed  *bed
		to   netip.AddrPort
		ns   []float64
	}
	direct := &line{name: "direct", bed: newBed(b), to: addr("127.0.0.1:9")}
	lines := []*line{direct}
	for _, n := range []int{1, 1000, 10_000} {
		for _, choice := range []lb.Choice{lb.Random, lb.LeastActive} {
			name := map[lb.Choice]string{lb.Random: "plain", lb.LeastActive: "tracked"}[choice]
			bed := benchBed(b)
			if err := bed.open(b).Apply(b.Context(), manyUDP(n, choice)); err != nil {
				b.Fatal(err)
			}
			lines = append(lines, &line{name: fmt.Sprintf("%s-%d", name, n), bed: bed, to: addr("11.0.0.0:80")})
			if choice == lb.Random {
				lines = append(lines, &line{name: fmt.Sprintf("miss-%d", n), bed: bed, to: direct.to})
			}
		}
	}
	const batch = 1000
	for b.Loop() {
		for _, l := range lines {
			if err := os.WriteFile(filepath.Join(l.bed.cfg.Cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
				b.Fatal(err)
			}
			l.bed.ns.Must(b, func() error {
				took, err := connectUDP(b, l.to, batch)
				l.ns = append(l.ns, took/batch)
				return err
			})
		}
	}
	base := median(direct.ns)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(base, "direct-ns")
	for _, l := range lines[1:] {
		b.ReportMetric(median(l.ns)-base, l.name+"-ns")
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// connectUDP returns the CPU time in ns of connecting one UDP socket to a.
func connectUDP(tb testing.TB, a netip.AddrPort, times int) (float64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	return cpu(tb, func() error {
		for range times {
			if err := unix.Connect(fd, to); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

// manyUDP returns n UDP services whose backends are of the loopback network.
func manyUDP(n int, choice lb.Choice) *lb.Plan {
	e := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	for i := range n {
		s := &lb.Service{Choice: choice, Frontend: udp(netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), 80))}
		for j := range 100 {
			s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(j)}), 9), Weight: 1})
		}
		e.Set(s.Frontend, s)
	}
	return &lb.Plan{Services: e.Groups()}
}
