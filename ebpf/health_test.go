package ebpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"

	"waggle/internal/testnet"
	"waggle/lb"
)

func TestFailedConnectsAndLatencyAreNotedWhereWatched(t *testing.T) {
	b := newBed(t)
	b.cfg.Watch = true
	d := b.open(t)
	dead, live := addr("127.0.0.2:1"), b.sink(t, "127.0.0.1:0")
	bad, good := service(vip4, dead), service("11.0.0.2:80", live)
	apply(t, d, bad, good)
	const tries = 7
	for range tries {
		if _, err := b.peer(addr(vip4)); !isRefused(err) {
			t.Fatalf("connect to a dead backend: %v", err)
		}
		if to, err := b.peer(addr("11.0.0.2:80")); err != nil || to != live {
			t.Fatalf("%s, %v", to, err)
		}
	}
	if st := stats(d)[bad.Frontend][0]; st.Failures != tries || st.Connections != tries || st.Latency != 0 {
		t.Errorf("of the dead one: %+v", st)
	}
	if st := stats(d)[good.Frontend][0]; st.Failures != 0 || st.Latency <= 0 || st.Latency > 1e9 {
		t.Errorf("of the live one: %+v", st)
	}
	eventually(t, func() error {
		for _, e := range d.Events() {
			if e.What == FailedConnect && e.VIP == bad.Frontend && e.Backend == dead {
				return nil
			}
		}
		return fmt.Errorf("no event of a failed connect in %+v", d.Events())
	})
	// Without Watch the program goes, and with it the price.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	b.cfg.Watch = false
	d = b.open(t)
	apply(t, d, bad, good)
	if n := attached(t, b.cfg.Cgroup); n != everyHook {
		t.Errorf("%d programs are attached, want %d", n, everyHook)
	}
	if f := d.services.load(d.v4.held[good.Frontend].id).flags(); f != 0 {
		t.Errorf("flags %b without Watch", f)
	}
}

func TestTheKernelTellsOfRefusals(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	none := service(vip4)
	apply(t, d, none)
	for range 100 {
		if _, err := b.peer(addr(vip4)); !isRefused(err) {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		if len(d.Events()) == 0 {
			return errors.New("no event")
		}
		return nil
	})
	if e := d.Events(); len(e) > 20 || e[0].What != NoBackend || e[0].VIP != none.Frontend || e[0].Cgroup == 0 {
		t.Errorf("%d events of 100 refusals in a moment, the first %+v", len(e), e[0])
	}
}

func TestWhatSomebodyDetachedOrUnpinnedIsBack(t *testing.T) {
	for name, damage := range map[string]func(b *bed, d *Dataplane) error{
		"a program detached": func(b *bed, d *Dataplane) error {
			return detach(d.pins.linkPath(bpfProgConnect4))
		},
		"every program detached": func(b *bed, d *Dataplane) error {
			var err error
			for _, h := range hooks(false) {
				err = errors.Join(err, detach(d.pins.linkPath(h.name)))
			}
			return err
		},
		"a link's pin removed": func(b *bed, d *Dataplane) error { return os.Remove(d.pins.linkPath(bpfProgConnect4)) },
		"a map's pin removed": func(b *bed, d *Dataplane) error {
			return os.Remove(filepath.Join(d.pins.dir, bpfMapVip4))
		},
		"every pin removed": func(b *bed, d *Dataplane) error {
			entries, err := os.ReadDir(d.pins.dir)
			for _, e := range entries {
				err = errors.Join(err, os.Remove(filepath.Join(d.pins.dir, e.Name())))
			}
			return errors.Join(err, os.Remove(d.pins.dir))
		},
		"a program replaced": func(b *bed, d *Dataplane) error {
			other, err := ebpf.NewProgram(&ebpf.ProgramSpec{
				Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "MIT",
				Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
			})
			if err != nil {
				return err
			}
			defer other.Close()
			l, err := link.LoadPinnedLink(d.pins.linkPath(bpfProgConnect4), nil)
			if err != nil {
				return err
			}
			return errors.Join(l.Update(other), l.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			d := b.open(t)
			to := b.sink(t, "127.0.0.1:0")
			web := service(vip4, to)
			apply(t, d, web)
			before := b.pinned(t)
			if err := damage(b, d); err != nil {
				t.Fatal(err)
			}
			if err := d.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, err := b.peer(addr(vip4)); err != nil || got != to {
				t.Errorf("connect: %s, %v", got, err)
			}
			if n := attached(t, b.cfg.Cgroup); n != everyHook {
				t.Errorf("%d programs are attached, want %d", n, everyHook)
			}
			if after := b.pinned(t); len(after) != len(before) {
				t.Errorf("pinned were %v, are %v", before, after)
			}
			if d.repairs == 0 {
				t.Error("no repair is counted")
			}
			// What is pinned is what is in use: a restart goes on from there.
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = b.open(t)
			sameState(t, wantState(plan(web)), kernelState(t, d))
			if got, err := b.peer(addr(vip4)); err != nil || got != to {
				t.Errorf("connect after a restart: %s, %v", got, err)
			}
		})
	}
}

// TestAProgramThatTheKernelDoesNotTakeIsLeftOut has the kernel refuse programs
// one at a time.
func TestAProgramThatTheKernelDoesNotTakeIsLeftOut(t *testing.T) {
	for _, h := range hooks(true) {
		t.Run(h.name, func(t *testing.T) {
			testnet.NeedRoot(t)
			spec, err := loadBpf()
			if err != nil {
				t.Fatal(err)
			}
			for name := range spec.Maps {
				spec.Maps[name].Pinning = ebpf.PinNone
				if !strings.HasPrefix(name, ".") && spec.Maps[name].MaxEntries == 1 {
					spec.Maps[name].MaxEntries = 64
				}
			}
			spec.Programs[h.name].Instructions = asm.Instructions{asm.Return()} // of what was never set
			missing := map[string]error{}
			coll, err := loadOneByOne(spec, ebpf.CollectionOptions{}, missing, hooks(true))
			if h.needed {
				if err == nil {
					t.Error("it loads without a program that is needed")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer coll.Close()
			if len(missing) != 1 || missing[h.name] == nil || len(coll.Programs) != len(hooks(true))-1 {
				t.Errorf("missing %v, %d programs loaded", missing, len(coll.Programs))
			}
		})
	}
}

func TestUDPThatTheKernelCannotBalanceIsNotSupported(t *testing.T) {
	d := newBed(t).open(t)
	d.recipes.udp = false
	err := d.Apply(t.Context(), plan(udpService(vip4, addr("127.0.0.1:53")), service("11.0.0.2:80")))
	var failed *lb.ServiceError
	if !errors.As(err, &failed) || failed.Frontend != udp(addr(vip4)) || !errors.Is(err, lb.ErrUnsupported) {
		t.Errorf("Apply = %v", err)
	}
}

// TestSocketsWhoseEndIsNotToldAreNotCounted: a count that only grows would send
// everything to the backend that came last.
func TestSocketsWhoseEndIsNotToldAreNotCounted(t *testing.T) {
	s := service(vip4, addr("10.0.0.1:1"))
	s.Choice = lb.LeastActive
	for ends, want := range map[bool]uint16{true: flagRemember | flagCount | flagLeast, false: 0} {
		to, err := (&recipes{ends: ends}).recipe(s)
		if err != nil || to.flags != want {
			t.Errorf("with ends %v: flags %b, %v, want %b", ends, to.flags, err, want)
		}
	}
}

// TestA03_5_APartialPictureTakesNoBackendAway is row 5: a daemon that restarts
// and knows less than the kernel takes nothing away, until it knows all.
func TestA03_5_APartialPictureTakesNoBackendAway(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	one, two, three := addr("127.0.0.1:81"), addr("127.0.0.1:82"), addr("127.0.0.1:83")
	apply(t, d, service(vip4, one, two))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = b.open(t)
	for _, step := range []struct {
		lb.Service
		partial bool
		want    *lb.Service
	}{
		{Service: *service(vip4, three), partial: true, want: service(vip4, one, two, three)},
		{Service: *service(vip4, two, three), partial: true, want: service(vip4, one, two, three)},
		{Service: *service(vip4, three), partial: true, want: service(vip4, one, three)}, // two is known, and gone
		{Service: *service(vip4, three), want: service(vip4, three)},
	} {
		s := step.Service
		p := plan(&s)
		p.Partial = step.partial
		for range 2 {
			if err := d.Apply(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			sameState(t, wantState(plan(step.want)), kernelState(t, d))
			if err := d.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestA03_7_ADyingOrNamespacedCgroupIsNotedNotBelieved is row 7: programs that
// do not run where they should are no healthy state.
func TestA03_7_ADyingOrNamespacedCgroupIsNotedNotBelieved(t *testing.T) {
	b := newBed(t)
	inner := filepath.Join(b.cfg.Cgroup, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	b.cfg.Cgroup = inner
	d := b.open(t)
	apply(t, d, service(vip4, addr("127.0.0.1:81")))
	if err := os.Remove(inner); err != nil {
		t.Fatal(err)
	}
	if err := d.Repair(t.Context()); err == nil {
		t.Error("Repair finds nothing wrong with programs whose cgroup is gone")
	}
}

// TestA03_10_NoEntryLeaks is row 10: services and backends come and go, and the
// maps end as empty as they were.
func TestA03_10_NoEntryLeaks(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	w := newWalker(10)
	for range 300 {
		if err := d.Apply(t.Context(), w.next()); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, d)
	checkRoom(t, d)
	counted, err := d.counted()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{bpfMapServices: b.cfg.Services, bpfMapSlots: b.cfg.Slots, bpfMapBackends: b.cfg.Backends, bpfMapAllow: b.cfg.Allow}
	for name, n := range want {
		if want := (room{n, n}); counted.room[name] != want {
			t.Errorf("map %s: %+v, want %+v", name, counted.room[name], want)
		}
	}
	for _, m := range []*ebpf.Map{d.objs.Vip4, d.objs.Vip6} {
		var key, value []byte
		if it := m.Iterate(); it.Next(&key, &value) {
			t.Errorf("%v is left in %s", key, m)
		}
	}
}

// TestA03_6_ADaemonThatDiesAnywhereLosesNothing is row 6, on one process: it
// drops the daemon without a word at each step of an Apply.
func TestA03_6_ADaemonThatDiesAnywhereLosesNothing(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	to := b.sink(t, "127.0.0.1:0")
	web := service(vip4, to)
	apply(t, d, web)
	more := plan(web, service("11.0.0.2:80", to), service("11.0.0.3:80", to))
	for calls := range 6 {
		_ = d.Apply(&doomed{Context: t.Context(), calls: calls}, more)
		if err := d.Close(); err != nil { // which changes nothing in the kernel
			t.Fatal(err)
		}
		if got, err := b.peer(addr(vip4)); err != nil || got != to {
			t.Fatalf("with the daemon gone: %s, %v", got, err)
		}
		var err error
		if d, err = Open(b.cfg, zap.NewNop(), nil); err != nil {
			t.Fatal(err)
		}
		checkRoom(t, d)
	}
	defer d.Close()
	if err := d.Apply(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	sameState(t, wantState(more), kernelState(t, d))
}
