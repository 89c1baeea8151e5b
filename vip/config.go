package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Config says where named VIPs live. All nodes of a cluster must have the same
// one, for each works the addresses out for itself.
type Config struct {
	// First4 to Last4, both included, are the addresses of named VIPs that have
	// IPv4 backends. A name's address depends on the size of the range, so a
	// change of either end moves nearly all of them. Two names of n collide with
	// a chance of about n²/2 over the size; more names than addresses leave the
	// highest names without one.
	First4, Last4 netip.Addr
	// First6 to Last6 are the same for IPv6 backends.
	First6, Last6 netip.Addr
	// IPv6 says whether IPv6 backends count and IPv6 VIPs are served at all.
	IPv6 bool
	// Options are what services ask for whose labels do not say, and Services
	// what services ask for whatever their labels say: by folded name, such as
	// web.marathon, or by address.
	Options  Options
	Services map[string]Options
	// Node are the addresses of this machine. ShortCut says which backends that
	// run on it are reached by their containers' own addresses. The addresses of
	// VIPs do not depend on either.
	Node     []netip.Addr
	ShortCut ShortCut
}

// options returns what the service of t asks for, whose labels say said.
func (c Config) options(t target, said Options) Options {
	key := t.name
	if key == "" && len(c.Services) > 0 {
		key = t.addr.String()
	}
	o := c.Services[key].or(said).or(c.Options)
	o.said = 0
	return o
}

// DefaultConfig returns the ranges of DC/OS, so that old and new nodes of one
// cluster give a name the same address.
func DefaultConfig() Config {
	return Config{
		First4: netip.AddrFrom4([4]byte{11, 0, 0, 0}),
		Last4:  netip.AddrFrom4([4]byte{11, 255, 255, 255}),
		First6: netip.AddrFrom16([16]byte{0: 0xfd, 0x01, 0x00, 0x0c}),
		Last6: netip.AddrFrom16([16]byte{
			0: 0xfd, 0x01, 0x00, 0x0c, 8: 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		}),
		IPv6: true,
	}
}

// Check returns everything that is wrong with c. The IPv6 range of a Config
// without IPv6 may be anything.
func (c Config) Check() error {
	err := checkRange("IPv4", c.First4, c.Last4, netip.Addr.Is4)
	if !c.IPv6 {
		return err
	}
	return errors.Join(err, checkRange("IPv6", c.First6, c.Last6, func(a netip.Addr) bool {
		return a.Is6() && !a.Is4In6() && a.Zone() == ""
	}))
}

func checkRange(family string, first, last netip.Addr, belongs func(netip.Addr) bool) error {
	for _, a := range []netip.Addr{first, last} {
		if !belongs(a) {
			return fmt.Errorf("range of named VIPs %s-%s: %s is not an %s address", first, last, a, family)
		}
	}
	if !first.Less(last) {
		return fmt.Errorf("range of named VIPs %s-%s: the last address is not above the first", first, last)
	}
	return nil
}

// accepts reports whether backend may serve a VIP: one of the same family for a
// VIP given by address, of any for a named one, whose vip is the zero Addr.
func (c Config) accepts(vip, backend netip.Addr) bool {
	if backend.Is6() && !c.IPv6 {
		return false
	}
	return !vip.IsValid() || vip.Is4() == backend.Is4()
}

// whyNone says why none of the endpoints of a port may serve a VIP.
func (c Config) whyNone(vip netip.Addr, endpoints []netip.AddrPort) error {
	switch {
	case vip.Is6() && !c.IPv6:
		return errors.New("IPv6 VIPs are switched off")
	case len(endpoints) == 0:
		return errors.New("the address of the task is not known")
	case vip.IsValid():
		return fmt.Errorf("no backend is of the VIP's address family: %v", endpoints)
	}
	return fmt.Errorf("no backend is of a family that is switched on: %v", endpoints)
}

// ServiceKey returns the key in Config.Services of the VIP that is named: by
// name.framework, the last part being the framework's, or by address.
func ServiceKey(name string) (string, error) {
	if a, err := parseAddr(name); err != nil || a.IsValid() {
		return a.String(), err
	}
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", fmt.Errorf("%q is neither an address nor a name with its framework, such as web.marathon", name)
	}
	vip, framework := FoldName(name[:i]), FoldName(name[i+1:])
	if vip == "" || framework == "" {
		return "", fmt.Errorf("%q has no ASCII letter or digit on one side of the last dot", name)
	}
	return vip + "." + framework, nil
}
