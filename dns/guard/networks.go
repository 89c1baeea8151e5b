package guard

import (
	"fmt"
	"net/netip"
	"slices"
)

// Networks is a set of networks. It is immutable and safe for concurrent use;
// the zero value is empty.
type Networks struct {
	// loopback is asked for first, since most clients are on this machine.
	loopback bool
	v4, v6   []netip.Prefix
}

// NewNetworks returns the set of the addresses in any of prefixes.
func NewNetworks(prefixes ...netip.Prefix) *Networks {
	n := &Networks{}
	for _, p := range prefixes {
		if p.Addr().Is4() {
			n.v4 = append(n.v4, p.Masked())
		} else {
			n.v6 = append(n.v6, p.Masked())
		}
	}
	n.loopback = n.scan(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	return n
}

// Contains reports whether a, which may be an IPv4 address mapped to IPv6, is in
// one of the networks.
func (n *Networks) Contains(a netip.Addr) bool {
	if n.loopback && a == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return true
	}
	return n.scan(a.Unmap().WithZone(""))
}

func (n *Networks) scan(a netip.Addr) bool {
	list := n.v6
	if a.Is4() {
		list = n.v4
	}
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// The names of networks that ParseNetworks knows beside prefixes and addresses.
const (
	any      = "any"
	loopback = "loopback"
	private  = "private"
	own      = "own"
)

// ParseNetworks reads a list of prefixes, addresses and the words any, loopback,
// private (RFC 1918, RFC 4193, RFC 6598 and link-local) and own, which stands for
// the addresses that are given as ours.
func ParseNetworks(list []string, ours []netip.Addr) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range list {
		if words, ok := named(text); ok {
			out = append(out, words...)
			continue
		}
		if text == own {
			for _, a := range ours {
				out = append(out, netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen()))
			}
			continue
		}
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no network, address or one of any, loopback, private, own", text)
		}
		out = append(out, p.Masked())
	}
	return slices.Compact(out), nil
}

// named returns the networks that a word stands for.
func named(word string) ([]netip.Prefix, bool) {
	var texts []string
	switch word {
	case any:
		texts = []string{"0.0.0.0/0", "::/0"}
	case loopback:
		texts = []string{"127.0.0.0/8", "::1/128"}
	case private:
		texts = []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"}
	default:
		return nil, false
	}
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out, true
}
