package ebpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
	"waggle/lb"
)

// TestA03_9_BigServicesCostTheDaemonLittleMemory is row 9: what the daemon keeps
// for itself of a big service does not grow with changes, and is little beside
// the Plan that it is given, which is not counted here.
func TestA03_9_BigServicesCostTheDaemonLittleMemory(t *testing.T) {
	const backends, changes = 60_000, 60
	b := newBed(t)
	b.cfg.Backends, b.cfg.Slots = 4*backends, 4*backends
	d := b.open(t)
	big := service(vip4)
	for i := range backends {
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], 10<<24+uint32(i))
		big.Backends = append(big.Backends, lb.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4(ip), 80), Weight: 1})
	}
	before := heap()
	apply(t, d, big)
	first := heap() - before
	for i := range changes {
		next := *big
		next.Backends = big.Backends[i%2 : backends-i%3]
		apply(t, d, &next)
	}
	apply(t, d, big)
	after := heap() - before
	t.Logf("%d backends: %d kB after the first Plan, %d kB after %d changes", backends, first>>10, after>>10, changes)
	const most = 64 * backends // bytes
	if first > most || after > most {
		t.Errorf("more than %d kB", most>>10)
	}
	runtime.KeepAlive(big)
}

// heap returns how many bytes are in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestA03_14_WhoIsOutsideTheCgroupIsLeftAlone is row 14: a mesh wants the
// addresses that its clients asked for. What runs outside the cgroup that is
// balanced gets there, and back inside it is balanced again.
func TestA03_14_WhoIsOutsideTheCgroupIsLeftAlone(t *testing.T) {
	b := newBed(t)
	b.ns.Addr(t, "lo", netip.PrefixFrom(addr(vip4).Addr(), 32))
	mesh := b.sink(t, vip4) // listens where the VIP is
	backend := b.sink(t, "127.0.0.1:0")
	apply(t, b.open(t), service(vip4, backend))
	outside := testnet.Cgroup(t)
	for _, at := range []struct {
		cgroup string
		want   netip.AddrPort
	}{{b.cfg.Cgroup, backend}, {outside, mesh}, {b.cfg.Cgroup, backend}} {
		testnet.Enter(t, at.cgroup)
		if got, err := b.peer(addr(vip4)); err != nil || got != at.want {
			t.Errorf("from %s: got to %s, want %s: %v", at.cgroup, got, at.want, err)
		}
	}
}

// meshed is a bed whose namespace has listeners of a mesh where the VIPs are.
type meshed struct {
	*bed
	d                    *Dataplane
	mesh, stream, packet netip.AddrPort
}

func newMeshed(t *testing.T) *meshed {
	t.Helper()
	m := &meshed{bed: newBed(t)}
	m.ns.Addr(t, "lo", netip.PrefixFrom(addr(vip4).Addr(), 32))
	m.mesh = m.sink(t, vip4)
	m.answer(t, vip4)
	m.stream, m.packet = m.sink(t, "127.0.0.1:0"), m.answer(t, "127.0.0.1:0")
	m.d = m.open(t)
	root, err := testnet.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	m.d.recipes.names.root = root
	return m
}

// below returns the path that rules have of a cgroup.
func (m *meshed) below(t *testing.T, cgroup string) string {
	t.Helper()
	rel, err := filepath.Rel(m.d.recipes.names.root, cgroup)
	if err != nil {
		t.Fatal(err)
	}
	return rel
}

// exclude applies a Plan of both protocols' services that leaves clients alone.
func (m *meshed) exclude(t *testing.T, clients ...lb.Client) {
	t.Helper()
	p := plan(service(vip4, m.stream), udpService(vip4, m.packet))
	p.Exclude = clients
	if err := m.d.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// alone returns an error unless the test's sockets, of either
// protocol and family, are left alone, or are not.
func (m *meshed) alone(t *testing.T, want bool) error {
	t.Helper()
	stream, packet := m.stream, m.packet
	if want {
		stream, packet = m.mesh, m.mesh
	}
	for _, at := range []netip.AddrPort{addr(vip4), mapped4(addr(vip4))} {
		if got, err := m.peer(at); err != nil || netip.AddrPortFrom(got.Addr().Unmap(), got.Port()) != stream {
			return fmt.Errorf("TCP to %s got to %s, want %s: %v", at, got, stream, err)
		}
		family := unix.AF_INET
		if at.Addr().Is4In6() {
			family = unix.AF_INET6
		}
		if who, _, err := m.socket(t, family).ask(at); err != nil || who != packet {
			return fmt.Errorf("UDP to %s got to %s, want %s: %v", at, who, packet, err)
		}
	}
	return nil
}

// TestA03_14_ExcludedClientsAreLeftAlone is row 14: meshes need socket balancing
// off for some namespaces and cgroups, with whatever is nested in them.
func TestA03_14_ExcludedClientsAreLeftAlone(t *testing.T) {
	m := newMeshed(t)
	defer m.occupy(t)()
	nested := filepath.Join(m.cfg.Cgroup, "pod", "container")
	if err := os.MkdirAll(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	testnet.Enter(t, nested)
	pod, own := m.below(t, filepath.Dir(nested)), m.nsFile(t)
	for name, tc := range map[string]struct {
		exclude []lb.Client
		alone   bool
	}{
		"nobody":                     {nil, false},
		"its cgroup":                 {[]lb.Client{{Cgroup: m.below(t, nested)}}, true},
		"the cgroup it is nested in": {[]lb.Client{{Cgroup: pod}}, true},
		"a cgroup beside it":         {[]lb.Client{{Cgroup: pod + "-other"}}, false},
		"its namespace":              {[]lb.Client{{Namespace: own}}, true},
		"another namespace":          {[]lb.Client{{Namespace: "/proc/1/ns/net"}}, false},
		"its network":                {[]lb.Client{{Source: netip.MustParsePrefix("11.0.0.0/24")}}, true},
		"one of several":             {[]lb.Client{{Namespace: "/proc/1/ns/net"}, {Cgroup: pod}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m.exclude(t, tc.exclude...)
			if err := m.alone(t, tc.alone); err != nil {
				t.Error(err)
			}
		})
	}
	m.exclude(t)
	if n := m.d.services.allow.n; n != 0 {
		t.Errorf("%d clients are left of a Plan that excludes nobody", n)
	}
}

// An excluded container that starts later is found by the next look, and what is
// in the kernel outlives the daemon and damage.
func TestA03_14_ExclusionsAreKept(t *testing.T) {
	m := newMeshed(t)
	later := filepath.Join(m.cfg.Cgroup, "later")
	rule := lb.Client{Cgroup: m.below(t, later)}
	m.exclude(t, rule)
	if err := os.Mkdir(later, 0o755); err != nil {
		t.Fatal(err)
	}
	testnet.Enter(t, later)
	try := func(after string, do func() error, want bool) {
		t.Helper()
		if err := do(); err != nil {
			t.Errorf("%s: %v", after, err)
		}
		if err := m.alone(t, want); err != nil {
			t.Errorf("after %s: %v", after, err)
		}
	}
	forget := func() error {
		for key := range m.d.services.allow.held[every] {
			if err := m.d.objs.Allow.Delete(key); err != nil {
				return err
			}
		}
		return nil
	}
	try("its start", func() error { return nil }, false)
	try("a look", m.d.Mend, true)
	try("damage", forget, false)
	try("a repair", func() error { return m.d.Repair(t.Context()) }, true)
	try("the daemon's end", m.d.Close, true)
	m.d = m.open(t)
	try("its restart", func() error { return nil }, true)
	m.exclude(t)
	try("an end of the exclusion", func() error { return nil }, false)
}
