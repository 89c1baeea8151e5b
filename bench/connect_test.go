package bench

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

const (
	backends = 100
	batch    = 20 // connects between two looks at the clock
)

// BenchmarkConnect compares connecting through a VIP with connecting to the
// same backends directly, in turn, by the CPU time of the connecting thread.
// One operation is one batch of each.
func BenchmarkConnect(b *testing.B) {
	for _, services := range []int{1, 1_000, 10_000} {
		b.Run(fmt.Sprint(services, "vips"), func(b *testing.B) {
			ns := testnet.New(b)
			dests := listen(b, ns)
			vips := program(b, services, dests)
			var got ratios
			ns.Must(b, func() error {
				for i := 0; b.Loop(); i++ {
					direct, err := cpuOf(dests, i*batch)
					if err != nil {
						return err
					}
					balanced, err := cpuOf(vips, i*batch)
					if err != nil {
						return err
					}
					got = append(got, float64(balanced)/float64(direct))
				}
				return nil
			})
			got.report(b, "cpu-of-direct")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func listen(b *testing.B, ns *testnet.Namespace) []netip.AddrPort {
	b.Helper()
	var out []netip.AddrPort
	for range backends {
		var l net.Listener
		ns.Must(b, func() (err error) { l, err = net.Listen("tcp4", "127.0.0.1:0"); return err })
		b.Cleanup(func() { l.Close() })
		go acceptAll(l)
		out = append(out, l.Addr().(*net.TCPAddr).AddrPort())
	}
	return out
}

// program makes n VIPs that all lead to dests, and returns some of them.
func program(b *testing.B, n int, dests []netip.AddrPort) []netip.AddrPort {
	b.Helper()
	plane := openPlane(b)
	var list []lb.Backend
	for _, d := range dests {
		list = append(list, lb.Backend{Addr: d, Weight: 1})
	}
	services := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	var vips []netip.AddrPort
	for i := range n {
		f := vip.Frontend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 80), Proto: model.TCP}
		services.Set(f, &lb.Service{Frontend: f, Backends: list})
		if len(vips) < backends {
			vips = append(vips, f.Addr)
		}
	}
	if err := plane.Apply(b.Context(), &lb.Plan{Services: services.Groups()}); err != nil {
		b.Fatal(err)
	}
	return vips
}

// cpuOf connects a batch of times, rotating over addrs from the i-th on, and
// returns the CPU time this thread took.
func cpuOf(addrs []netip.AddrPort, i int) (time.Duration, error) {
	before, err := threadCPU()
	if err != nil {
		return 0, err
	}
	for range batch {
		if err := connect(addrs[i%len(addrs)]); err != nil {
			return 0, err
		}
		i++
	}
	after, err := threadCPU()
	return after - before, err
}

// connect connects and resets, so that no socket lingers in TIME_WAIT.
func connect(to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return fmt.Errorf("connect to %s: %w", to, err)
	}
	return nil
}

func threadCPU() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano()), err
}
