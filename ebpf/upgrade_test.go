package ebpf

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"waggle/lb"
)

// v1Object is what the daemon of schema v1 loaded: ebpf/bpf_bpfel.o as it was
// committed then (git show 86c87e9:ebpf/bpf_bpfel.o).
//
//go:embed testdata/v1.o
var v1Object []byte

// v1Daemon leaves what a daemon of schema v1 leaves: its programs attached, and
// maps and links pinned. The services get lists of their own at the places of
// slots that a daemon of then might have used.
func v1Daemon(t *testing.T, b *bed, services ...*lb.Service) {
	t.Helper()
	dir := filepath.Join(b.cfg.PinDir, "v1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(v1Object))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vip4", "vip6", "svc", "st_svc", "slot4", "slot6"} {
		spec.Maps[name].MaxEntries = 256
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	next := map[bool]uint32{true: 3, false: 5}
	for id, s := range services {
		four := s.Frontend.Addr.Addr().Is4()
		d := newDescriptor(extent{next[four], 0}, 0)
		if s.Peername {
			d |= v1FlagPeername << 48
		}
		for _, be := range s.Backends {
			for range be.Weight {
				err = errors.Join(err, putV1Slot(coll, four, next[four], be.Addr))
				next[four]++
				d += 1 << 32
			}
		}
		err = errors.Join(err, coll.Maps["svc"].Put(uint32(id), v1Service{Descriptor: uint64(d)}))
		if four {
			err = errors.Join(err, coll.Maps["vip4"].Put(newFormat4().key(s.Frontend), uint32(id)))
		} else {
			err = errors.Join(err, coll.Maps["vip6"].Put(newFormat6().key(s.Frontend), uint32(id)))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hooks(false) {
		program := coll.Programs[h.name]
		if program == nil {
			continue
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: b.cfg.Cgroup, Attach: h.at, Program: program})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Pin(filepath.Join(dir, linkPrefix+h.name)), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func putV1Slot(coll *ebpf.Collection, four bool, at uint32, a netip.AddrPort) error {
	w := words(a.Addr())
	if four {
		return coll.Maps["slot4"].Put(at, v1Dest4{Addr: w[3], Port: swap(a.Port())})
	}
	return coll.Maps["slot6"].Put(at, v1Dest6{Addr: w, Port: swap(a.Port())})
}

func TestTheV1ObjectIsOfAnotherLayout(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(v1Object))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := int(spec.Maps["slot6"].ValueSize), binary.Size(v1Dest6{}); got != want || spec.ByteOrder != binary.LittleEndian {
		t.Errorf("a slot of v1 has %d bytes, want %d", got, want)
	}
}

// TestAnUpgradeFromV1LosesNoConnection goes from the programs and maps of the
// schema before to ours while connections are made.
func TestAnUpgradeFromV1LosesNoConnection(t *testing.T) {
	b := newBed(t)
	to, other := b.sink(t, "127.0.0.1:0"), b.sink(t, "127.0.0.1:0")
	web := service(vip4, to, other)
	slices.SortFunc(web.Backends, func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) })
	web.Backends[0].Weight = 3
	six := service(vip6, b.sink(t, "[::1]:0"))
	six.Peername = true
	services := []*lb.Service{web, six, service("11.0.0.9:80")}
	v1Daemon(t, b, services...)
	if _, err := b.peer(addr(vip4)); err != nil {
		t.Fatalf("v1 does not balance: %v", err)
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
	checkRoom(t, d)
	if got := attached(t, b.cfg.Cgroup); got != everyHook {
		t.Errorf("%d programs are attached, want %d", got, everyHook)
	}
	if exists(filepath.Join(b.cfg.PinDir, "v1")) {
		t.Error("v1 is still pinned")
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
			v1Daemon(t, b, web)
			v1 := filepath.Join(b.cfg.PinDir, "v1")
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
			if exists(v1) {
				t.Error("v1 is still pinned")
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
