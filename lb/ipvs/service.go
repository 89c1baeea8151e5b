package ipvs

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// mark is a flag that no scheduler we use looks at (linux/ip_vs.h,
// IP_VS_SVC_F_SCHED3). With it the kernel itself remembers which services are
// ours, in each namespace, whatever becomes of us.
const mark = 0x20

const (
	flagPersistent = 0x1 // IP_VS_SVC_F_PERSISTENT
	flagHashed     = 0x2 // IP_VS_SVC_F_HASHED, which the kernel adds
)

// service is what IPVS holds, or should, for a frontend.
type service struct {
	sched   string
	flags   uint32
	timeout uint32 // of persistence, seconds
	dests   map[netip.AddrPort]int
}

// errAllow is the error of a service that not everyone may use: in IPVS it
// would be everyone's.
var errAllow = fmt.Errorf("IPVS cannot tell who may connect: %w", lb.ErrUnsupported)

// wanted returns what s is in IPVS. Who gets no new connections, idle, stays
// with weight 0: what is connected goes on, nobody new comes. IPVS tells clients
// apart by their address only, so that is what any affinity is.
//
// Where the machine itself balances, host, its own backends are reached where
// their ports lead: netfilter translates a connection once, and for a VIP the
// guard has done that.
func wanted(s *lb.Service, idle []lb.Backend, host bool) (service, error) {
	if len(s.Allow) > 0 {
		return service{}, errAllow
	}
	w := service{sched: ipvs.WeightedRoundRobin, flags: mark, dests: map[netip.AddrPort]int{}}
	if s.Choice == lb.LeastActive {
		w.sched = ipvs.WeightedLeastConnection
	}
	if s.Affinity.By != lb.ByNothing {
		w.flags |= flagPersistent
		w.timeout = uint32(max(1, (s.Affinity.Timeout+time.Second-1)/time.Second))
	}
	for _, list := range [][]lb.Backend{idle, s.Backends} {
		for _, b := range list {
			at := b.Addr
			if host && b.Inner.IsValid() {
				at = b.Inner
			}
			w.dests[at] = int(b.Weight)
		}
	}
	return w, nil
}

// edit is one step from what IPVS holds to what it should.
type edit struct {
	kind   editKind
	dest   netip.AddrPort
	weight int
}

type editKind int

const (
	addService editKind = iota
	setService
	addDest
	setDest
	delDest
	delService
)

// edits returns the steps from old to new; either may be nil for nothing. A
// weight that changes is set, never taken away and put back: connections stay.
// What is added comes first, so that there is always somewhere to go.
func edits(old, new *service) []edit {
	switch {
	case old == nil && new == nil:
		return nil
	case new == nil:
		return []edit{{kind: delService}}
	case old == nil:
		old = &service{}
		return append([]edit{{kind: addService}}, destEdits(old, new)...)
	}
	var out []edit
	if old.sched != new.sched || old.flags != new.flags || old.timeout != new.timeout {
		out = append(out, edit{kind: setService})
	}
	return append(out, destEdits(old, new)...)
}

func destEdits(old, new *service) (out []edit) {
	for _, a := range slices.SortedFunc(maps.Keys(new.dests), netip.AddrPort.Compare) {
		switch was, ok := old.dests[a]; {
		case !ok:
			out = append(out, edit{addDest, a, new.dests[a]})
		case was != new.dests[a]:
			out = append(out, edit{setDest, a, new.dests[a]})
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(old.dests), netip.AddrPort.Compare) {
		if _, ok := new.dests[a]; !ok {
			out = append(out, edit{kind: delDest, dest: a})
		}
	}
	return out
}

// kernelService returns the library's form of a service.
func kernelService(f vip.Frontend, s *service) *ipvs.Service {
	k := &ipvs.Service{
		Address: net.IP(f.Addr.Addr().AsSlice()), Port: f.Addr.Port(), Protocol: protocol(f.Proto),
		SchedName: s.sched, Flags: s.flags, Timeout: s.timeout,
		AddressFamily: unix.AF_INET, Netmask: 0xffffffff,
	}
	if f.Addr.Addr().Is6() {
		k.AddressFamily, k.Netmask = unix.AF_INET6, 128
	}
	return k
}

// kernelDest returns the library's form of a destination, reached by
// masquerading.
func kernelDest(a netip.AddrPort, weight int) *ipvs.Destination {
	d := &ipvs.Destination{
		Address: net.IP(a.Addr().AsSlice()), Port: a.Port(), Weight: weight,
		AddressFamily: unix.AF_INET, ConnectionFlags: ipvs.ConnFwdMasq,
	}
	if a.Addr().Is6() {
		d.AddressFamily = unix.AF_INET6
	}
	return d
}

// fromKernel returns the frontend of k, and false for a service that is not of
// the kind a Plan has: one of a firewall mark, or of another protocol.
func fromKernel(k *ipvs.Service) (vip.Frontend, service, bool) {
	addr, ok := netip.AddrFromSlice(k.Address)
	proto := model.TCP
	switch k.Protocol {
	case unix.IPPROTO_TCP:
	case unix.IPPROTO_UDP:
		proto = model.UDP
	default:
		ok = false
	}
	if !ok || k.FWMark != 0 {
		return vip.Frontend{}, service{}, false
	}
	f := vip.Frontend{Addr: netip.AddrPortFrom(addr.Unmap(), k.Port), Proto: proto}
	return f, service{sched: k.SchedName, flags: k.Flags &^ flagHashed, timeout: k.Timeout, dests: map[netip.AddrPort]int{}}, true
}

func protocol(p model.Proto) uint16 {
	if p == model.UDP {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}
