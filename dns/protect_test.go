package dns

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"waggle/dns/guard"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// from asks over UDP from an address of this machine and returns the reply, nil
// if another query after it is answered first.
func from(t testing.TB, client string, to netip.AddrPort, packet []byte) []byte {
	t.Helper()
	local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(client), 0))
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(packet); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65535)
	n, err := conn.Read(buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

func TestOnlyAllowedNetworksAreAnswered(t *testing.T) {
	z := testZone()
	cfg := oneReader()
	cfg.Allow = prefixes("127.0.0.2/32")
	reg := prometheus.NewRegistry()
	s := serve(t, cfg, func() *Zone { return z }, reg)
	query := pack(t, ask(nameA, dns.TypeA, edns(1232)))
	if r := unpack(t, from(t, "127.0.0.2", s.Addrs()[0], query)); len(r.Answer) != 1 {
		t.Errorf("an allowed client: %v", r)
	}
	for _, proto := range []string{protoUDP, protoTCP} {
		conn := dial(t, proto, s.Addrs()[0]) // from 127.0.0.1
		out := query
		if proto == protoTCP {
			out = frame(query)
		}
		if _, err := conn.Write(out); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 512)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		raw := buf[:n]
		if proto == protoTCP {
			raw = raw[2:]
		}
		want := dns.MsgHdr{Id: 0x1234, Response: true, RecursionDesired: true, Rcode: dns.RcodeRefused}
		if diff := cmp.Diff(want, unpack(t, raw).MsgHdr); diff != "" || len(raw) != headerSize {
			t.Errorf("%s, a stranger: %s in %d octets", proto, diff, len(raw))
		}
	}
	got := uint64(0)
	s.metrics.mu.Lock()
	defer s.metrics.mu.Unlock()
	for _, tl := range s.metrics.tallies {
		got += tl.fates[denied].Load()
	}
	if got != 2 {
		t.Errorf("%d denied", got)
	}
}

func TestAccessIsReplacedWhileQueriesComeIn(t *testing.T) {
	z := testZone()
	cfg := oneReader()
	cfg.Allow = prefixes("127.0.0.2/32")
	s := serve(t, cfg, func() *Zone { return z }, nil)
	query := pack(t, ask(nameA, dns.TypeA))
	rcode := func() int { return unpack(t, from(t, "127.0.0.1", s.Addrs()[0], query)).Rcode }
	if got := rcode(); got != dns.RcodeRefused {
		t.Errorf("before: %s", dns.RcodeToString[got])
	}
	cfg.Allow = prefixes("127.0.0.0/8")
	s.SetAccess(cfg)
	if got := rcode(); got != dns.RcodeSuccess {
		t.Errorf("after: %s", dns.RcodeToString[got])
	}
}

func TestRepliesAreRateLimited(t *testing.T) {
	z := testZone()
	cfg := oneReader()
	cfg.Limit = guard.LimitConfig{Rate: 1, Burst: 3, Slip: 1, Prefix4: 32, Prefix6: 64, Buckets: 16}
	cfg.Unlimited = prefixes("127.0.0.3/32")
	s := serve(t, cfg, func() *Zone { return z }, nil)
	query := pack(t, ask(nameA, dns.TypeA))
	got := map[string][]bool{}
	for _, client := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		for range 5 {
			raw := from(t, client, s.Addrs()[0], query)
			r := unpack(t, raw)
			if r.Truncated && (len(r.Answer) > 0 || len(raw) > len(query)) {
				t.Errorf("a reply that is held back is %d octets: %v", len(raw), r)
			}
			got[client] = append(got[client], r.Truncated)
		}
	}
	limited := []bool{false, false, false, true, true}
	want := map[string][]bool{"127.0.0.1": limited, "127.0.0.2": limited, "127.0.0.3": make([]bool, 5)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	// Over TCP, or with a cookie, the address is proven.
	if r := unpack(t, exchange(t, protoTCP, s.Addrs()[0], query)); r.Truncated || len(r.Answer) != 1 {
		t.Errorf("over TCP: %v", r)
	}
	first := unpack(t, exchange(t, protoTCP, s.Addrs()[0], withOPT(query, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8)))
	cookie := unhexCookie(t, first)
	withCookie := withOPT(query, append([]byte{0, 10, 0, 24}, cookie...)...)
	if r := unpack(t, from(t, "127.0.0.1", s.Addrs()[0], withCookie)); r.Truncated || len(r.Answer) != 1 {
		t.Errorf("with a cookie: %v", r)
	}
	if r := unpack(t, from(t, "127.0.0.2", s.Addrs()[0], withCookie)); !r.Truncated {
		t.Errorf("with another's cookie: %v", r)
	}
}

func unhexCookie(t testing.TB, r *dns.Msg) []byte {
	t.Helper()
	for _, o := range r.IsEdns0().Option {
		if c, ok := o.(*dns.EDNS0_COOKIE); ok {
			data, err := hex.DecodeString(c.Cookie)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
	t.Fatalf("no cookie in %v", r)
	return nil
}

func TestOneClientCannotTakeAllConnections(t *testing.T) {
	z := testZone()
	cfg := DefaultServerConfig()
	cfg.ConnectionsEach = 2
	s := serve(t, cfg, func() *Zone { return z }, nil)
	for i := range 2 {
		conn := dial(t, protoTCP, s.Addrs()[0])
		if _, err := conn.Write(frame(numbered(t, i, nameA))); err != nil {
			t.Fatal(err)
		}
		readReply(t, conn)
	}
	assertClosed(t, dial(t, protoTCP, s.Addrs()[0]))
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := d.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(frame(numbered(t, 7, nameA))); err != nil {
		t.Fatal(err)
	}
	if r := readReply(t, conn); r.Id != 7 {
		t.Errorf("another client: %v", r)
	}
}

func TestKeepaliveSaysHowLongAConnectionMayBeIdle(t *testing.T) {
	z := testZone()
	cfg := oneReader()
	cfg.Idle = 3 * time.Second
	s := serve(t, cfg, func() *Zone { return z }, nil)
	query := withOPT(pack(t, ask(nameA, dns.TypeA)), 0, 11, 0, 0)
	for proto, want := range map[string][]byte{protoTCP: {0, 30}, protoUDP: nil} {
		e, _ := findEDNS(exchange(t, proto, s.Addrs()[0], query))
		if got, _ := e.option(optionKeepalive); !slices.Equal(got, want) {
			t.Errorf("%s: %x", proto, got)
		}
	}
}

func TestACookieCanBeAskedForAlone(t *testing.T) {
	s := serve(t, oneReader(), testZone, nil)
	query := withOPT([]byte{0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8)
	raw := exchange(t, protoTCP, s.Addrs()[0], query)
	e, _ := findEDNS(raw)
	if data, _ := e.option(optionCookie); len(data) != guard.CookieSize || unpack(t, raw).Rcode != dns.RcodeSuccess {
		t.Errorf("got %x", raw)
	}
}

func TestAnIXFRFromTheCurrentSerialIsOneSOA(t *testing.T) {
	z := testZone()
	cfg := oneReader()
	cfg.Transfer = prefixes("127.0.0.0/8")
	s := serve(t, cfg, func() *Zone { return z }, nil)
	for serial, want := range map[uint32]int{z.serial: 1, z.serial + 1: 1, z.serial - 1: 100} {
		q := ask("mesos.", dns.TypeIXFR, func(q *dns.Msg) {
			q.Ns = []dns.RR{&dns.SOA{Hdr: header("mesos.", dns.TypeSOA, 0), Ns: ".", Mbox: ".", Serial: serial}}
		})
		r := unpack(t, exchange(t, protoTCP, s.Addrs()[0], pack(t, q)))
		if len(r.Answer) != 1 && want == 1 || len(r.Answer) < want {
			t.Errorf("serial %d, ours is %d: %d records", serial, z.serial, len(r.Answer))
		}
	}
}

func TestQueryLog(t *testing.T) {
	z := testZone()
	for _, c := range []struct {
		name string
		cfg  QueryLogConfig
		want []string
	}{
		{"off", QueryLogConfig{}, nil},
		{"all", QueryLogConfig{Sample: 1}, []string{"query " + nameA + " A NOERROR", "query " + nameNX + " A NXDOMAIN", "query example.org. A REFUSED"}},
		{"by name", QueryLogConfig{Sample: 1, Names: []string{"Missing.marathon.mesos"}}, []string{"query " + nameNX + " A NXDOMAIN"}},
		{"slow", QueryLogConfig{Slow: 1}, []string{"slow query " + nameA + " A NOERROR", "slow query " + nameNX + " A NXDOMAIN", "slow query example.org. A REFUSED"}},
		{"not slow", QueryLogConfig{Slow: time.Hour}, nil},
	} {
		core, lines := observer.New(zap.InfoLevel)
		cfg := oneReader()
		cfg.Log = c.cfg
		s := serveLogging(t, cfg, func() *Zone { return z }, zap.New(core))
		for _, name := range []string{nameA, nameNX, "example.org."} {
			exchange(t, protoTCP, s.Addrs()[0], pack(t, ask(name, dns.TypeA)))
		}
		for deadline := time.Now().Add(patience); lines.Len() < len(c.want) && time.Now().Before(deadline); {
			<-time.After(time.Millisecond)
		}
		var got []string
		for _, l := range lines.All() {
			f := l.ContextMap()
			got = append(got, strings.Join([]string{l.Message, f["name"].(string), f["type"].(string), f["rcode"].(string)}, " "))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestLatencyIsCountedInBuckets(t *testing.T) {
	var tl tally
	for took, want := range map[time.Duration]int{0: 0, 4e3: 0, 4001: 1, 16e3: 1, 16001: 2, 64e3: 2, 64001: 3, 65536e3: 7, 65536001: 8, time.Hour: 8} {
		before := tl.took[want].Load()
		tl.observe(took, 1)
		if tl.took[want].Load() != before+1 {
			t.Errorf("%s is not in bucket %d", took, want)
		}
	}
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, func() []string { return nil }, nil)
	m.newTally(protoUDP).observe(5*time.Microsecond, 3)
	if n, err := testutil.GatherAndCount(reg, "waggle_dns_request_duration_seconds"); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// FuzzOptions reads any octets as a message with options.
func FuzzOptions(f *testing.F) {
	plain := rawQuery(wireName("a", "mesos"), dns.TypeA)
	f.Add(plain)
	f.Add(withOPT(plain, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(withOPT(plain, 0, 11, 0, 0, 0xfd, 0xe9, 0, 9, 1))
	f.Add(withOPT([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Fuzz(func(t *testing.T, packet []byte) {
		e, ok := findEDNS(packet)
		e.option(optionCookie)
		onlyCookie(packet)
		var m dns.Msg
		if err := m.Unpack(packet); err == nil && holds(&m, packet) && m.IsEdns0() != nil && !ok {
			t.Errorf("the library finds an OPT in %x", packet)
		}
		if out := deny(nil, packet); out != nil && (len(out) != headerSize || binary.BigEndian.Uint16(out) != binary.BigEndian.Uint16(packet)) {
			t.Errorf("%x is denied with %x", packet, out)
		}
		if len(packet) >= headerSize {
			if out := cut(slices.Clone(packet)); len(out) > len(packet) {
				t.Errorf("%x is cut to %x", packet, out)
			}
		}
	})
}
