package ebpf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// childEnv, when set, makes the test binary the daemon of
// TestAKilledDaemonLosesNothing: it holds a JSON childTask.
const childEnv = "WAGGLE_EBPF_TEST_CHILD"

// probeArg makes the test binary the process that the self-test starts.
const probeArg = "probe"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == probeArg {
		err := JoinProbe()
		if err == nil {
			_, _, err = dial(addr(os.Args[2]))
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if task := os.Getenv(childEnv); task != "" {
		if err := childMain(task); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

type childTask struct {
	PinDir, Cgroup string
	VIP, Backend   netip.AddrPort
}

// childMain opens, applies, says so, and waits to be killed.
func childMain(text string) error {
	var task childTask
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		return err
	}
	cfg := smallConfig()
	cfg.PinDir, cfg.Cgroup = task.PinDir, task.Cgroup
	d, err := Open(cfg, zap.NewNop(), nil)
	if err != nil {
		return err
	}
	p := plan(&lb.Service{Frontend: tcp(task.VIP), Backends: []lb.Backend{{Addr: task.Backend, Weight: 1}}})
	if err := d.Apply(context.Background(), p); err != nil {
		return err
	}
	fmt.Println("applied")
	select {}
}

func smallConfig() Config {
	return Config{Services: 64, Backends: 2048, Slots: 4096, Clients: 64, Allow: 256}
}

// bed is a place to balance in that is no other test's: a bpf file system, a
// cgroup that the test process is in, and a network namespace.
type bed struct {
	cfg Config
	ns  *testnet.Namespace
}

func newBed(tb testing.TB) *bed {
	tb.Helper()
	b := &bed{cfg: smallConfig(), ns: testnet.New(tb)}
	b.cfg.PinDir = testnet.PinDir(tb)
	b.cfg.Cgroup = testnet.Cgroup(tb)
	testnet.Enter(tb, b.cfg.Cgroup)
	return b
}

// open opens a Dataplane that is closed with the test at the latest.
func (b *bed) open(tb testing.TB) *Dataplane {
	tb.Helper()
	return b.openWith(tb, nil)
}

func (b *bed) openWith(tb testing.TB, reg prometheus.Registerer) *Dataplane {
	tb.Helper()
	d, err := Open(b.cfg, zaptest.NewLogger(tb, zaptest.Level(zap.WarnLevel)), reg)
	if errors.Is(err, ErrNotSupported) {
		testnet.Skip(tb, err.Error())
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return d
}

// tcp returns the frontend of TCP at an address.
func tcp(a netip.AddrPort) vip.Frontend { return vip.Frontend{Addr: a, Proto: model.TCP} }

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func service(frontend string, backends ...netip.AddrPort) *lb.Service {
	s := &lb.Service{Frontend: tcp(addr(frontend))}
	for _, b := range backends {
		s.Backends = append(s.Backends, lb.Backend{Addr: b, Weight: 1})
	}
	return s
}

func plan(services ...*lb.Service) *lb.Plan {
	e := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	for _, s := range services {
		e.Set(s.Frontend, s)
	}
	return &lb.Plan{Services: e.Groups()}
}

func apply(tb testing.TB, d *Dataplane, services ...*lb.Service) {
	tb.Helper()
	if err := d.Apply(tb.Context(), plan(services...)); err != nil {
		tb.Fatal(err)
	}
}

// peer connects to a in the namespace and returns what getpeername shows.
func (b *bed) peer(a netip.AddrPort) (peer netip.AddrPort, err error) {
	err = b.ns.Do(func() error {
		peer, err = connect(a)
		return err
	})
	return peer, err
}

// connect opens a TCP connection by the bare system calls, resets it, and
// returns what getpeername showed. A v4-mapped address is connected to from an
// IPv6 socket.
func connect(a netip.AddrPort) (netip.AddrPort, error) {
	return connectProto(a, 0)
}

func connectProto(a netip.AddrPort, proto int) (netip.AddrPort, error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())})
	if a.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err := unix.Connect(fd, sa); err != nil {
		return netip.AddrPort{}, fmt.Errorf("connect to %s: %w", a, err)
	}
	peer, err := unix.Getpeername(fd)
	switch p := peer.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(p.Addr), uint16(p.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(p.Addr), uint16(p.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("getpeername: %v, %w", peer, err)
}

// sink accepts connections at a in the namespace and drops them.
func (b *bed) sink(tb testing.TB, a string) netip.AddrPort {
	tb.Helper()
	var l net.Listener
	b.ns.Must(tb, func() (err error) {
		l, err = net.Listen("tcp", a)
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	tb.Cleanup(func() {
		l.Close()
		<-done
	})
	return addr(l.Addr().String())
}

// kernelState reads what the kernel's maps say by plain look-ups, as services
// whose backends' weights are their numbers of slots.
func kernelState(tb testing.TB, d *Dataplane) map[vip.Frontend]lb.Service {
	tb.Helper()
	out := map[vip.Frontend]lb.Service{}
	readFamily(tb, d, d.v4, out)
	readFamily(tb, d, d.v6, out)
	return out
}

func readFamily[K comparable](tb testing.TB, d *Dataplane, f *family[K], out map[vip.Frontend]lb.Service) {
	tb.Helper()
	var key K
	var id uint32
	it := f.vips.Iterate()
	for it.Next(&key, &id) {
		frontend, ours := f.frontend(key)
		if !ours {
			tb.Errorf("a VIP with a scope: %+v", key)
		}
		var s bpfService
		if err := d.objs.Services.Lookup(id, &s); err != nil {
			tb.Fatal(err)
		}
		where := d.services.load(id)
		got := lb.Service{Frontend: frontend, Peername: where.flags()&flagPeername != 0}
		if where.flags()&flagLeast != 0 {
			got.Choice = lb.LeastActive
		}
		got.Affinity = affinityOf(where.flags(), s.AffinitySeconds)
		for i := where.list().base; i < where.list().end(); i++ {
			index := i
			if !where.isRow() {
				index = d.services.slots[i]
			}
			var b bpfBackend
			if err := d.objs.Backends.Lookup(index, &b); err != nil {
				tb.Fatal(err)
			}
			if b.Service != id {
				tb.Errorf("%s has a backend of service %d", frontend.Addr, b.Service)
			}
			to := addrPort(b.Addr, b.Port)
			if n := len(got.Backends); n > 0 && got.Backends[n-1].Addr == to {
				got.Backends[n-1].Weight++
			} else {
				got.Backends = append(got.Backends, lb.Backend{Addr: to, Weight: 1})
			}
		}
		got.Allow = allowedBy(tb, d, id)
		out[frontend] = got
	}
	if err := it.Err(); err != nil {
		tb.Fatal(err)
	}
}

// plainNames makes the file of a namespace the namespace's cookie.
func plainNames(d *Dataplane) *Dataplane {
	d.recipes.names.look = plainCookie
	return d
}

func plainCookie(file string) uint64 {
	cookie, _ := strconv.ParseUint(file, 10, 64) // a test's own
	return cookie
}

// allowedBy reads who may connect to a service: namespaces, by their cookies.
func allowedBy(tb testing.TB, d *Dataplane, id uint32) (out []lb.Client) {
	tb.Helper()
	var key bpfAllowKey
	var value uint8
	it := d.objs.Allow.Iterate()
	for it.Next(&key, &value) {
		if key.Service == id {
			out = append(out, lb.Client{Namespace: fmt.Sprint(key.Id)})
		}
	}
	if err := it.Err(); err != nil {
		tb.Fatal(err)
	}
	slices.SortFunc(out, func(a, b lb.Client) int { return strings.Compare(a.Namespace, b.Namespace) })
	return out
}

func affinityOf(flags uint16, secs uint32) lb.Affinity {
	by := map[uint16]lb.By{flagNetns: lb.ByNamespace, flagCgroup: lb.ByCgroup, flagSource: lb.BySource}[flags&flagsAffinity]
	return lb.Affinity{By: by, Timeout: time.Duration(secs) * time.Second}
}

// wantState is kernelState of a Plan whose weights have no common divisor.
func wantState(p *lb.Plan) map[vip.Frontend]lb.Service {
	out := map[vip.Frontend]lb.Service{}
	for f, s := range p.Services.All() {
		out[f] = lb.Service{
			Frontend: f, Backends: s.Backends, Peername: s.Peername && f.Proto == model.TCP,
			Choice: s.Choice, Affinity: s.Affinity, Allow: s.Allow,
		}
	}
	return out
}

var compareFrontends = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})

func sameState(tb testing.TB, want, got map[vip.Frontend]lb.Service) {
	tb.Helper()
	if diff := cmp.Diff(want, got, compareFrontends, cmpopts.EquateEmpty()); diff != "" {
		tb.Fatalf("the kernel's maps (-want +got):\n%s", diff)
	}
}

// pinned lists what is below the folder of the bed's bpf file system.
func (b *bed) pinned(tb testing.TB) []string {
	tb.Helper()
	var out []string
	root := filepath.Dir(b.cfg.PinDir)
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err == nil && !slices.Contains([]string{".", "maps.debug", "progs.debug"}, rel) {
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
