package answers

import (
	"encoding/binary"
	"net/netip"
	"time"

	"waggle/dns"
)

const headerSize = 12

// encode makes k what the program compares with and what it sends, and reports
// false for what does not fit.
func encode(k *dns.Kept, now time.Duration) (*bpfQuestion, *bpfAnswer, bool) {
	q := &bpfQuestion{Flags: [2]uint8(k.Query[2:4]), Opt: k.Query[headerSize-1], Size: uint8(len(k.Query) - headerSize)}
	behind := headerSize + len(k.Name) + 4 // type and class
	a := &bpfAnswer{
		Since: uint64(now), Until: uint64(now + k.For), Generation: k.Generation, Counter: uint32(k.Counter),
		Header: [10]uint8(k.Reply[2:headerSize]), Size: uint16(len(k.Reply) - behind),
		Turns: uint16(k.Turns), Each: uint16(k.TurnLen), Ttls: uint32(len(k.TTLs)),
	}
	if len(k.Query) > headerSize+len(q.Text) || len(k.Reply) <= behind || len(k.Reply) > behind+len(a.Text) ||
		k.Turns*k.TurnLen > len(a.Text)/2 || len(k.TTLs) > len(a.Ttl) {
		return nil, nil, false
	}
	copy(q.Text[:], k.Query[headerSize:])
	copy(q.Text[:], k.Name)
	copy(a.Text[:], k.Reply[behind:])
	for i, at := range k.TTLs {
		a.TtlAt[i], a.Ttl[i] = uint16(at-behind), binary.BigEndian.Uint32(k.Reply[at:])
	}
	return q, a, true
}

// words is an address as the program has it, in network order.
func words(a netip.Addr) (out [4]uint32) {
	b := a.As16()
	for i := range out {
		out[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return out
}

func networkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}
