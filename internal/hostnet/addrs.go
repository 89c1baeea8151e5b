package hostnet

import (
	"fmt"
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

// LinkAddrs returns the addresses of the named interface, unmapped, but for
// link-local ones of IPv6.
func LinkAddrs(name string) ([]netip.Addr, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	list, err := link.Addrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	out := parsed(list)
	return slices.DeleteFunc(out, func(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }), nil
}

func all() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	return parsed(list)
}

func parsed(list []net.Addr) []netip.Addr {
	var out []netip.Addr
	for _, ia := range list {
		if p, err := netip.ParsePrefix(ia.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// Outgoing returns the addresses that the machine's connections to the outside
// come from, one of each family; the zero Addr where nothing leads out.
func Outgoing() (v4, v6 netip.Addr) {
	from := func(network, to string) netip.Addr {
		c, err := net.Dial(network, to) // sends nothing: it only asks for the route
		if err != nil {
			return netip.Addr{}
		}
		defer c.Close()
		a := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		if a.IsLoopback() {
			return netip.Addr{}
		}
		return a
	}
	// Addresses for documentation (RFC 5737, RFC 3849), which are everywhere and
	// nowhere.
	return from("udp4", "192.0.2.1:9"), from("udp6", "[2001:db8::1]:9")
}
