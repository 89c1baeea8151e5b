package dns

import (
	"net/netip"
	"strconv"

	"github.com/miekg/dns"
)

// pointer names an address: the reverse of an A or AAAA record of name. An
// address that means something else on each machine has no name, and one whose
// reverse name is configured has that.
func (l *layout) pointer(add addFunc, a netip.Addr, name string) {
	a = a.Unmap()
	if !a.IsValid() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() {
		return
	}
	if reverse := reverseName(a); !l.taken[reverse] {
		add(reverse, value{rrtype: dns.TypePTR, target: name})
	}
}

// reverseName returns where the name of an address is: RFC 1035 section 3.5,
// RFC 3596 section 2.5.
func reverseName(a netip.Addr) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, len("0.")*32+len("ip6.arpa."))
	if a.Is4() {
		octets := a.As4()
		for i := range octets {
			out = append(strconv.AppendUint(out, uint64(octets[3-i]), 10), '.')
		}
		return string(append(out, "in-addr.arpa."...))
	}
	octets := a.As16()
	for i := range octets {
		o := octets[15-i]
		out = append(out, digits[o&0xf], '.', digits[o>>4], '.')
	}
	return string(append(out, "ip6.arpa."...))
}
