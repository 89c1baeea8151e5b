package ebpf

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"waggle/lb"
)

// v2Object is what the daemon of schema v2 loaded: ebpf/bpf_bpfel.o as it was
// committed then (git show 519a203:ebpf/bpf_bpfel.o).
//
//go:embed testdata/v2.o
var v2Object []byte

// v2Daemon leaves what a daemon of schema v2 leaves: its programs attached, and
// maps and links pinned. Slots and backends are at places that a daemon of then
// might have used.
func v2Daemon(t *testing.T, b *bed, services ...*lb.Service) {
	t.Helper()
	dir := filepath.Join(b.cfg.PinDir, "v2")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(v2Object))
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range spec.Maps {
		if m.Type != ebpf.SkStorage && m.Type != ebpf.RingBuf && !strings.HasPrefix(name, ".") {
			m.MaxEntries = 256
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	names := newNames(b.cfg.Cgroup)
	names.look = plainCookie
	r := &recipes{udp: true, ends: true, names: names}
	slot, backend := uint32(3), uint32(5)
	for id, s := range services {
		to, err := r.recipe(s)
		if err != nil {
			t.Fatal(err)
		}
		err = putV2(coll, uint32(id), to, &slot, &backend)
		if s.Frontend.Addr.Addr().Is4() {
			err = errors.Join(err, coll.Maps["vip4"].Put(newFormat4().key(s.Frontend), uint32(id)))
		} else {
			err = errors.Join(err, coll.Maps["vip6"].Put(newFormat6().key(s.Frontend), uint32(id)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range hooks(false) {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: b.cfg.Cgroup, Attach: h.at, Program: coll.Programs[h.name]})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Pin(filepath.Join(dir, linkPrefix+h.name)), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// putV2 writes a service from the given slot and backend on.
func putV2(coll *ebpf.Collection, id uint32, to recipe, slot, backend *uint32) (err error) {
	d := newDescriptor(extent{*slot, uint32(to.slots())}, to.flags)
	for _, sh := range to.shares {
		be := v2Backend{Port: sh.port, Weight: sh.weight, Service: id, Serial: 9}
		*packedWords(&be.Addr) = sh.addr
		err = errors.Join(err, coll.Maps["backends"].Put(*backend, be))
		for range sh.slots {
			err = errors.Join(err, coll.Maps["slots"].Put(*slot, v2Slot{Backend: *backend}))
			*slot++
		}
		*backend++
	}
	for _, key := range to.allow {
		key.Service = id
		err = errors.Join(err, coll.Maps["allow"].Put(key, uint8(1)))
	}
	return errors.Join(err, coll.Maps["services"].Put(id, v2Service{Descriptor: uint64(d), AffinitySeconds: seconds(to.affinity)}))
}

func TestTheV2ObjectIsOfAnotherLayout(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(v2Object))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"services": binary.Size(v2Service{}), "slots": binary.Size(v2Slot{}), "backends": binary.Size(v2Backend{})} {
		if got := int(spec.Maps[name].ValueSize); got != want || spec.ByteOrder != binary.LittleEndian {
			t.Errorf("one of %s of v2 has %d bytes, want %d", name, got, want)
		}
	}
}

// TestAnUpgradeFromV2LosesNoConnection goes from the programs and maps of the
// schema before to ours while connections are made.
func TestAnUpgradeFromV2LosesNoConnection(t *testing.T) {
	b := newBed(t)
	to, other := b.sink(t, "127.0.0.1:0"), b.sink(t, "127.0.0.1:0")
	web := service(vip4, to, other)
	slices.SortFunc(web.Backends, func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) })
	web.Backends[0].Weight = 3
	six := service(vip6, b.sink(t, "[::1]:0"))
	six.Peername = true
	picky := service("11.0.0.8:80", to)
	picky.Allow = []lb.Client{{Namespace: fmt.Sprint(math.MaxInt64)}} // a cookie that is nobody's
	kept := service("11.0.0.7:80", to)
	kept.Choice, kept.Affinity = lb.LeastActive, lb.Affinity{By: lb.ByCgroup, Timeout: time.Minute}
	services := []*lb.Service{web, six, service("11.0.0.9:80"), picky, kept, udpService(vip4, to)}
	v2Daemon(t, b, services...)
	if _, err := b.peer(addr(vip4)); err != nil {
		t.Fatalf("v2 does not balance: %v", err)
	}
	var d *Dataplane
	n := b.connecting(t, addr(vip4), func() (err error) {
		if d, err = Open(b.cfg, zap.NewNop(), nil); err != nil {
			return err
		}
		return nil
	})
	defer d.Close()
	t.Logf("%d connections", n)
	sameState(t, wantState(plan(services...)), kernelState(t, d))
	if _, err := b.peer(picky.Frontend.Addr); !errors.Is(err, unix.EPERM) {
		t.Errorf("who may not connect got %v", err)
	}
	checkRoom(t, d)
	if got := attached(t, b.cfg.Cgroup); got != everyHook {
		t.Errorf("%d programs are attached, want %d", got, everyHook)
	}
	if exists(filepath.Join(b.cfg.PinDir, "v2")) {
		t.Error("v2 is still pinned")
	}
	if err := d.Apply(t.Context(), plan(web)); err != nil {
		t.Fatal(err)
	}
	sameState(t, wantState(plan(web)), kernelState(t, d))
	if got, err := b.peer(addr(vip4)); err != nil || got != to && got != other {
		t.Errorf("connect: %s, %v", got, err)
	}
}

// TestAnUpgradeCutShortIsDoneAgain stops an upgrade at each of its steps.
func TestAnUpgradeCutShortIsDoneAgain(t *testing.T) {
	for steps := range 4 {
		t.Run(fmt.Sprint(steps, " steps done"), func(t *testing.T) {
			b := newBed(t)
			web := service(vip4, b.sink(t, "127.0.0.1:0"))
			v2Daemon(t, b, web)
			v2 := filepath.Join(b.cfg.PinDir, "v2")
			if steps > 0 {
				cutShort(t, b, steps)
			}
			if got, err := b.peer(addr(vip4)); err != nil || got != web.Backends[0].Addr {
				t.Fatalf("in the middle: %s, %v", got, err)
			}
			d := b.open(t)
			sameState(t, wantState(plan(web)), kernelState(t, d))
			if got, err := b.peer(addr(vip4)); err != nil || got != web.Backends[0].Addr {
				t.Errorf("after it: %s, %v", got, err)
			}
			if exists(v2) {
				t.Error("v2 is still pinned")
			}
			if diff := cmp.Diff(everyHook, attached(t, b.cfg.Cgroup)); diff != "" {
				t.Errorf("attached programs (-want +got):\n%s", diff)
			}
		})
	}
}

// cutShort does the first steps of an upgrade and dies.
func cutShort(t *testing.T, b *bed, steps int) {
	t.Helper()
	cgroup, err := openCgroup(b.cfg.Cgroup)
	if err != nil {
		t.Fatal(err)
	}
	p, err := openPins(b.cfg.PinDir)
	if err != nil {
		t.Fatal(err)
	}
	d := &Dataplane{pins: p, cgroup: cgroup, log: zap.NewNop()}
	if err := d.prepare(b.cfg); err != nil {
		t.Fatal(err)
	}
	todo := []func() error{d.adoptLocked, d.takeOverLocked, func() error { return d.attachLocked(false) }}
	for _, step := range todo[:min(steps, len(todo))] {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
