package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"waggle/model"
)

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

func local(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// serve runs a Server on one address until the test ends.
func serve(t testing.TB, cfg ServerConfig, zone func() *Zone, reg prometheus.Registerer) *Server {
	t.Helper()
	return run(t, NewServer(onLoopback(cfg), zone, zap.NewNop(), reg))
}

// serveLogging is serve with a log.
func serveLogging(t testing.TB, cfg ServerConfig, zone func() *Zone, log *zap.Logger) *Server {
	t.Helper()
	return run(t, NewServer(onLoopback(cfg), zone, log, nil))
}

func onLoopback(cfg ServerConfig) ServerConfig {
	if cfg.Listen == nil {
		cfg.Listen = []netip.AddrPort{local(0)}
	}
	return cfg
}

func run(t testing.TB, s *Server) *Server {
	t.Helper()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != context.Canceled {
				t.Errorf("Run returned %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	return s
}

// oneReader is a configuration whose answers come in the order of the queries.
func oneReader() ServerConfig {
	cfg := DefaultServerConfig()
	cfg.Readers = 1
	return cfg
}

// testZone has a few names of every kind, and some with very many records.
func testZone() *Zone {
	tasks := []*model.Task{memcached(func(t *model.Task) {
		t.Addrs = in("", ownIP)
		t.Ports = []model.Port{port("connect", 11211, 0)}
	})}
	for i := range 200 {
		tasks = append(tasks, &model.Task{
			Key: model.TaskKey{FrameworkID: "F0", ID: fmt.Sprint("big.", i)}, Name: "big", Framework: "marathon", AgentID: "A-S0",
			AgentAddr: agentIP, State: model.Running, Addrs: in("", netip.AddrFrom4([4]byte{9, 9, 0, byte(i)})),
			Discovery: &model.Discovery{Name: "big"}, Ports: []model.Port{port("http", 80, 0)},
		})
	}
	cfg := DefaultConfig()
	cfg.NSAddrs = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	snap := world(tasks...)
	snap.Leader = netip.MustParseAddrPort("10.0.0.1:5050")
	return Build(nil, snap, tableOf(service("web.marathon", "11.1.2.3:80")), cfg)
}

func dial(t testing.TB, proto string, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.Dial(proto, to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// frame puts the length before a message.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
}

// exchange sends packet and returns the reply, nil for none. Over UDP a query
// that is surely answered follows, to know when the reply is not coming: that
// needs a server with one reader.
func exchange(t testing.TB, proto string, to netip.AddrPort, packet []byte) []byte {
	t.Helper()
	conn := dial(t, proto, to)
	if proto == protoTCP {
		if _, err := conn.Write(frame(packet)); err != nil {
			t.Fatal(err)
		}
		reply, err := readFrame(conn, nil)
		if err != nil {
			return nil
		}
		return reply
	}
	last := question("leader.mesos.", dns.TypeA)
	last.SetEdns0(minUDP, false)
	// An option makes it one that is answered after all others.
	last.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}}
	sentinel := pack(t, last)
	for _, p := range [][]byte{packet, sentinel} {
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	var replies [][]byte
	buf := make([]byte, 65535)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("read after %x: %v", packet, err)
		}
		if n >= 2 && buf[0] == sentinel[0] && buf[1] == sentinel[1] {
			break
		}
		replies = append(replies, append([]byte(nil), buf[:n]...))
	}
	if len(replies) > 1 {
		t.Fatalf("%d replies to %x", len(replies), packet)
	}
	if len(replies) == 0 {
		return nil
	}
	return replies[0]
}

// sentinelID is the message id of the queries that follow others.
const sentinelID = 0xfeed

// question returns a query with the sentinel's id; what a test asks gets its
// own from ask.
func question(name string, rrtype uint16) *dns.Msg {
	q := new(dns.Msg).SetQuestion(name, rrtype)
	q.Id = sentinelID
	return q
}

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	out, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unpack(t testing.TB, packet []byte) *dns.Msg {
	t.Helper()
	if packet == nil {
		t.Fatal("no reply")
	}
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil {
		t.Fatalf("reply %x: %v", packet, err)
	}
	return m
}

func TestBeforeTheFirstZoneTheAnswerIsSERVFAIL(t *testing.T) {
	var zone atomic.Pointer[Zone]
	s := serve(t, DefaultServerConfig(), zone.Load, nil)
	for _, proto := range []string{protoUDP, protoTCP} {
		c := &dns.Client{Net: proto, Timeout: patience}
		r, _, err := c.Exchange(question("memcached.marathon.mesos.", dns.TypeA), s.Addrs()[0].String())
		if err != nil || r.Rcode != dns.RcodeServerFailure || r.Authoritative {
			t.Errorf("%s: %v, %v", proto, r, err)
		}
	}
	zone.Store(testZone())
	c := &dns.Client{Timeout: patience}
	r, _, err := c.Exchange(question("memcached.marathon.mesos.", dns.TypeA), s.Addrs()[0].String())
	if err != nil || len(r.Answer) != 1 {
		t.Errorf("with a Zone: %v, %v", r, err)
	}
}

func TestAPanicCostsOneQueryOnly(t *testing.T) {
	var broken atomic.Bool
	z := testZone()
	s := serve(t, oneReader(), func() *Zone {
		if broken.Load() {
			panic("boo")
		}
		return z
	}, nil)
	q := pack(t, question("memcached.marathon.mesos.", dns.TypeA))
	q[0], q[1] = 1, 2
	for _, proto := range []string{protoUDP, protoTCP} {
		broken.Store(true)
		before := testutil.ToFloat64(s.metrics.panics)
		if r := unpack(t, exchange(t, proto, s.Addrs()[0], q)); r.Rcode != dns.RcodeServerFailure || r.Id != 0x0102 {
			t.Errorf("%s: first reply: %v", proto, r)
		}
		if got := testutil.ToFloat64(s.metrics.panics); got <= before {
			t.Errorf("%s: %v panics counted, %v before", proto, got, before)
		}
		broken.Store(false)
		if r := unpack(t, exchange(t, proto, s.Addrs()[0], q)); r.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: second reply: %v", proto, r)
		}
	}
}

func TestMetricsCountByProtocolTypeAndRcode(t *testing.T) {
	reg := prometheus.NewRegistry()
	z := testZone()
	s := serve(t, oneReader(), func() *Zone { return z }, reg)
	for _, q := range []struct {
		proto, name string
		rrtype      uint16
	}{
		{protoTCP, "memcached.marathon.mesos.", dns.TypeA},
		{protoTCP, "memcached.marathon.mesos.", dns.TypeA},
		{protoTCP, "missing.mesos.", dns.TypeAAAA},
		{protoTCP, "example.org.", 4711},
	} {
		unpack(t, exchange(t, q.proto, s.Addrs()[0], pack(t, question(q.name, q.rrtype))))
	}
	exchange(t, protoTCP, s.Addrs()[0], []byte("short"))
	const want = `
# HELP waggle_dns_requests_total Queries answered, by protocol, zone, type asked and rcode of the answer.
# TYPE waggle_dns_requests_total counter
waggle_dns_requests_total{proto="tcp",rcode="NOERROR",type="A",zone="mesos."} 2
waggle_dns_requests_total{proto="tcp",rcode="NXDOMAIN",type="AAAA",zone="mesos."} 1
waggle_dns_requests_total{proto="tcp",rcode="REFUSED",type="other",zone="none"} 1
# HELP waggle_dns_unanswered_total Packets by what became of them instead of an answer: ignored (no query), denied (network may not ask), cut or dropped (too many replies).
# TYPE waggle_dns_unanswered_total counter
waggle_dns_unanswered_total{proto="tcp",reason="cut"} 0
waggle_dns_unanswered_total{proto="tcp",reason="denied"} 0
waggle_dns_unanswered_total{proto="tcp",reason="dropped"} 0
waggle_dns_unanswered_total{proto="tcp",reason="ignored"} 1
waggle_dns_unanswered_total{proto="udp",reason="cut"} 0
waggle_dns_unanswered_total{proto="udp",reason="denied"} 0
waggle_dns_unanswered_total{proto="udp",reason="dropped"} 0
waggle_dns_unanswered_total{proto="udp",reason="ignored"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "waggle_dns_requests_total", "waggle_dns_unanswered_total"); err != nil {
		t.Error(err)
	}
}

func TestRepliesLeaveFromTheAddressAsked(t *testing.T) {
	z := testZone()
	unusual := question("memcached.marathon.mesos.", dns.TypeA)
	unusual.SetEdns0(minUDP, false)
	unusual.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}}
	for _, loop := range []Loop{LoopRaw, LoopPlain} {
		for _, any := range []string{"0.0.0.0:0", "[::]:0"} {
			cfg := DefaultServerConfig()
			cfg.Loop, cfg.Listen = loop, []netip.AddrPort{netip.MustParseAddrPort(any)}
			s := serve(t, cfg, func() *Zone { return z }, nil)
			port := s.Addrs()[0].Port()
			for _, host := range []string{"127.0.0.1", "127.1.2.3"} {
				for _, q := range []*dns.Msg{question("memcached.marathon.mesos.", dns.TypeA), unusual} {
					// A connected socket takes packets from the address it asked only.
					c := &dns.Client{Timeout: patience}
					r, _, err := c.Exchange(q, net.JoinHostPort(host, fmt.Sprint(port)))
					if err != nil || len(r.Answer) != 1 {
						t.Errorf("%s: %s asked at %s: %v, %v", loop, any, host, r, err)
					}
				}
			}
		}
	}
}

func TestListenSaysWhereItCannot(t *testing.T) {
	s := serve(t, DefaultServerConfig(), func() *Zone { return nil }, nil)
	cfg := DefaultServerConfig()
	cfg.Listen = []netip.AddrPort{local(0), s.Addrs()[0]}
	second := NewServer(cfg, func() *Zone { return nil }, zap.NewNop(), nil)
	err := second.Listen()
	if err == nil || !strings.Contains(err.Error(), "listen for DNS on "+s.Addrs()[0].String()) {
		t.Errorf("got %v", err)
	}
	if got := second.Addrs(); got != nil {
		t.Errorf("still listening on %v", got)
	}
}
