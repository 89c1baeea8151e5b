package ebpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"

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
	// flagPeername is FLAG_PEERNAME of bpf/maps.h.
	flagPeername = 1
)

// format says how keys and destinations of one address family look to the
// programs.
type format[K, D comparable] struct {
	name     string
	key      func(vip.Frontend) K
	frontend func(K) (f vip.Frontend, ours bool)
	dest     func(netip.AddrPort) (d D, ok bool) // false for another family
}

func newFormat4() format[bpfVip4Key, bpfDest4] {
	return format[bpfVip4Key, bpfDest4]{
		name: "IPv4",
		key: func(f vip.Frontend) bpfVip4Key {
			return bpfVip4Key{Addr: word(f.Addr.Addr()), Port: swap(f.Addr.Port()), Proto: uint8(f.Proto)}
		},
		frontend: func(k bpfVip4Key) (vip.Frontend, bool) {
			var a [4]byte
			binary.NativeEndian.PutUint32(a[:], k.Addr)
			return vip.Frontend{Addr: netip.AddrPortFrom(netip.AddrFrom4(a), swap(k.Port)), Proto: model.Proto(k.Proto)}, k.Scope == 0
		},
		dest: func(a netip.AddrPort) (bpfDest4, bool) {
			if !a.Addr().Is4() {
				return bpfDest4{}, false
			}
			return bpfDest4{Addr: word(a.Addr()), Port: swap(a.Port())}, true
		},
	}
}

func newFormat6() format[bpfVip6Key, bpfDest6] {
	return format[bpfVip6Key, bpfDest6]{
		name: "IPv6",
		key: func(f vip.Frontend) bpfVip6Key {
			return bpfVip6Key{Addr: words(f.Addr.Addr()), Port: swap(f.Addr.Port()), Proto: uint8(f.Proto)}
		},
		frontend: func(k bpfVip6Key) (vip.Frontend, bool) {
			var a [16]byte
			for i, w := range k.Addr {
				binary.NativeEndian.PutUint32(a[4*i:], w)
			}
			return vip.Frontend{Addr: netip.AddrPortFrom(netip.AddrFrom16(a), swap(k.Port)), Proto: model.Proto(k.Proto)}, k.Scope == 0
		},
		dest: func(a netip.AddrPort) (bpfDest6, bool) {
			if !a.Addr().Is6() || a.Addr().Is4In6() {
				return bpfDest6{}, false
			}
			return bpfDest6{Addr: words(a.Addr()), Port: swap(a.Port())}, true
		},
	}
}

// word, words and swap bring addresses and ports into network order.

func word(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func swap(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

// list appends the destinations of s to buf, each as often as its share is, and
// returns the flags that go with them.
func (f *format[K, D]) list(s *lb.Service, buf []D) ([]D, uint16, error) {
	if s.Frontend.Proto != model.TCP {
		return buf, 0, fmt.Errorf("%s: %w", s.Frontend.Proto, lb.ErrUnsupported)
	}
	shares := newShares(s.Backends)
	for _, b := range s.Backends {
		d, ok := f.dest(b.Addr)
		if !ok {
			return buf, 0, fmt.Errorf("backend %s is not an %s address", b.Addr, f.name)
		}
		if b.Weight == 0 {
			return buf, 0, fmt.Errorf("backend %s has weight 0", b.Addr)
		}
		for range shares.of(b.Weight) {
			buf = append(buf, d)
		}
	}
	if len(buf) > maxSlots {
		return buf, 0, fmt.Errorf("%d backends take %d slots, more than %d", len(s.Backends), len(buf), maxSlots)
	}
	var flags uint16
	if s.Peername {
		flags |= flagPeername
	}
	return buf, flags, nil
}

// shares turns weights into numbers of slots: weight*slots/total.
type shares struct{ slots, total uint64 }

// newShares keeps weights exactly in proportion while all of them fit into
// fineness, and else scales them to that.
func newShares(backends []lb.Backend) shares {
	total, divisor := uint64(0), uint64(0)
	for _, b := range backends {
		total, divisor = total+uint64(b.Weight), gcd(uint64(b.Weight), divisor)
	}
	if total <= fineness*divisor {
		return shares{1, max(1, divisor)}
	}
	return shares{fineness, total}
}

// of rounds to the nearest, but no weight gets no slot at all.
func (s shares) of(weight uint16) uint64 {
	return max(1, (uint64(weight)*s.slots+s.total/2)/s.total)
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
