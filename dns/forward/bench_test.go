package forward

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/zap"
)

// echoing is an upstream that has one address for every name, and costs little.
func echoing(b *testing.B) netip.AddrPort {
	b.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			end, ok := spelledName(buf[:n], headerSize)
			if !ok {
				continue
			}
			buf[2] |= 0x80
			buf[7], buf[11] = 1, 0
			out := append(buf[:end+4], 0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, 1)
			_, _ = conn.WriteToUDPAddrPort(out, from)
		}
	}()
	b.Cleanup(func() { conn.Close(); <-done })
	return netip.MustParseAddrPort(conn.LocalAddr().String())
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
			reply := func(msg []byte) { got <- msg }
			b.ReportAllocs()
			for i := range b.N {
				if fresh {
					for digit := range 8 {
						packet[headerSize+2+digit] = "0123456789abcdef"[i>>(4*digit)&0xf]
					}
				}
				r.Resolve(packet, client, false, reply)
				if msg := <-got; binary.BigEndian.Uint16(msg[6:]) != 1 {
					b.Fatalf("% x", msg)
				}
			}
			cancel()
			<-done
		})
	}
}
