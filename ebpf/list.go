package ebpf

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

const (
	// maxSlots is the longest list a descriptor can tell of.
	maxSlots = 1<<16 - 1
	// fineness is the length of list at which weights are rounded: a backend's
	// share is then right to 1/8192 of the service's connections.
	fineness = 4096
)

// The flags of bpf/maps.h.
const (
	flagRemember = 1 << iota
	flagPeername
	flagCount
	flagWatch
	flagLeast
	flagNetns
	flagCgroup
	flagSource
	flagAllow
	flagExclude

	flagRow = 1 << 15

	flagsAffinity = flagNetns | flagCgroup | flagSource
)

// share is one backend of a service as the programs see it.
type share struct {
	addr   packed
	port   uint16
	weight uint16
	slots  uint16 // at least 1
}

// packed are the words of an address by twos, as they lie in memory: a million of
// them are copied in registers, which arrays are not.
type packed struct{ first, last uint64 }

func pack(a netip.Addr) packed {
	b := a.As16() // IPv4 as ::ffff:a.b.c.d
	return packed{binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:])}
}

// packedWords are the words of a backend.
func packedWords(w *[4]uint32) *packed { return (*packed)(unsafe.Pointer(w)) }

// compare orders addresses as netip does.
func (p packed) compare(q packed) int {
	if p.first != q.first {
		return cmp.Compare(bits.ReverseBytes64(p.first), bits.ReverseBytes64(q.first))
	}
	return cmp.Compare(bits.ReverseBytes64(p.last), bits.ReverseBytes64(q.last))
}

// recipe is a service as the programs see it.
type recipe struct {
	shares   []share // sorted by address and port
	flags    uint16
	affinity time.Duration
	allow    []bpfAllowKey // without their service
}

// slots returns how long the list is.
func (r recipe) slots() (n int) {
	for _, sh := range r.shares {
		n += int(sh.slots)
	}
	return n
}

// format says how the keys of one address family look to the programs.
type format[K comparable] struct {
	name     string
	key      func(vip.Frontend) K
	frontend func(K) (f vip.Frontend, ours bool)
}

func newFormat4() format[bpfVip4Key] {
	return format[bpfVip4Key]{
		name: "IPv4",
		key: func(f vip.Frontend) bpfVip4Key {
			return bpfVip4Key{Addr: words(f.Addr.Addr())[3], Port: swap(f.Addr.Port()), Proto: uint8(f.Proto)}
		},
		frontend: func(k bpfVip4Key) (vip.Frontend, bool) {
			return vip.Frontend{Addr: addrPort([4]uint32{2: mappedWord(), 3: k.Addr}, k.Port), Proto: model.Proto(k.Proto)}, k.Scope == 0
		},
	}
}

func newFormat6() format[bpfVip6Key] {
	return format[bpfVip6Key]{
		name: "IPv6",
		key: func(f vip.Frontend) bpfVip6Key {
			return bpfVip6Key{Addr: words(f.Addr.Addr()), Port: swap(f.Addr.Port()), Proto: uint8(f.Proto)}
		},
		frontend: func(k bpfVip6Key) (vip.Frontend, bool) {
			a := addrPort(k.Addr, k.Port)
			return vip.Frontend{Addr: a, Proto: model.Proto(k.Proto)}, k.Scope == 0 && a.Addr().Is6()
		},
	}
}

// words, swap and addrPort bring addresses and ports into network order, IPv4
// as ::ffff:a.b.c.d, and back.

func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func swap(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func addrPort(w [4]uint32, port uint16) netip.AddrPort {
	var a [16]byte
	for i, v := range w {
		binary.NativeEndian.PutUint32(a[4*i:], v)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), swap(port))
}

// mappedWord is the third word of ::ffff:a.b.c.d.
func mappedWord() uint32 { return binary.NativeEndian.Uint32([]byte{0, 0, 0xff, 0xff}) }

// recipes writes down services as this kernel and configuration want them.
type recipes struct {
	udp     bool // the kernel can balance it
	watch   bool // failed connects are to be known
	exclude bool // some clients are to be left alone
	ends    bool // the kernel tells when a socket ends, so that open ones can be counted
	names   *names
	probe   *probe // which nobody is excluded from: it shows whether programs run
	scratch []share
}

// recipe says how s looks to the programs. It is valid until the next call.
func (r *recipes) recipe(s *lb.Service) (recipe, error) {
	if s.Frontend.Proto == model.UDP && !r.udp || s.Frontend.Proto != model.UDP && s.Frontend.Proto != model.TCP {
		return recipe{}, fmt.Errorf("%s: %w", s.Frontend.Proto, lb.ErrUnsupported)
	}
	// Most services' weights are all the same. To look first would be to read a
	// million backends twice.
	slots, even, err := r.list(s, nil)
	if err == nil && !even {
		of := newShares(s.Backends)
		slots, _, err = r.list(s, &of)
	}
	if err != nil {
		return recipe{}, err
	}
	to := recipe{flags: r.flags(s), shares: r.scratch}
	if slots > maxSlots {
		return recipe{}, fmt.Errorf("%d backends take %d slots, more than %d", len(s.Backends), slots, maxSlots)
	}
	if to.flags&flagsAffinity != 0 {
		to.affinity = s.Affinity.Timeout
	}
	if to.flags&flagAllow != 0 {
		to.allow = r.names.resolve(s.Allow)
	}
	return to, nil
}

// list makes r.scratch the shares of s, and returns how many slots they take.
// Without weights given it takes all for the same, which is one slot for each
// backend, and reports whether they are.
func (r *recipes) list(s *lb.Service, weights *shares) (slots int, even bool, err error) {
	list, is4 := slices.Grow(r.scratch[:0], len(s.Backends)), s.Frontend.Addr.Addr().Is4()
	defer func() { r.scratch = list }()
	for i := range s.Backends {
		b := &s.Backends[i]
		a, n := b.Addr.Addr(), uint64(1)
		if a.Is4() != is4 || a.Is4In6() {
			return 0, false, fmt.Errorf("backend %s is not an address of the VIP's family", b.Addr)
		}
		if b.Weight == 0 {
			return 0, false, fmt.Errorf("backend %s has weight 0", b.Addr)
		}
		if weights != nil {
			n = weights.of(b.Weight)
		} else if b.Weight != s.Backends[0].Weight {
			return 0, false, nil
		}
		slots += int(n)
		sh := share{pack(a), swap(b.Addr.Port()), b.Weight, uint16(min(n, maxSlots))}
		if at := len(list) - 1; at >= 0 && list[at].addr == sh.addr && list[at].port == sh.port {
			// Two tasks at one address are one backend.
			list[at].slots += sh.slots
			list[at].weight = uint16(min(1<<16-1, uint32(list[at].weight)+uint32(sh.weight)))
			continue
		}
		list = append(list, sh)
	}
	return slots, true, nil
}

func (r *recipes) flags(s *lb.Service) (flags uint16) {
	udp := s.Frontend.Proto == model.UDP
	set := func(flag uint16, wanted bool) {
		if wanted {
			flags |= flag
		}
	}
	set(flagPeername, s.Peername && !udp) // a UDP socket remembers anyway
	set(flagCount|flagLeast, s.Choice == lb.LeastActive && r.ends)
	set(flagWatch, r.watch && !udp)
	set(flagRemember, udp || s.Remember || flags != 0)
	switch s.Affinity.By {
	case lb.ByNamespace:
		flags |= flagNetns
	case lb.ByCgroup:
		flags |= flagCgroup
	case lb.BySource:
		flags |= flagSource
	}
	set(flagAllow, len(s.Allow) > 0)
	set(flagExclude, r.exclude && !r.probe.is(s.Frontend))
	return flags
}

// shares turns weights into numbers of slots: weight*slots/total.
type shares struct{ slots, total uint64 }

// newShares keeps weights exactly in proportion while all of them fit into
// fineness, and else scales them to that.
func newShares(backends []lb.Backend) shares {
	total, divisor := uint64(0), uint64(0)
	for _, b := range backends {
		total += uint64(b.Weight)
		divisor = gcd(uint64(b.Weight), divisor)
	}
	if total <= fineness*divisor {
		return shares{1, max(1, divisor)}
	}
	return shares{fineness, total}
}

// of rounds to the nearest, but no weight gets no slot at all.
func (s shares) of(weight uint16) uint64 {
	if s.slots == 1 && uint64(weight) == s.total {
		return 1
	}
	return max(1, (uint64(weight)*s.slots+s.total/2)/s.total)
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
