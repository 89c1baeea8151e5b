package dns

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/dns/forward"
	"waggle/dns/guard"
	"waggle/dns/wire"
	"waggle/internal/dnspeer"
	"waggle/model"
)

// noted is a Kernel that answers nothing and says what it was given.
type noted struct {
	mu   sync.Mutex
	kept []Kept
}

func (n *noted) Generation() uint32 { return 7 }

func (n *noted) Counts() []uint64 { return nil }

func (n *noted) Keep(k *Kept) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := *k
	c.Query, c.Reply, c.Name, c.TTLs = slices.Clone(k.Query), slices.Clone(k.Reply), slices.Clone(k.Name), slices.Clone(k.TTLs)
	n.kept = append(n.kept, c)
}

func (n *noted) take() []Kept {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.kept
	n.kept = nil
	return out
}

// askOften asks as often as it takes for the Kernel to be given the answer, if it
// is, and returns what it was given.
func askOften(t *testing.T, n *noted, to netip.AddrPort, m *dns.Msg) []Kept {
	t.Helper()
	n.take()
	conn := dial(t, "udp", to)
	exchange := func(m *dns.Msg) {
		if _, err := conn.Write(pack(t, m)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, dns.MaxMsgSize)); err != nil {
			t.Fatal(err)
		}
	}
	for range hotAfter + 1 { // once to have it remembered
		exchange(m)
	}
	// Once the next one is answered what came before it has been kept.
	exchange(ask(fmt.Sprintf("after%d.mesos.", rand.Uint64()), dns.TypeA))
	return n.take()
}

func TestWhichAnswersTheKernelIsGiven(t *testing.T) {
	up := dnspeer.NSD().Start(t, corp(), dnspeer.Options{})
	n := &noted{}
	cfg := forward.DefaultConfig()
	cfg.Upstreams = []forward.Upstream{{Addr: up.Addr}}
	s := forwarding(t, cfg, func(c *ServerConfig) { c.Readers, c.Kernel = 1, n })
	signed := func(m *dns.Msg) { m.SetEdns0(1232, true) }
	cookie := func(m *dns.Msg) {
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
	}
	for name, tc := range map[string]struct {
		m    *dns.Msg
		want bool
		turn int
		ttls int
		time time.Duration
	}{
		"an address":                           {ask("memcached.marathon.mesos.", dns.TypeA), true, 0, 0, ownFor},
		"a VIP's name":                         {ask("web.marathon.l4lb.thisdcos.directory.", dns.TypeA), true, 0, 0, ownFor},
		"no such name":                         {ask("missing.mesos.", dns.TypeA, signed), true, 0, 0, ownFor},
		"no such record":                       {ask("memcached.marathon.mesos.", dns.TypeMX), true, 0, 0, ownFor},
		"a service with one address":           {ask("_memcached._tcp.marathon.mesos.", dns.TypeSRV), true, 0, 0, ownFor},
		"many services":                        {ask("_big._tcp.marathon.mesos.", dns.TypeSRV, edns(1232)), false, 0, 0, 0},
		"a cut answer":                         {ask("big.marathon.mesos.", dns.TypeA), false, 0, 0, 0},
		"a question with options":              {ask("memcached.marathon.mesos.", dns.TypeA, cookie), false, 0, 0, 0},
		"another class":                        {ask("memcached.marathon.mesos.", dns.TypeA, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), false, 0, 0, 0},
		"what takes more than copying":         {ask("mesos.", dns.TypeNS), false, 0, 0, 0},
		"a name of others":                     {ask("www.corp.example.", dns.TypeA, edns(1232)), true, 0, 3, 54 * time.Second},
		"no such name of others":               {ask("missing.corp.example.", dns.TypeA), true, 0, 1, 54 * time.Second},
		"a name of others that nobody may ask": {ask("single.", dns.TypeA), false, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := askOften(t, n, s.Addrs()[0], tc.m)
			if (len(got) == 1) != tc.want || len(got) > 1 {
				t.Fatalf("given %d answers", len(got))
			}
			if !tc.want {
				return
			}
			k := got[0]
			if k.Generation != 7 || k.Client != local(0).Addr() || k.Server != s.Addrs()[0] || k.Turns != tc.turn || len(k.TTLs) != tc.ttls ||
				k.For > tc.time || k.For < tc.time-10*time.Second || k.Counter >= KernelCounters {
				t.Errorf("%+v", k)
			}
			if q, r := unpack(t, k.Query), unpack(t, k.Reply); q.Question[0] != r.Question[0] || r.Id != q.Id {
				t.Errorf("%s\n%s", q, r)
			}
		})
	}
}

func TestAddressesThatTakeTurnsAreTheKernelsToo(t *testing.T) {
	n := &noted{}
	z := Build(nil, world(memcached(func(t *model.Task) {
		t.Addrs = in("", netip.MustParseAddr("9.0.0.1"), netip.MustParseAddr("9.0.0.2"), netip.MustParseAddr("9.0.0.3"))
	})), nil, DefaultConfig())
	cfg := oneReader()
	cfg.Kernel = n
	s := serve(t, cfg, func() *Zone { return z }, nil)
	got := askOften(t, n, s.Addrs()[0], ask("memcached.marathon.mesos.", dns.TypeA, edns(1232)))
	const pointerTypeClassTTLSizeAddress = 2 + 2 + 2 + 4 + 2 + 4
	if len(got) != 1 || got[0].Turns != 3 || got[0].TurnLen != pointerTypeClassTTLSizeAddress {
		t.Errorf("%+v", got)
	}
}

// A query that must be seen by the daemon is answered by it alone.
func TestWhomTheKernelDoesNotAnswer(t *testing.T) {
	z := testZone()
	m := ask("memcached.marathon.mesos.", dns.TypeA)
	for name, set := range map[string]func(*ServerConfig){
		"who gets so many replies a second":     func(c *ServerConfig) { c.Unlimited = nil },
		"anybody where queries are logged":      func(c *ServerConfig) { c.Log.Slow = time.Hour },
		"who may not ask":                       func(c *ServerConfig) { c.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} },
		"anybody where packets come one by one": func(c *ServerConfig) { c.Loop = LoopPlain },
	} {
		t.Run(name, func(t *testing.T) {
			n := &noted{}
			cfg := oneReader()
			cfg.Kernel = n
			set(&cfg)
			if got := askOften(t, n, serve(t, cfg, func() *Zone { return z }, nil).Addrs()[0], m); len(got) > 0 {
				t.Errorf("given %+v", got)
			}
		})
	}
	t.Run("nobody else, and wherever we listen", func(t *testing.T) {
		n := &noted{}
		cfg := oneReader()
		cfg.Kernel, cfg.Limit = n, guard.LimitConfig{}
		cfg.Listen = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}
		s := run(t, NewServer(cfg, func() *Zone { return z }, zap.NewNop(), nil))
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), s.Addrs()[0].Port())
		if got := askOften(t, n, to, m); len(got) != 1 || got[0].Server != to || got[0].Client != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("%+v", got)
		}
	})
}

// What upstreams say is in replies too.
func FuzzSurvey(f *testing.F) {
	for _, m := range []*dns.Msg{
		ask("memcached.marathon.mesos.", dns.TypeA), ask("_big._tcp.marathon.mesos.", dns.TypeSRV), ask("missing.mesos.", dns.TypeA, edns(1232)),
	} {
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		out, err := reply(testZone(), packet, true, 0).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(out, skipName(out, headerSize)+4)
	}
	f.Fuzz(func(t *testing.T, reply []byte, at int) {
		if len(reply) < headerSize || at < headerSize || at > len(reply) {
			return
		}
		s, ok := survey(reply, at)
		if !ok {
			return
		}
		for _, ttl := range s.ttls {
			if ttl < at || ttl+4 > len(reply) {
				t.Errorf("a TTL at %d of %d octets from %d on", ttl, len(reply), at)
			}
		}
		if n := int(reply[6])<<8 | int(reply[7]); s.each > 0 && at+n*s.each > len(reply) {
			t.Errorf("%d records of %d octets in %d from %d on", n, s.each, len(reply), at)
		}
	})
}

// Who asks for more than there is room for, again and again, has it given once.
func TestTheKernelIsNotGivenTheSameForEver(t *testing.T) {
	const names, times = 8000, 64
	k := &keeper{seed: maphash.MakeSeed(), generation: 1}
	packet := pack(t, ask("memcached.marathon.mesos.", dns.TypeA))
	var q wire.Query
	given := 0
	for range times {
		for i := range names {
			q.Parse(packet)
			q.Type = uint16(1000 + i) // another question
			if n := k.count(&q, packet); n >= hotAfter && n&(n-1) == 0 && k.gives(n) {
				given++
			}
		}
	}
	if most := names + max(mostAgain, names/2); given > most || given < names*9/10 {
		t.Errorf("%d questions that were asked %d times were given %d times, want at most %d", names, times, given, most)
	}
}
