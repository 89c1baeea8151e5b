package ipvs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// protoWaggle marks our routes: a protocol number of routing daemons that
// nobody has registered (rt_protos of iproute2), with which they are found
// again.
const protoWaggle = 0x77

// refs counts the services of each address.
type refs map[netip.Addr]int

// routes make VIPs reachable in one namespace. In the machine's they are local,
// so that what others send through the machine comes to IPVS, with a source
// address of the machine for its own clients, which would else use the VIP. In
// a container's any route will do, for IPVS takes what is sent before it leaves;
// one is made only where there is none.
type routes struct {
	nl    *netlink.Handle
	host  bool
	cfg   Config
	lo    int
	count refs
	made  map[netip.Addr]bool
}

func openRoutes(ns netns.NsHandle, host bool, cfg Config) (*routes, error) {
	nl, err := netlinkAt(ns)
	if err != nil {
		return nil, err
	}
	r := &routes{nl: nl, host: host, cfg: cfg, count: refs{}, made: map[netip.Addr]bool{}}
	lo, err := nl.LinkByName("lo")
	if err != nil {
		nl.Close()
		return nil, fmt.Errorf("find lo: %w", err)
	}
	r.lo = lo.Attrs().Index
	return r, nil
}

func (r *routes) close() { r.nl.Close() }

// enter counts one service more at a, and routes a if it is the first.
func (r *routes) enter(a netip.Addr) error {
	if r.count[a]++; r.count[a] > 1 {
		return nil
	}
	return r.add(a)
}

func (r *routes) add(a netip.Addr) error {
	route, err := r.route(a)
	if err != nil || route == nil {
		return err
	}
	if err := r.nl.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s: %w", a, err)
	}
	r.made[a] = true
	return nil
}

// route returns the route that a needs, nil if it needs none.
func (r *routes) route(a netip.Addr) (*netlink.Route, error) {
	to := r.bare(a)
	if r.host {
		src := r.cfg.Node4
		if a.Is6() {
			src = r.cfg.Node6
		}
		if !src.IsValid() {
			return nil, nil
		}
		to.Src = net.IP(src.AsSlice())
		return to, nil
	}
	if _, err := r.nl.RouteGet(net.IP(a.AsSlice())); err == nil {
		return nil, nil
	}
	links, err := r.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if attrs := l.Attrs(); attrs.Index != r.lo && attrs.Flags&net.FlagUp != 0 {
			to.LinkIndex = attrs.Index
			return to, nil
		}
	}
	return nil, nil // nothing leads out of this container
}

// leave counts one service less at a, and takes its route away if that was the
// last.
func (r *routes) leave(a netip.Addr) error {
	if r.count[a]--; r.count[a] > 0 {
		return nil
	}
	delete(r.count, a)
	if !r.made[a] {
		return nil
	}
	delete(r.made, a)
	return r.remove(a)
}

// bare is what a route of ours to a has in any case.
func (r *routes) bare(a netip.Addr) *netlink.Route {
	route := &netlink.Route{Dst: hostNet(a), Protocol: protoWaggle, Scope: netlink.SCOPE_LINK}
	if r.host {
		route.Type, route.Table, route.LinkIndex, route.Scope = unix.RTN_LOCAL, unix.RT_TABLE_LOCAL, r.lo, netlink.SCOPE_HOST
	}
	if a.Is6() {
		route.Scope = netlink.SCOPE_UNIVERSE // IPv6 has no other
	}
	return route
}

func (r *routes) remove(a netip.Addr) error {
	if err := r.nl.RouteDel(r.bare(a)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route to %s: %w", a, err)
	}
	return nil
}

// adopt makes the routes of addrs, one for each service, be there and no
// others of ours.
func (r *routes) adopt(addrs []netip.Addr) error {
	r.count = refs{}
	for _, a := range addrs {
		r.count[a]++
	}
	here, err := r.list()
	if err != nil {
		return err
	}
	r.made = map[netip.Addr]bool{}
	var errs []error
	for a := range here {
		if r.count[a] == 0 {
			errs = append(errs, r.remove(a))
		} else {
			r.made[a] = true
		}
	}
	for a := range r.count {
		if !here[a] {
			errs = append(errs, r.add(a))
		}
	}
	return errors.Join(errs...)
}

// list returns what our routes lead to.
func (r *routes) list() (map[netip.Addr]bool, error) {
	filter, mask := &netlink.Route{Protocol: protoWaggle}, uint64(netlink.RT_FILTER_PROTOCOL)
	if r.host {
		filter.Table, filter.Type = unix.RT_TABLE_LOCAL, unix.RTN_LOCAL
		mask |= netlink.RT_FILTER_TABLE | netlink.RT_FILTER_TYPE
	}
	found, err := r.nl.RouteListFiltered(netlink.FAMILY_ALL, filter, mask)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	out := map[netip.Addr]bool{}
	for _, route := range found {
		if route.Dst == nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(route.Dst.IP); ok {
			out[a.Unmap()] = true
		}
	}
	return out, nil
}

func hostNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: net.IP(a.AsSlice()), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
