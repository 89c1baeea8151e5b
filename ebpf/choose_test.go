package ebpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
	"waggle/lb"
)

// hold connects to a in the namespace and returns the open socket and where it
// got. The caller closes it.
func (b *bed) hold(tb testing.TB, a netip.AddrPort) (fd int, to netip.AddrPort) {
	tb.Helper()
	b.ns.Must(tb, func() (err error) {
		fd, to, err = dial(a)
		return err
	})
	return fd, to
}

// dial connects by the bare system calls, which needs no goroutine elsewhere.
func dial(a netip.AddrPort) (int, netip.AddrPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}); err != nil {
		unix.Close(fd)
		return 0, netip.AddrPort{}, fmt.Errorf("connect to %s: %w", a, err)
	}
	peer, err := unix.Getpeername(fd)
	return fd, fromSockaddr(peer), err
}

func (b *bed) sinks(tb testing.TB, n int) []netip.AddrPort {
	tb.Helper()
	var out []netip.AddrPort
	for i := range n {
		out = append(out, b.sink(tb, fmt.Sprintf("127.0.0.%d:8080", i+1)))
	}
	return out
}

func TestLeastActiveEvensOutOpenSockets(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	s := service(vip4, b.sinks(t, 4)...)
	s.Choice = lb.LeastActive
	apply(t, d, s)
	var fds []int
	closeAll := func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
		fds = nil
	}
	t.Cleanup(closeAll)
	const sockets = 200
	for range sockets {
		fd, _ := b.hold(t, addr(vip4))
		fds = append(fds, fd)
	}
	sum := uint32(0)
	for _, st := range stats(d)[s.Frontend] {
		sum += st.Active
		// Random choice would spread them over 50 +- 6; of two choices the
		// emptier one keeps all within a few of each other.
		if st.Active < 45 || st.Active > 55 {
			t.Errorf("%s has %d of %d sockets", st.Addr, st.Active, sockets)
		}
	}
	if sum != sockets {
		t.Errorf("%d sockets are counted, want %d", sum, sockets)
	}
	// The counts stay right when the list changes, and go back to nothing.
	less := *s
	less.Backends = s.Backends[1:]
	apply(t, d, &less)
	apply(t, d, s)
	closeAll()
	for _, st := range stats(d)[s.Frontend] {
		if st.Active != 0 {
			t.Errorf("%s has %d sockets after all were closed", st.Addr, st.Active)
		}
	}
}

func TestAClientKeepsItsBackendForTheTimeout(t *testing.T) {
	for name, tc := range map[string]struct {
		by    lb.By
		other func(t *testing.T, b *bed) *bed
	}{
		"by namespace": {lb.ByNamespace, func(t *testing.T, b *bed) *bed { return &bed{cfg: b.cfg, ns: testnet.New(t)} }},
		"by cgroup": {lb.ByCgroup, func(t *testing.T, b *bed) *bed {
			nested := filepath.Join(b.cfg.Cgroup, "nested")
			if err := os.Mkdir(nested, 0o755); err != nil {
				t.Fatal(err)
			}
			testnet.Enter(t, nested)
			return b
		}},
		"by source, not bound": {lb.BySource, func(t *testing.T, b *bed) *bed { return &bed{cfg: b.cfg, ns: testnet.New(t)} }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			d := b.open(t)
			all := b.sinks(t, 30)
			s := service(vip4, all...)
			s.Affinity = lb.Affinity{By: tc.by, Timeout: time.Hour}
			apply(t, d, s)
			mine := b.same(t, addr(vip4), 20)
			other := tc.other(t, b)
			if other.ns != b.ns {
				other.sinks(t, 30)
			}
			other.same(t, addr(vip4), 20)
			if n := clients(t, d); n != 2 {
				t.Errorf("%d clients are remembered, want 2", n)
			}
			// When the backend leaves, so does what is remembered of it.
			left := *s
			left.Backends = nil
			for _, be := range s.Backends {
				if be.Addr != mine {
					left.Backends = append(left.Backends, be)
				}
			}
			apply(t, d, &left)
			if now := b.same(t, addr(vip4), 20); now == mine {
				t.Errorf("a client still has %s, which has left", mine)
			}
		})
	}
}

// same connects some times, checks that it always gets to the same backend and
// returns that.
func (b *bed) same(t *testing.T, a netip.AddrPort, times int) netip.AddrPort {
	t.Helper()
	var first netip.AddrPort
	for i := range times {
		to, err := b.peer(a)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && to != first {
			t.Fatalf("connection %d went to %s, the first to %s", i, to, first)
		}
		first = to
	}
	return first
}

func clients(t *testing.T, d *Dataplane) int {
	t.Helper()
	var key bpfClientKey
	var c bpfClient
	n := 0
	it := d.objs.Clients.Iterate()
	for it.Next(&key, &c) {
		n++
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// bound connects to the first VIP from an address, on a processor, and returns
// where that led.
func (b *bed) bound(t *testing.T, from [4]byte, processor int) (to netip.AddrPort) {
	t.Helper()
	b.ns.Must(t, func() error {
		var only unix.CPUSet
		only.Set(processor)
		if err := unix.SchedSetaffinity(0, &only); err != nil { // of a thread that ends with this
			return err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from}); err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr(vip4).Addr().As4(), Port: 80}); err != nil {
			return err
		}
		peer, err := unix.Getpeername(fd)
		to = fromSockaddr(peer)
		return err
	})
	return to
}

// TestABoundAddressIsAClient has as many clients as may be remembered, first
// some on one processor and then the others on each in turn: none is forgotten.
func TestABoundAddressIsAClient(t *testing.T) {
	b := newBed(t)
	b.cfg.Clients = 32
	d := b.open(t)
	s := service(vip4, b.sinks(t, 30)...)
	s.Affinity = lb.Affinity{By: lb.BySource, Timeout: time.Hour}
	apply(t, d, s)
	got := map[[4]byte]netip.AddrPort{}
	for again := range 3 {
		for i := range b.cfg.Clients {
			from, processor := [4]byte{127, 0, 9, byte(i + 1)}, 0
			if again > 0 || i >= 4 {
				processor = i % runtime.NumCPU()
			}
			to := b.bound(t, from, processor)
			if had, ok := got[from]; ok && had != to {
				t.Errorf("%v went to %s and to %s", from, had, to)
			}
			got[from] = to
		}
	}
	if n := clients(t, d); n != b.cfg.Clients {
		t.Errorf("%d clients are remembered, want %d", n, b.cfg.Clients)
	}
}

func TestAffinityEndsWithItsTimeout(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	s := service(vip4, b.sinks(t, 30)...)
	s.Affinity = lb.Affinity{By: lb.ByNamespace, Timeout: time.Hour}
	apply(t, d, s)
	before := b.same(t, addr(vip4), 3)
	// Not by waiting: the entry is made an old one.
	var key bpfClientKey
	var c bpfClient
	if it := d.objs.Clients.Iterate(); !it.Next(&key, &c) {
		t.Fatal("no client is remembered")
	}
	for range 200 {
		c.Until = 1
		if err := d.objs.Clients.Put(key, c); err != nil {
			t.Fatal(err)
		}
		if now := b.same(t, addr(vip4), 2); now != before {
			return
		}
	}
	t.Errorf("a client that is not remembered any more always gets %s of 30", before)
}

func TestOnlyWhoIsAllowedMayConnect(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	to := b.sink(t, "127.0.0.1:8080")
	b.ns.Addr(t, "lo", netip.MustParsePrefix("10.77.0.1/32"))
	b.answer(t, "127.0.0.1:8080")
	root, err := testnet.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := filepath.Rel(root, b.cfg.Cgroup)
	d.recipes.names.root = root
	nsFile := b.nsFile(t)
	for name, tc := range map[string]struct {
		allow []lb.Client
		ok    bool
	}{
		"everyone":                        {nil, true},
		"its cgroup":                      {[]lb.Client{{Cgroup: in}}, true},
		"one above its cgroup":            {[]lb.Client{{Cgroup: "/"}}, true},
		"a cgroup that is not there":      {[]lb.Client{{Cgroup: "waggle-test-none"}}, false},
		"its namespace":                   {[]lb.Client{{Namespace: nsFile}}, true},
		"another namespace":               {[]lb.Client{{Namespace: "/proc/1/ns/net"}}, false},
		"a namespace that is not there":   {[]lb.Client{{Namespace: "/run/netns/waggle-none"}}, false},
		"its network":                     {[]lb.Client{{Source: netip.MustParsePrefix("10.77.0.0/16")}}, true},
		"another network":                 {[]lb.Client{{Source: netip.MustParsePrefix("10.78.0.0/16")}}, false},
		"one of several":                  {[]lb.Client{{Namespace: "/proc/1/ns/net"}, {Cgroup: in}}, true},
		"another network and a namespace": {[]lb.Client{{Source: netip.MustParsePrefix("10.78.0.0/16")}, {Cgroup: "x"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			release := b.occupy(t)
			defer release()
			s, u := service(vip4, to), udpService(vip4, to)
			s.Allow, u.Allow = tc.allow, tc.allow
			apply(t, d, s, u)
			_, err := b.peer(addr(vip4))
			if tc.ok && err != nil || !tc.ok && !errors.Is(err, unix.EPERM) {
				t.Errorf("connect: %v", err)
			}
			_, _, err = b.socket(t, unix.AF_INET).ask(addr(vip4))
			if tc.ok && err != nil || !tc.ok && !errors.Is(err, unix.EPERM) {
				t.Errorf("UDP: %v", err)
			}
		})
	}
	counted, err := d.counted()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range counted.services {
		if s.Denied != 5 {
			t.Errorf("%v: %d were denied, want 5", s.frontend, s.Denied)
		}
	}
}

// occupy keeps a process in the bed's namespace, as a container would, so that
// the namespace is found.
func (b *bed) occupy(t testing.TB) (release func()) {
	t.Helper()
	var child *exec.Cmd
	b.ns.Must(t, func() error {
		child = exec.Command("sleep", "600")
		return child.Start()
	})
	return func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}
}

// nsFile returns a file that stands for the bed's namespace while the test runs.
func (b *bed) nsFile(t *testing.T) string {
	t.Helper()
	var f *os.File
	b.ns.Must(t, func() (err error) {
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	t.Cleanup(func() { f.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", f.Fd())
}

// TestAContainerThatStartsLaterIsLetIn: what is denied makes the daemon look
// again who may connect, so that the next try works.
func TestAContainerThatStartsLaterIsLetIn(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	root, err := testnet.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	d.recipes.names.root = root
	later := filepath.Join(b.cfg.Cgroup, "later")
	rel, _ := filepath.Rel(root, later)
	s := service(vip4, b.sink(t, "127.0.0.1:0"))
	s.Allow = []lb.Client{{Cgroup: rel}}
	apply(t, d, s)
	if err := os.Mkdir(later, 0o755); err != nil {
		t.Fatal(err)
	}
	testnet.Enter(t, later)
	eventually(t, func() error {
		_, err := b.peer(addr(vip4))
		return err
	})
	if n := d.services.allow.n; n != 1 {
		t.Errorf("%d clients may connect, want 1", n)
	}
	s2 := *s
	s2.Allow = nil
	apply(t, d, &s2)
	if n := d.services.allow.n; n != 0 {
		t.Errorf("%d clients are left of a service that is for everyone", n)
	}
}

// eventually tries until it works, for a minute.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(time.Minute)
	err := try()
	for ; err != nil && time.Now().Before(deadline); err = try() {
		<-tick.C
	}
	if err != nil {
		t.Fatal(err)
	}
}
