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

// pathOf is who asks whom, as the program has it.
func pathOf(client netip.Addr, server netip.AddrPort) bpfPath {
	port := server.Port()
	return bpfPath{Client: client.As16(), Server: server.Addr().As16(), Port: [2]uint8{uint8(port >> 8), uint8(port)}}
}
