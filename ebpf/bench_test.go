package ebpf

import (
	"fmt"
	"net/netip"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// many returns n services of the given number of backends.
func many(n, backends int) *lb.Plan {
	e := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	for i := range n {
		s := &lb.Service{Frontend: tcp(netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), 80))}
		for j := range backends {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)})
			s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrPortFrom(a, 8080), Weight: 1})
		}
		e.Set(s.Frontend, s)
	}
	return &lb.Plan{Services: e.Groups()}
}

func benchBed(b *testing.B) *bed {
	bed := newBed(b)
	def := DefaultConfig()
	bed.cfg.Services, bed.cfg.Slots, bed.cfg.Backends = def.Services, def.Slots, def.Backends
	return bed
}

// BenchmarkApplyOneChange is the time from a Plan in memory to connections that
// follow it, where one service among many has changed.
func BenchmarkApplyOneChange(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("%d services", n), func(b *testing.B) {
			d := benchBed(b).open(b)
			base := many(n, 10)
			f := tcp(addr("11.0.0.1:80"))
			old, _ := base.Services.Get(f)
			e := base.Services.Edit()
			e.Set(f, &lb.Service{Frontend: f, Backends: old.Backends[1:]})
			plans := []*lb.Plan{{Services: e.Groups()}, base}
			if err := d.Apply(b.Context(), base); err != nil {
				b.Fatal(err)
			}
			i := 0
			for b.Loop() {
				if err := d.Apply(b.Context(), plans[i%2]); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkApplyOneMore is one service more and one less, in turn. That one
// more waits for the kernel to let go of the one before.
func BenchmarkApplyOneMore(b *testing.B) {
	d := benchBed(b).open(b)
	base := many(1000, 10)
	e := base.Services.Edit()
	e.Set(tcp(addr("11.255.0.1:80")), service("11.255.0.1:80", addr("10.0.0.1:1")))
	plans := []*lb.Plan{{Services: e.Groups()}, base}
	if err := d.Apply(b.Context(), base); err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		if err := d.Apply(b.Context(), plans[i%2]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkApplyFirst(b *testing.B) {
	p := many(10000, 100)
	for b.Loop() {
		b.StopTimer()
		d := benchBed(b).open(b)
		b.StartTimer()
		if err := d.Apply(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkRestart is what a new daemon needs until it has adopted and compared
// what the one before it left.
func BenchmarkRestart(b *testing.B) {
	bed := benchBed(b)
	d := bed.open(b)
	p := many(10000, 100)
	if err := d.Apply(b.Context(), p); err != nil {
		b.Fatal(err)
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d, err := Open(bed.cfg, zap.NewNop(), nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Apply(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRepair(b *testing.B) {
	d := benchBed(b).open(b)
	if err := d.Apply(b.Context(), many(10000, 100)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := d.Repair(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect is one TCP connection, opened and reset.
func BenchmarkConnect(b *testing.B) {
	for _, tc := range []struct {
		name             string
		programs, viaVIP bool
		peername         bool
	}{
		{name: "no programs"},
		{name: "no VIP", programs: true},
		{name: "VIP", programs: true, viaVIP: true},
		{name: "VIP with Peername", programs: true, viaVIP: true, peername: true},
	} {
		b.Run(tc.name, func(b *testing.B) {
			bed := benchBed(b)
			to := bed.sink(b, "127.0.0.1:0")
			if tc.programs {
				s := service("11.255.0.1:80", to)
				s.Peername = tc.peername
				e := many(10000, 1).Services.Edit()
				e.Set(s.Frontend, s)
				if err := bed.open(b).Apply(b.Context(), &lb.Plan{Services: e.Groups()}); err != nil {
					b.Fatal(err)
				}
			}
			if tc.viaVIP {
				bed.ns.Must(b, func() error { _, err := connect(addr("11.255.0.1:80")); return err })
				to = addr("11.255.0.1:80")
			}
			bed.ns.Must(b, func() error {
				for b.Loop() {
					if _, err := connect(to); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// BenchmarkDisconnect ends 500 of 1 000 TCP sockets of one namespace, and looks
// through all namespaces for them.
func BenchmarkDisconnect(b *testing.B) {
	bed := newBed(b)
	b.Cleanup(bed.occupy(b))
	d := bed.open(b)
	gone, stays := bed.ns.Echo(b, addr("127.0.0.1:0")), bed.ns.Echo(b, addr("127.0.0.1:0"))
	hold := func(to netip.AddrPort) (fds []int) {
		bed.ns.Must(b, func() error {
			for range 500 {
				fd, _, err := dial(to)
				if err != nil {
					return err
				}
				fds = append(fds, fd)
			}
			return nil
		})
		return fds
	}
	drop := func(fds []int) {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	living := hold(stays)
	defer drop(living)
	drains := []lb.Drain{{Frontend: tcp(addr(vip4)), Backend: gone}}
	for b.Loop() {
		b.StopTimer()
		fds := hold(gone)
		b.StartTimer()
		n, err := d.Disconnect(drains)
		b.StopTimer()
		if err != nil || n < len(fds) {
			b.Fatalf("Disconnect = %d, %v", n, err)
		}
		drop(fds)
		b.StartTimer()
	}
}
