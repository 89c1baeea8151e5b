package hostnet_test

import (
	"net"
	"net/netip"
	"testing"

	"waggle/internal/hostnet"
	"waggle/internal/testnet"
	"waggle/model"
)

// BenchmarkDisconnect ends 500 of 1 000 TCP sockets of one namespace, and looks
// through all namespaces for them.
func BenchmarkDisconnect(b *testing.B) {
	ns := inhabited(b)
	gone, stays := ns.Echo(b, netip.MustParseAddrPort("127.0.0.1:0")), ns.Echo(b, netip.MustParseAddrPort("127.0.0.1:0"))
	dialMany(b, ns, stays, 500)
	for b.Loop() {
		b.StopTimer()
		ended := dialMany(b, ns, gone, 500)
		b.StartTimer()
		n, err := hostnet.Disconnect(map[hostnet.Peer]bool{{Proto: model.TCP, Addr: gone}: true})
		if err != nil || n < len(ended) {
			b.Fatalf("Disconnect = %d, %v", n, err)
		}
	}
}

func dialMany(b *testing.B, ns *testnet.Namespace, to netip.AddrPort, n int) (out []net.Conn) {
	b.Helper()
	ns.Must(b, func() error {
		for range n {
			c, err := net.Dial("tcp", to.String())
			if err != nil {
				return err
			}
			out = append(out, c)
		}
		return nil
	})
	b.Cleanup(func() {
		for _, c := range out {
			c.Close()
		}
	})
	return out
}
