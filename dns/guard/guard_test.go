package guard

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNetworks(t *testing.T) {
	prefixes, err := ParseNetworks([]string{"loopback", "private", "own", "192.0.2.0/24", "2001:db8::1"}, []netip.Addr{netip.MustParseAddr("203.0.113.9")})
	if err != nil {
		t.Fatal(err)
	}
	n := NewNetworks(prefixes...)
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "10.1.2.3": true, "172.31.0.1": true, "172.32.0.1": false,
		"192.168.9.9": true, "100.64.0.1": true, "169.254.20.10": true, "fe80::1%eth0": true, "fd00::1": true,
		"203.0.113.9": true, "203.0.113.10": false, "192.0.2.255": true, "2001:db8::1": true, "2001:db8::2": false,
		"::ffff:10.1.2.3": true, "::ffff:8.8.8.8": false, "8.8.8.8": false,
	} {
		if got := n.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if _, err := ParseNetworks([]string{"10.0.0.0/8", "nowhere"}, nil); err == nil || !strings.Contains(err.Error(), `"nowhere"`) {
		t.Errorf("got %v", err)
	}
	if all, err := ParseNetworks([]string{"any"}, nil); err != nil || !NewNetworks(all...).Contains(netip.MustParseAddr("8.8.8.8")) {
		t.Errorf("any: %v, %v", all, err)
	}
	if new(Networks).Contains(netip.MustParseAddr("127.0.0.1")) {
		t.Error("an empty set contains an address")
	}
}

func limits(slip uint16) LimitConfig {
	return LimitConfig{Rate: 10, Burst: 5, Slip: slip, Prefix4: 24, Prefix6: 56, Buckets: 1 << 12}
}

// drain counts how many of n replies at once are sent.
func drain(l *Limiter, client string, kind Kind, now time.Time, n int) int {
	sent := 0
	for range n {
		if l.Check(netip.MustParseAddr(client), kind, now) == Send {
			sent++
		}
	}
	return sent
}

func TestANetworkGetsItsBurstAndThenItsRate(t *testing.T) {
	l := NewLimiter(limits(0))
	now := l.start.Add(time.Second)
	got := []int{
		drain(l, "192.0.2.1", Answer, now, 20),
		drain(l, "192.0.2.200", Answer, now, 20),   // the same /24
		drain(l, "192.0.2.1", NoSuchName, now, 20), // another kind
		drain(l, "192.0.3.1", Answer, now, 20),     // another network
		drain(l, "::ffff:192.0.3.1", Answer, now, 20),
		drain(l, "2001:db8::1", Answer, now, 20),
		drain(l, "2001:db8:0:ff::1", Answer, now, 20), // the same /56
		drain(l, "2001:db8:0:100::1", Answer, now, 20),
		drain(l, "192.0.2.1", Answer, now.Add(200*time.Millisecond), 20),
		drain(l, "192.0.2.1", Answer, now.Add(time.Hour), 20),
	}
	if diff := cmp.Diff([]int{5, 0, 5, 5, 0, 5, 0, 5, 2, 5}, got); diff != "" {
		t.Error(diff)
	}
}

func TestSlipLetsSomeRepliesThroughCut(t *testing.T) {
	client := netip.MustParseAddr("192.0.2.1")
	for slip, want := range map[uint16]map[Verdict]bool{0: {Drop: true}, 1: {Cut: true}, 2: {Cut: true, Drop: true}} {
		l := NewLimiter(limits(slip))
		now := l.start.Add(time.Second)
		drain(l, client.String(), Answer, now, 5)
		got := map[Verdict]bool{}
		for range 200 {
			got[l.Check(client, Answer, now)] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("slip %d: %s", slip, diff)
		}
	}
}

func TestNoLimitIsNoLimiter(t *testing.T) {
	var l *Limiter = NewLimiter(LimitConfig{})
	if l != nil || l.Check(netip.MustParseAddr("192.0.2.1"), Error, time.Now()) != Send {
		t.Error("a rate of 0 holds replies back")
	}
}

// The limiter must never give a network less than its rate, however many others
// there are, nor much more while its memory suffices. Both are held against a
// plain count.
func TestRandomWalkOfTheLimiter(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	cfg := limits(0)
	l := NewLimiter(cfg)
	now := l.start
	tokens, last := map[int]float64{}, map[int]time.Time{}
	for range 20000 {
		now = now.Add(time.Duration(rng.IntN(4)) * time.Millisecond)
		who := rng.IntN(50)
		had, ok := tokens[who]
		if !ok {
			had = float64(cfg.Burst)
		} else {
			had = min(float64(cfg.Burst), had+now.Sub(last[who]).Seconds()*float64(cfg.Rate))
		}
		last[who] = now
		got := l.Check(netip.AddrFrom4([4]byte{10, 0, byte(who), 1}), Answer, now) == Send
		// A tick of 16 µs and the rounding of the cost leave a doubt.
		if want := had >= 1; got != want && (had < 0.99 || had > 1.01) {
			t.Fatalf("network %d with %.3f left: sent is %v", who, had, got)
		}
		if got {
			had--
		}
		tokens[who] = had
	}
}

func TestManyNetworksDoNotCostAnHonestOneItsRate(t *testing.T) {
	cfg := limits(0)
	cfg.Buckets = 64
	l := NewLimiter(cfg)
	now := l.start
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		now = now.Add(time.Millisecond)
		for range 10 {
			l.Check(netip.AddrFrom4([4]byte{byte(rng.IntN(200)), byte(rng.IntN(256)), byte(rng.IntN(256)), 1}), Answer, now)
		}
		if i%100 == 0 && l.Check(netip.MustParseAddr("203.0.113.1"), Answer, now) != Send {
			t.Fatal("held back")
		}
	}
}

// The vectors of RFC 9018 appendix A.
func TestCookiesOfRFC9018(t *testing.T) {
	for _, c := range []struct {
		name, secret, client, made, want string
		ip                               string
	}{
		{"A.1", "e5e973e5a6b2a43f48e7dc849e37bfcf", "2464c4abcf10c957", "5cf79f11", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", "198.51.100.100"},
		{"A.3", "e5e973e5a6b2a43f48e7dc849e37bfcf", "fc93fc62807ddb86", "5cf7a9ac", "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e", "203.0.113.203"},
		{"A.4", "445536bcd2513298075a5d379663c962", "22681ab97d52c298", "5cf7c609", "22681ab97d52c298010000005cf7c609a6bb79d16625507a", "2001:db8:220:1:59de:d0f4:8769:82b8"},
	} {
		j := NewJar(Secret(unhex(c.secret)))
		var made int64
		if _, err := fmt.Sscanf(c.made, "%x", &made); err != nil {
			t.Fatal(err)
		}
		ip := netip.MustParseAddr(c.ip)
		got := j.Append(nil, unhex(c.client), ip, time.Unix(made, 0))
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%s: %x", c.name, got)
		}
		if j.Check(got, ip, time.Unix(made+60, 0)) != Proven {
			t.Errorf("%s: not proven", c.name)
		}
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestCookies(t *testing.T) {
	now := time.Unix(1e9, 0)
	ip, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	j := NewJar()
	good := j.Append(nil, []byte("abcdefgh"), ip, now)
	changed := append([]byte(nil), good...)
	changed[3]++
	for _, c := range []struct {
		name string
		data []byte
		from netip.Addr
		at   time.Time
		want Cookie
	}{
		{"the client's part alone", good[:8], ip, now, Unproven},
		{"ours", good, ip, now, Proven},
		{"ours, the address mapped", good, netip.MustParseAddr("::ffff:192.0.2.1"), now, Proven},
		{"from another address", good, other, now, Unproven},
		{"with another client's part", changed, ip, now, Unproven},
		{"an hour old", good, ip, now.Add(time.Hour), Proven},
		{"older", good, ip, now.Add(time.Hour + time.Second), Unproven},
		{"made a little ahead", good, ip, now.Add(-5 * time.Minute), Proven},
		{"made far ahead", good, ip, now.Add(-6 * time.Minute), Unproven},
		{"another server's of 32 octets", append(good, good[:16]...), ip, now, Unproven},
		{"none", nil, ip, now, Malformed}, {"7 octets", good[:7], ip, now, Malformed}, {"9 octets", good[:9], ip, now, Malformed},
		{"15 octets", good[:15], ip, now, Malformed}, {"41 octets", make([]byte, 41), ip, now, Malformed},
	} {
		if got := j.Check(c.data, c.from, c.at); got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
	}
	if again := j.Append(nil, good, ip, now.Add(29*time.Minute)); !cmp.Equal(again, good) {
		t.Errorf("a good cookie is replaced by %x", again)
	}
	if again := j.Append(nil, good, ip, now.Add(31*time.Minute)); cmp.Equal(again, good) || j.Check(again, ip, now.Add(80*time.Minute)) != Proven {
		t.Errorf("an old cookie is answered with %x", again)
	}
	j.Roll()
	if again := j.Append(nil, good, ip, now); j.Check(good, ip, now) != Proven || cmp.Equal(again, good) {
		t.Error("after one rollover the last secret still proves, and a new cookie is given")
	}
	j.Roll()
	if j.Check(good, ip, now) != Unproven {
		t.Error("after two rollovers the old secret is forgotten")
	}
}

func TestConnectionsAreCountedByAddress(t *testing.T) {
	c := NewConnections(4, 2)
	a, b, d := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	got := []bool{c.Take(a), c.Take(a), c.Take(a), c.Take(b), c.Crowded(), c.Take(b), c.Crowded(), c.Take(d)}
	c.Release(a)
	got = append(got, c.Take(d), c.Take(a))
	if diff := cmp.Diff([]bool{true, true, false, true, false, true, true, false, true, false}, got); diff != "" {
		t.Error(diff)
	}
	for _, x := range []netip.Addr{a, b, b, d} {
		c.Release(x)
	}
	if c.open != 0 || len(c.of) != 0 {
		t.Errorf("%d open, %v", c.open, c.of)
	}
}

func TestNothingIsAllocatedPerPacket(t *testing.T) {
	l, n, j := NewLimiter(DefaultLimitConfig()), NewNetworks(netip.MustParsePrefix("10.0.0.0/8")), NewJar()
	client, now := netip.MustParseAddr("10.1.2.3"), time.Now()
	cookie := j.Append(nil, []byte("abcdefgh"), client, now)
	out := make([]byte, 0, 64)
	if got := testing.AllocsPerRun(1000, func() {
		n.Contains(client)
		l.Check(client, Answer, now)
		out = j.Append(out[:0], cookie, client, now)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkCheck(b *testing.B) {
	l, n := NewLimiter(DefaultLimitConfig()), NewNetworks(netip.MustParsePrefix("10.0.0.0/8"))
	client, now := netip.MustParseAddr("10.1.2.3"), time.Now()
	for b.Loop() {
		n.Contains(client)
		l.Check(client, Answer, now)
	}
}

// FuzzCookie puts any option data to a Jar.
func FuzzCookie(f *testing.F) {
	j, now := NewJar(Secret{1}), time.Unix(1e9, 0)
	f.Add([]byte("abcdefgh"), uint32(1))
	f.Add(j.Append(nil, []byte("abcdefgh"), netip.AddrFrom4([4]byte{0, 0, 0, 1}), now), uint32(1))
	f.Fuzz(func(t *testing.T, data []byte, from uint32) {
		client := netip.AddrFrom4([4]byte{byte(from >> 24), byte(from >> 16), byte(from >> 8), byte(from)})
		if j.Check(data, client, now) == Malformed {
			return
		}
		out := j.Append(nil, data, client, now)
		if len(out) != CookieSize || string(out[:8]) != string(data[:8]) || j.Check(out, client, now) != Proven {
			t.Errorf("%x is answered with %x", data, out)
		}
	})
}
