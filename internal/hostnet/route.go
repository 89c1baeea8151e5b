package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes that are ours; nobody else is known to use it.
const routeProtocol netlink.RouteProtocol = 87

// localTable is the kernel's table of what is delivered to the machine itself.
const localTable = unix.RT_TABLE_LOCAL

// SetLocal makes the addresses within prefixes, and no others, local to the
// network namespace of the calling thread, by routes of type local on loopback
// (AnyIP): they answer pings, and refuse what nobody listens to. Routes that are
// not ours stay. No prefixes removes all of ours. It returns how many routes it
// added or removed, and needs CAP_NET_ADMIN.
func SetLocal(prefixes []netip.Prefix) (changed int, err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return 0, fmt.Errorf("find loopback: %w", err)
	}
	have, err := ourRoutes()
	if err != nil {
		return 0, err
	}
	var errs []error
	for p, r := range have {
		if slices.Contains(prefixes, p) {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove local route %s: %w", p, err))
			continue
		}
		changed++
	}
	for _, p := range prefixes {
		if _, ok := have[p]; ok {
			continue
		}
		r := netlink.Route{
			Dst: ipNet(p), LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: localTable,
			Scope: netlink.SCOPE_HOST, Protocol: routeProtocol,
		}
		if err := netlink.RouteAdd(&r); err != nil {
			errs = append(errs, fmt.Errorf("add local route %s: %w", p, err))
			continue
		}
		changed++
	}
	return changed, errors.Join(errs...)
}

func ourRoutes() (map[netip.Prefix]netlink.Route, error) {
	out := map[netip.Prefix]netlink.Route{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: localTable, Protocol: routeProtocol},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return nil, fmt.Errorf("list local routes: %w", err)
		}
		for _, r := range list {
			if r.Dst == nil {
				continue
			}
			a, ok := netip.AddrFromSlice(r.Dst.IP)
			ones, _ := r.Dst.Mask.Size()
			if ok {
				out[netip.PrefixFrom(a.Unmap(), ones)] = r
			}
		}
	}
	return out, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Prefixes returns the fewest prefixes that hold the addresses from first to
// last and no others. They must be of one family and in order.
func Prefixes(first, last netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for first.IsValid() && first.Compare(last) <= 0 {
		p := netip.PrefixFrom(first, first.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(first, p.Bits()-1)
			if wider.Masked().Addr() != first || lastOf(wider).Compare(last) > 0 {
				break
			}
			p = wider
		}
		out = append(out, p)
		first = lastOf(p).Next()
	}
	return out
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
