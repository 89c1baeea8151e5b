package ebpf

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"waggle/internal/hostnet"
	"waggle/internal/testnet"
	"waggle/lb"
)

// connecting connects to a without pause while do runs, and fails the test if
// any connection fails. It returns how many there were.
func (b *bed) connecting(t *testing.T, a netip.AddrPort, do func() error) int64 {
	t.Helper()
	var stop atomic.Bool
	var connects atomic.Int64
	var g errgroup.Group
	for range 2 {
		g.Go(func() error {
			return b.ns.Do(func() error {
				for !stop.Load() {
					if _, err := connect(a); err != nil {
						return fmt.Errorf("after %d connections: %w", connects.Load(), err)
					}
					connects.Add(1)
				}
				return nil
			})
		})
	}
	err := do()
	stop.Store(true)
	if err := errors.Join(err, g.Wait()); err != nil {
		t.Fatal(err)
	}
	if connects.Load() < 100 {
		t.Fatalf("only %d connections", connects.Load())
	}
	return connects.Load()
}

// TestAMillionSwapsLoseNoConnection changes one service a million times, its
// list's length jumping from 1 to 50, while connections to it are made. The
// slots it leaves are soon those of a service all of whose backends are dead.
func TestAMillionSwapsLoseNoConnection(t *testing.T) {
	const (
		swaps   = 1_000_000
		atLeast = 50_000 // where time is short, as under the race detector
		atMost  = 10 * time.Second
	)
	b := newBed(t)
	b.cfg.Slots, b.cfg.Backends = 1<<19, 1<<19
	d := b.open(t)
	var live, dead []netip.AddrPort
	for range 50 {
		live = append(live, b.sink(t, "127.0.0.1:0"))
		dead = append(dead, addr("127.0.0.2:1"))
	}
	var plans []*lb.Plan
	p := plan(service(vip4, live[0]), service("11.0.0.2:80", dead[0]))
	for i := range 100 {
		e := p.Services.Edit()
		if n := 1 + i*37%50; i%2 == 0 {
			s := service(vip4, live[:n]...)
			e.Set(s.Frontend, s)
		} else {
			s := service("11.0.0.2:80", dead[:n]...)
			e.Set(s.Frontend, s)
		}
		p = &lb.Plan{Services: e.Groups()}
		plans = append(plans, p)
	}
	if err := d.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	swapped, start := 0, time.Now()
	n := b.connecting(t, addr(vip4), func() error {
		for swapped < swaps && (swapped < atLeast || time.Since(start) < atMost) {
			if err := d.Apply(t.Context(), plans[swapped%len(plans)]); err != nil {
				return err
			}
			swapped++
		}
		return nil
	})
	t.Logf("%d swaps in %v, %d waits, %d connections", swapped, time.Since(start), d.services.waits, n)
	if d.services.waits < 2 {
		t.Errorf("the slots were gone through %d times only: none was used again", d.services.waits)
	}
}

func TestFiftyRestartsLoseNoConnection(t *testing.T) {
	restarts := 50
	if testing.Short() {
		restarts = 10 // in software emulation each takes two seconds
	}
	b := newBed(t)
	d := b.open(t)
	web := service(vip4, b.sink(t, "127.0.0.1:0"))
	apply(t, d, web)
	before := d.v4.held[web.Frontend]
	programs := map[link.ID]bool{}
	n := b.connecting(t, addr(vip4), func() error {
		for range restarts {
			if err := d.Close(); err != nil {
				return err
			}
			var err error
			if d, err = Open(b.cfg, zap.NewNop(), nil); err != nil {
				return err
			}
			id, err := d.objs.programs[bpfProgConnect4].Info()
			if err != nil {
				return err
			}
			program, _ := id.ID()
			programs[link.ID(program)] = true
			if err := d.Apply(t.Context(), plan(web)); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("%d connections", n)
	if after := d.v4.held[web.Frontend]; after != before {
		t.Errorf("id and slots were %+v, are %+v", before, after)
	}
	if len(programs) != restarts {
		t.Errorf("%d programs in %d restarts: they were not replaced", len(programs), restarts)
	}
	if got := attached(t, b.cfg.Cgroup); got != everyHook {
		t.Errorf("%d programs are attached, want %d", got, everyHook)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// everyHook is how many programs are attached without Watch.
const everyHook = 9

// attached counts the programs attached to a cgroup at our hooks.
func attached(t *testing.T, cgroup string) int {
	t.Helper()
	f, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for _, h := range hooks(true) {
		got, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: h.at})
		if err != nil {
			t.Fatal(err)
		}
		n += len(got.Programs)
	}
	return n
}

func TestAKilledDaemonLosesNothing(t *testing.T) {
	b := newBed(t)
	to := b.sink(t, "127.0.0.1:0")
	task, err := json.Marshal(childTask{b.cfg.PinDir, b.cfg.Cgroup, addr(vip4), to})
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), childEnv+"="+string(task))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if _, err := Open(b.cfg, zap.NewNop(), nil); !errors.Is(err, ErrInUse) {
		t.Errorf("Open beside a running daemon: %v, want %v", err, ErrInUse)
	}
	if _, err := Unload(b.cfg); !errors.Is(err, ErrInUse) {
		t.Errorf("Unload beside a running daemon: %v, want %v", err, ErrInUse)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); line != "applied\n" {
		t.Fatalf("the child said %q and ended: %v", line, err)
	}
	if got, err := b.peer(addr(vip4)); err != nil || got != to {
		t.Errorf("with the daemon dead: %s, %v, want %s", got, err, to)
	}
	d := b.open(t)
	sameState(t, wantState(plan(service(vip4, to))), kernelState(t, d))
	before := d.heldLocked()
	apply(t, d, service(vip4, to))
	if diff := cmp.Diff(before, d.heldLocked(), compareFrontends); diff != "" {
		t.Errorf("service ids (-adopted +applied):\n%s", diff)
	}
}

func TestUnloadLeavesNothing(t *testing.T) {
	b := newBed(t)
	if got, err := Unload(b.cfg); got != nil || err != nil {
		t.Errorf("with nothing there: %v, %v", got, err)
	}
	d := b.open(t)
	apply(t, d, service(vip4, b.sink(t, "127.0.0.1:0")))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(b.cfg.PinDir, "v0"), 0o700); err != nil { // another schema's
		t.Fatal(err)
	}
	want := []string{"v0"}
	for _, l := range []string{
		"connect4", "connect6", "getpeername4", "getpeername6", "recvmsg4", "recvmsg6", "sendmsg4", "sendmsg6", "sock_release",
	} {
		want = append(want, schema+"/link_"+l)
	}
	for _, m := range []string{
		"allow", "backends", "clients", "counts", "descriptors", "events", "services", "slots", "tcp_peer", "udp_peers", "vip4", "vip6", "",
	} {
		want = append(want, schema+"/"+m)
	}
	for i := range want {
		want[i] = filepath.Join(b.cfg.PinDir, want[i])
	}
	got, err := Unload(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	if left := b.pinned(t); len(left) > 0 {
		t.Errorf("left on the bpf file system: %v", left)
	}
	if n := attached(t, b.cfg.Cgroup); n > 0 {
		t.Errorf("%d programs are still attached", n)
	}
	if _, err := b.peer(addr(vip4)); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("connect after Unload: %v, want %v", err, unix.ENETUNREACH)
	}
	if got, err := Unload(b.cfg); got != nil || err != nil {
		t.Errorf("the second time: %v, %v", got, err)
	}
}

func TestAFolderOfPlainFilesIsRefusedAndLeftAlone(t *testing.T) {
	b := newBed(t)
	b.cfg.PinDir = t.TempDir()
	if _, err := Open(b.cfg, zap.NewNop(), nil); err == nil || !strings.Contains(err.Error(), b.cfg.PinDir+" is not on a bpf file system") {
		t.Errorf("Open: %v", err)
	}
	if err := os.Mkdir(filepath.Join(b.cfg.PinDir, schema), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := Unload(b.cfg); got != nil || err != nil {
		t.Errorf("Unload: %v, %v", got, err)
	}
}

func TestPinnedMapsKeepTheirSizes(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	b.cfg.Services, b.cfg.Slots = 128, 8192
	d = b.open(t)
	if n := len(d.services.elems); n != smallConfig().Services {
		t.Errorf("room for %d services, want %d", n, smallConfig().Services)
	}
	if n := len(d.services.slots); n != smallConfig().Slots {
		t.Errorf("%d slots, want %d", n, smallConfig().Slots)
	}
}

func TestTheCgroupMayChangeOrGo(t *testing.T) {
	b := newBed(t)
	to := b.sink(t, "127.0.0.1:0")
	gone := filepath.Join(b.cfg.Cgroup, "gone")
	if err := os.Mkdir(gone, 0o755); err != nil {
		t.Fatal(err)
	}
	whole := b.cfg.Cgroup
	b.cfg.Cgroup = gone
	d := b.open(t)
	apply(t, d, service(vip4, to))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	b.cfg.Cgroup = whole
	d = b.open(t)
	if got, err := b.peer(addr(vip4)); err != nil || got != to {
		t.Errorf("after the cgroup was removed: %s, %v, want %s", got, err, to)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	b.cfg.Cgroup = testnet.Cgroup(t)
	b.open(t)
	if n := attached(t, whole); n != 0 {
		t.Errorf("%d programs are attached to the cgroup of before", n)
	}
	if n := attached(t, b.cfg.Cgroup); n != everyHook {
		t.Errorf("%d programs are attached to the new cgroup, want %d", n, everyHook)
	}
}

func TestWithoutPrivilegesItIsNotSupported(t *testing.T) {
	b := newBed(t)
	opened := b.open(t)
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	elsewhere := bpffs + "/waggle-test-mine"
	for name, cfg := range map[string]Config{
		"at a cgroup of root's":                {PinDir: b.cfg.PinDir, Cgroup: b.cfg.Cgroup},
		"with pins of root's":                  {PinDir: b.cfg.PinDir},
		"with neither":                         {PinDir: elsewhere},
		"with a bpf file system still to make": {PinDir: elsewhere, Cgroup: "/"},
	} {
		t.Run(name, func(t *testing.T) {
			err := hostnet.OnThread(func() error {
				const nobody = 65534
				// Not unix.Setresuid, which changes every thread.
				if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); e != 0 {
					return e
				}
				d, err := Open(cfg, zap.NewNop(), nil)
				if err == nil {
					d.Close()
				}
				return err
			})
			if !errors.Is(err, ErrNotSupported) {
				t.Errorf("Open: %v, want %v", err, ErrNotSupported)
			}
		})
	}
}

func TestAFailedFirstOpenLeavesNothing(t *testing.T) {
	b := newBed(t)
	b.cfg.Slots = 0 // which the kernel refuses
	if d, err := Open(b.cfg, zaptest.NewLogger(t), nil); err == nil {
		d.Close()
		t.Fatal("Open worked")
	}
	if left := b.pinned(t); len(left) > 0 {
		t.Errorf("left on the bpf file system: %v", left)
	}
	b.cfg.Slots = 8
	b.open(t)
}

// TestWhatIsNotMountedIsMounted runs Open where neither a bpf file system nor
// cgroup v2 is mounted, at the real root of cgroup v2.
func TestWhatIsNotMountedIsMounted(t *testing.T) {
	ns := testnet.New(t)
	b := &bed{cfg: smallConfig(), ns: ns}
	b.cfg.PinDir = bpffs + "/waggle-test"
	to := b.sink(t, "127.0.0.1:0")
	root, err := testnet.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	cgroup := testnet.Cgroup(t)
	testnet.Enter(t, cgroup)
	closed := service("11.255.255.253:80", to)
	closed.Allow = []lb.Client{{Cgroup: strings.TrimPrefix(cgroup, root)}}
	err = hostnet.OnThread(func() error {
		if err := ownMounts(); err != nil {
			return err
		}
		d, err := Open(b.cfg, zaptest.NewLogger(t), nil)
		if err != nil {
			return err
		}
		defer func() {
			d.Close()
			removed, err := Unload(b.cfg)
			if err != nil || len(removed) != everyHook+13 {
				t.Errorf("Unload: %v, %v", removed, err)
			}
		}()
		// No other test knows this address, and the root is everybody's.
		if err := d.Apply(t.Context(), plan(service("11.255.255.254:80", to), closed)); err != nil {
			return err
		}
		for _, at := range []string{"11.255.255.254:80", "11.255.255.253:80"} {
			if got, err := b.peer(addr(at)); err != nil || got != to {
				t.Errorf("connect to %s: %s, %v, want %s", at, got, err, to)
			}
		}
		return nil
	})
	if errors.Is(err, ErrNotSupported) {
		testnet.Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ownMounts gives the thread mounts of its own, without any of cgroup v2 or
// bpf.
func ownMounts() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range cgroupMounts(string(text)) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	for on, err := onBPFFS(bpffs); on; on, err = onBPFFS(bpffs) {
		if err := errors.Join(err, unix.Unmount(bpffs, unix.MNT_DETACH)); err != nil {
			return err
		}
	}
	return nil
}

func TestARootThatIsOnlyANamespacesIsRefused(t *testing.T) {
	b := newBed(t)
	b.cfg.Cgroup = ""
	err := hostnet.OnThread(func() error {
		if err := ownMounts(); err != nil {
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return err
		}
		d, err := Open(b.cfg, zap.NewNop(), nil)
		if err == nil {
			d.Close()
		}
		return err
	})
	if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "cgroup namespace") {
		t.Errorf("Open: %v", err)
	}
}
