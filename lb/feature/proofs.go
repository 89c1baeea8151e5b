package feature

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// features are the rows of the table.
func features() []feature {
	all := []Column{EBPF, EBPF61, IPVS}
	ebpf := []Column{EBPF, EBPF61}
	return []feature{
		{"TCP over IPv4", all, func(w *world) error { return tcp(w, vip4, awayAddr.Addr()) }},
		{"TCP over IPv6", all, func(w *world) error { return tcp(w, vip6, away6.Addr()) }},
		{"UDP over IPv4", all, func(w *world) error { return udp(w, vip4, awayAddr.Addr()) }},
		{"UDP over IPv6", all, func(w *world) error { return udp(w, vip6, away6.Addr()) }},
		{"an IPv4 VIP from an IPv6 socket", all, mapped},
		{"weights", all, weights},
		{"refused at once without backends", all, refused},
		{"unhealthy backends where there are no others", all, unhealthy},
		{"the backend sees the client's address", all, ownAddress},
		{"affinity", all, affinity},
		{"affinity of each cgroup by itself", ebpf, cgroupAffinity},
		{"the less busy backend", all, leastActive},
		{"only for some clients", ebpf, allow},
		{"some clients left alone", ebpf, exclude},
		{"getpeername shows the VIP where asked", all, peername},
		{"connections outlive a drain's begin", all, drain},
		{"the end of a drain ends them", all, drainEnd},
		{"a restart refuses nobody", all, restart},
		{"what others took away comes back", all, repair},
		{"containers, without being registered, by their own address", ebpf, unregistered},
		{"containers registered as in DC/OS, by their own address", all, registered},
		{"what is forwarded for others", []Column{IPVS}, forwarded},
		{"connections counted by backend", ebpf, counted},
		{"failed connects counted, for ejection", ebpf, failures},
	}
}

func tcp(w *world, f vip.Frontend, at netip.Addr) error {
	b := w.backend(at)
	return errors.Join(w.serve(f, 0, vip.Options{}, b), w.reaches(f, b))
}

func udp(w *world, f vip.Frontend, at netip.Addr) error {
	f.Proto = model.UDP
	var pc net.PacketConn
	w.away.Must(w, func() (err error) {
		pc, err = net.ListenPacket("udp", netip.AddrPortFrom(at, 0).String())
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(writerTo{pc, from}, "%s %s", pc.LocalAddr(), from)
		}
	}()
	w.Cleanup(func() { pc.Close(); <-done })
	b := vip.Backend{Addr: netip.MustParseAddrPort(pc.LocalAddr().String()), Weight: 1}
	if err := w.serve(f, 0, vip.Options{}, b); err != nil {
		return err
	}
	var got conn
	err := w.node.Do(func() error {
		c, err := net.Dial("udp", f.Addr.String())
		if err != nil {
			return err
		}
		defer c.Close()
		buf := make([]byte, 100)
		if _, err := c.Write([]byte("?")); err != nil {
			return err
		}
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		n, err := c.Read(buf)
		return errors.Join(err, got.parse(string(buf[:n])))
	})
	return errors.Join(err, disagree(got.to == b.Addr, "%s answers, not %s", got.to, b.Addr))
}

type writerTo struct {
	net.PacketConn
	to net.Addr
}

// Write implements io.Writer.
func (w writerTo) Write(p []byte) (int, error) { return w.WriteTo(p, w.to) }

// mapped connects a socket of IPv6 to ::ffff:a.b.c.d.
func mapped(w *world) error {
	b := w.backend(awayAddr.Addr())
	if err := w.serve(vip4, 0, vip.Options{}, b); err != nil {
		return err
	}
	return w.node.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrInet6{Addr: vip4.Addr.Addr().As16(), Port: int(vip4.Addr.Port())})
	})
}

func weights(w *world) error {
	one, two := w.backend(awayAddr.Addr()), w.backend(awayAddr.Addr())
	two.Weight = 3
	if err := w.serve(vip4, 0, vip.Options{}, sorted(one, two)...); err != nil {
		return err
	}
	// 150 +- 6 of 200, and 100 +- 7 without weights.
	got, err := w.shares(vip4, 200)
	return errors.Join(err, disagree(got[two.Addr] > 122 && got[two.Addr] < 180, "shares %v of 1 to 3", got))
}

func sorted(a, b vip.Backend) []vip.Backend {
	if a.Addr.Compare(b.Addr) > 0 {
		a, b = b, a
	}
	return []vip.Backend{a, b}
}

func refused(w *world) error {
	if err := w.serve(vip4, 0, vip.Options{}); err != nil {
		return err
	}
	_, err := w.ask(w.node, vip4.Addr)
	return disagree(errors.Is(err, unix.ECONNREFUSED), "connect: %v", err)
}

func unhealthy(w *world) error {
	ill, well := w.backend(awayAddr.Addr()), w.backend(awayAddr.Addr())
	ill.State, well.State = vip.Unhealthy, vip.Up
	if err := w.serve(vip4, 0, vip.Options{}, sorted(ill, well)...); err != nil {
		return err
	}
	got, err := w.shares(vip4, 10)
	return errors.Join(err, disagree(got[ill.Addr] == 0, "shares %v with one unhealthy", got),
		w.serve(vip4, 0, vip.Options{}, ill), w.reaches(vip4, ill))
}

func ownAddress(w *world) error {
	if err := w.serve(vip4, 0, vip.Options{}, w.backend(awayAddr.Addr())); err != nil {
		return err
	}
	c, err := w.ask(w.node, vip4.Addr)
	if err != nil {
		return err
	}
	return disagree(c.seen == nodeAddr.Addr(), "it sees %s", c.seen)
}

func affinity(w *world) error {
	o := vip.Options{Affinity: vip.Affinity{By: vip.ByNamespace, Timeout: time.Hour}}
	if err := w.serve(vip4, 0, o, sorted(w.backend(awayAddr.Addr()), w.backend(awayAddr.Addr()))...); err != nil {
		return err
	}
	got, err := w.shares(vip4, 30)
	return errors.Join(err, disagree(len(got) == 1, "shares %v", got))
}

// cgroupAffinity has two cgroups connect to twenty services of two backends: to
// have the same ones in all is as likely as nothing.
func cgroupAffinity(w *world) error {
	if w.bed.Cgroup == "" {
		return errNotOffered
	}
	o := vip.Options{Affinity: vip.Affinity{By: vip.ByCgroup, Timeout: time.Hour}}
	backends := sorted(w.backend(awayAddr.Addr()), w.backend(awayAddr.Addr()))
	f := func(i int) vip.Frontend {
		return vip.Frontend{Addr: netip.AddrPortFrom(vip4.Addr.Addr(), uint16(80+i)), Proto: model.TCP}
	}
	for i := range 20 {
		if err := w.serve(f(i), 0, o, backends...); err != nil {
			return err
		}
	}
	var got [2]string
	for n := range got {
		nested := filepath.Join(w.bed.Cgroup, fmt.Sprint("nested", n))
		if err := os.Mkdir(nested, 0o755); err != nil {
			return err
		}
		testnet.Enter(w, nested)
		for again := range 2 {
			all := ""
			for i := range 20 {
				c, err := w.ask(w.node, f(i).Addr)
				if err != nil {
					return err
				}
				all += c.to.String() + " "
			}
			if again == 1 && all != got[n] {
				return fmt.Errorf("a cgroup had %s and then %s", got[n], all)
			}
			got[n] = all
		}
	}
	return disagree(got[0] != got[1], "two cgroups have the same twenty backends")
}

// leastActive holds connections: by chance the two would differ by 14 and more.
func leastActive(w *world) error {
	one, two := w.backend(awayAddr.Addr()), w.backend(awayAddr.Addr())
	if err := w.serve(vip4, 0, vip.Options{Choice: vip.LeastActive}, sorted(one, two)...); err != nil {
		return err
	}
	got := map[netip.AddrPort]int{}
	for range 200 {
		c, err := w.dial(w.node, vip4.Addr)
		if err != nil {
			return err
		}
		defer c.Close()
		got[c.to]++
	}
	more := got[one.Addr] - got[two.Addr]
	return disagree(more >= -10 && more <= 10, "open connections %v", got)
}

func allow(w *world) error {
	b := w.backend(awayAddr.Addr())
	other := vip.Frontend{Addr: netip.MustParseAddrPort("11.0.0.2:80"), Proto: model.TCP}
	err := errors.Join(
		w.serve(vip4, 0, vip.Options{Allow: []vip.Client{{Namespace: w.node.File(w)}}}, b),
		w.serve(other, 0, vip.Options{Allow: []vip.Client{{Namespace: w.away.File(w)}}}, b),
	)
	if err != nil {
		return err
	}
	_, denied := w.ask(w.node, other.Addr)
	return errors.Join(w.reaches(vip4, b), disagree(errors.Is(denied, unix.EPERM), "who is not allowed: %v", denied))
}

func exclude(w *world) error {
	b := w.backend(awayAddr.Addr())
	w.cfg.Exclude = []lb.Client{{Namespace: w.node.File(w)}}
	if err := w.serve(vip4, 0, vip.Options{}, b); err != nil {
		return err
	}
	balanced := w.reaches(vip4, b) == nil
	w.cfg.Exclude = nil
	return errors.Join(disagree(!balanced, "it is balanced"), w.serve(vip4, 0, vip.Options{}, b), w.reaches(vip4, b))
}

func peername(w *world) error {
	w.cfg.Peername = true
	if err := w.serve(vip4, 0, vip.Options{}, w.backend(awayAddr.Addr())); err != nil {
		return err
	}
	c, err := w.ask(w.node, vip4.Addr)
	if err != nil {
		return err
	}
	return disagree(c.RemoteAddr().String() == vip4.Addr.String(), "it shows %s", c.RemoteAddr())
}

func unregistered(w *world) error { return fromGuest(w, guestAddr.Addr()) }

func registered(w *world) error {
	if err := w.register(w.guest); err != nil {
		return err
	}
	return fromGuest(w, guestAddr.Addr())
}

// forwarded connects from a namespace whose processes are nobody's business
// here, as those of a virtual machine are.
func forwarded(w *world) error {
	if w.bed.Cgroup != "" {
		testnet.Enter(w, testnet.Cgroup(w))
	}
	return fromGuest(w, nodeAddr.Addr())
}

// fromGuest connects from the container until the backend sees that as seen.
func fromGuest(w *world, seen netip.Addr) error {
	if err := w.serve(vip4, 0, vip.Options{}, w.backend(awayAddr.Addr())); err != nil {
		return err
	}
	return w.within(func() error {
		c, err := w.ask(w.guest, vip4.Addr)
		if err != nil {
			return err
		}
		return disagree(c.seen == seen, "the backend sees %s", c.seen)
	})
}

func counted(w *world) error {
	d, ok := w.plane.(counter)
	if !ok {
		return errNotOffered
	}
	b := w.backend(awayAddr.Addr())
	if err := errors.Join(w.serve(vip4, 0, vip.Options{}, b), w.reaches(vip4, b), w.reaches(vip4, b)); err != nil {
		return err
	}
	for f, st := range d.BackendStats() {
		if f == vip4 && st.Addr == b.Addr && st.Connections == 2 {
			return nil
		}
	}
	return errors.New("two connections are not counted")
}

func failures(w *world) error {
	d, ok := w.plane.(counter)
	if !ok {
		return errNotOffered
	}
	nobody := vip.Backend{Addr: netip.AddrPortFrom(awayAddr.Addr(), 1), Weight: 1}
	if err := w.serve(vip4, 0, vip.Options{}, nobody); err != nil {
		return err
	}
	if _, err := w.ask(w.node, vip4.Addr); err == nil {
		return errors.New("somebody answers")
	}
	for f, st := range d.BackendStats() {
		if f == vip4 && st.Failures == 1 {
			return nil
		}
	}
	return errors.New("a failed connect is not counted")
}

// What the agent finds out of a Dataplane.
type (
	repairer interface {
		Repair(ctx context.Context) error
	}
	counter interface {
		BackendStats() iter.Seq2[vip.Frontend, lb.BackendStats]
	}
)
