package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/internal/testnet"
)

// flood sends a query as fast as it can from a socket in ns, until stop, which
// returns how many were sent.
func flood(t *testing.T, ns *testnet.Namespace, to netip.AddrPort, query []byte) (stop func() int) {
	t.Helper()
	var conn net.Conn
	ns.Must(t, func() (err error) { conn, err = net.Dial(protoUDP, to.String()); return err })
	var over atomic.Bool
	sent := make(chan int)
	go func() {
		n := 0
		for ; !over.Load(); n++ {
			_, _ = conn.Write(query) // what is lost is lost
		}
		_ = conn.Close()
		sent <- n
	}()
	return func() int { over.Store(true); return <-sent }
}

// What is flooded with, refusals and queries that go the slow way, must not keep
// a new Zone from being built and served. How fast that is depends on the
// machine and is not asserted: only that it comes to pass while they go on.
func TestAFloodDoesNotKeepAChangeFromBeingServed(t *testing.T) {
	ns := testnet.New(t)
	var zone atomic.Pointer[Zone]
	zone.Store(testZone())
	cfg := DefaultServerConfig()
	cfg.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	s := NewServer(cfg, zone.Load, zap.NewNop(), nil)
	ns.Must(t, s.Listen)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()

	foreign := pack(t, ask("example.org.", dns.TypeA))
	var stops []func() int
	for _, query := range [][]byte{foreign, withOPT(foreign, 0, 3, 0, 0)} {
		for range 2 {
			stops = append(stops, flood(t, ns, cfg.Listen[0], query))
		}
	}
	snap, _ := cluster(3000)
	zone.Store(Build(nil, snap, nil, DefaultConfig()))
	var name string
	for _, r := range zone.Load().Records() {
		if r.Type == "A" && strings.HasSuffix(r.Name, ".marathon.mesos.") {
			name = r.Name
			break
		}
	}
	ns.Must(t, func() error {
		c := &dns.Client{Timeout: time.Second}
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
			if r, _, err := c.Exchange(ask(name, dns.TypeA), cfg.Listen[0].String()); err == nil && len(r.Answer) > 0 {
				return nil
			}
		}
		return fmt.Errorf("%s is not served", name)
	})
	sent := 0
	for _, stop := range stops {
		sent += stop()
	}
	t.Logf("served during a flood of %d queries", sent)
}
