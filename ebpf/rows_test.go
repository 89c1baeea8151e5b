package ebpf

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"

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
