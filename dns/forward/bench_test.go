package forward

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/dns/wire"
)

// echoing is an upstream that has one address for every name, and costs little.
func echoing(b *testing.B) netip.AddrPort {
	b.Helper()
	return serveUDP(b, func(query []byte, from netip.AddrPort, conn *net.UDPConn) {
		end, ok := spelledName(query, headerSize)
		if !ok {
			return
		}
		query[2] |= 0x80
		query[7], query[11] = 1, 0
		out := append(query[:end+4], 0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, 1)
		_, _ = conn.WriteToUDPAddrPort(out, from)
	})
}

// BenchmarkResolve asks for names one after another: each for the first time, or
// one that is remembered.
func BenchmarkResolve(b *testing.B) {
	for name, fresh := range map[string]bool{"new": true, "remembered": false} {
		b.Run(name, func(b *testing.B) {
			cfg := DefaultConfig()
			cfg.Upstreams = []Upstream{{Addr: echoing(b)}}
			r, err := New(cfg, nil, zap.NewNop(), nil)
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			packet, err := new(dns.Msg).SetQuestion("x00000000.example.", dns.TypeA).Pack()
			if err != nil {
				b.Fatal(err)
			}
			got := make(chan []byte, 1)
			reply := func(_ *wire.Outbox, msg []byte) { got <- msg }
			b.ReportAllocs()
			for i := range b.N {
				if fresh {
					for digit := range 8 {
						packet[headerSize+2+digit] = "0123456789abcdef"[i>>(4*digit)&0xf]
					}
				}
				r.Resolve(packet, client, false, nil, reply)
				if msg := <-got; binary.BigEndian.Uint16(msg[6:]) != 1 {
					b.Fatalf("% x", msg)
				}
			}
			cancel()
			<-done
		})
	}
}
