package hostnet

import (
	"net"
	"net/netip"
	"slices"
)

// Addrs returns the machine's addresses, unmapped, but for loopback and
// link-local ones. It returns none if the kernel does not tell.
func Addrs() []netip.Addr {
	return slices.DeleteFunc(all(), func(a netip.Addr) bool { return a.IsLoopback() || a.IsLinkLocalUnicast() })
}

// IsLocal reports whether a is a loopback address or one of the machine's own.
func IsLocal(a netip.Addr) bool {
	return a.IsLoopback() || slices.Contains(all(), a.Unmap().WithZone(""))
}

func all() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, ia := range list {
		if p, err := netip.ParsePrefix(ia.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}
