package forward

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func TestCachedAllocatesNothing(t *testing.T) {
	s := newServer(t, answer("x.example. 300 IN A 192.0.2.1"))
	r := start(t, testConfig(s))
	q := query("x.example", dns.TypeA)
	q.SetEdns0(1232, true)
	ask(t, r, q, false)
	packet, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 1232)
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := r.Cached(buf, packet, false); !ok {
			t.Fatal("not remembered")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestMissingNamesDisplaceNothingThatIsUsed floods a small cache with names that
// are asked for once, negative and positive ones.
func TestMissingNamesDisplaceNothingThatIsUsed(t *testing.T) {
	cfg := DefaultConfig()
	cfg.AnswerBytes, cfg.NegativeBytes = 200<<10, 100<<10
	c, err := newCache(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	now := time.Now()
	name := func(text string) []byte {
		w, err := wireName(text)
		if err != nil {
			t.Fatal(err)
		}
		q := question{name: w, qtype: 1, class: 1}
		return q.appendKey(nil)
	}
	made := func(negative bool) *entry {
		return &entry{negative: negative, body: make([]byte, 50), stored: now, ttl: time.Hour}
	}
	const used = 100
	for i := range used {
		c.put(string(name(fmt.Sprintf("used%d.example", i))), made(false), false)
	}
	missed := 0
	for i := range 100_000 {
		if c.get(name(fmt.Sprintf("used%d.example", i%used)), now) == nil {
			missed++
			c.put(string(name(fmt.Sprintf("used%d.example", i%used))), made(false), false)
		}
		c.put(string(name(fmt.Sprintf("missing%d.example", i))), made(true), false)
		if i%4 == 0 {
			c.put(string(name(fmt.Sprintf("once%d.example", i))), made(false), false)
		}
	}
	if missed > 500 {
		t.Errorf("%d of 100 000 questions for what is used were not answered from the cache", missed)
	}
	c.answers.CleanUp()
	c.negatives.CleanUp()
	if n, bytes := size(c.answers); bytes > uint64(cfg.AnswerBytes) {
		t.Errorf("%d answers take %d bytes", n, bytes)
	}
	if n, bytes := size(c.negatives); bytes > uint64(cfg.NegativeBytes) {
		t.Errorf("%d negatives take %d bytes", n, bytes)
	}
}

func TestAFailureNeverHidesAnAnswer(t *testing.T) {
	c, err := newCache(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	now := time.Now()
	good := &entry{stored: now, ttl: time.Minute, keep: time.Hour}
	c.put("k", good, false)
	c.put("k", &entry{negative: true, stored: now, ttl: time.Minute}, true)
	if c.get([]byte("k"), now) != good {
		t.Error("the answer is gone")
	}
	if e := c.get([]byte("k"), now.Add(2*time.Minute)); e != good || e.fresh(now.Add(2*time.Minute)) {
		t.Errorf("what is stale is %v", e)
	}
	if c.get([]byte("k"), now.Add(2*time.Hour)) != nil {
		t.Error("what is dead is served")
	}
	c.put("k", &entry{negative: true, stored: now, ttl: time.Minute}, false)
	if e := c.get([]byte("k"), now); e == nil || !e.negative {
		t.Error("an upstream said that there is none")
	}
}

// TestAdmissionRandomWalk compares what admission holds with what was let in.
func TestAdmissionRandomWalk(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	a := newAdmission()
	held := map[netip.Addr]int{}
	total := 0
	for range 20_000 {
		c := netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(12))})
		if rnd.IntN(2) == 0 && held[c] > 0 {
			a.leave(c)
			held[c]--
			total--
			continue
		}
		if a.enter(c, 30) {
			held[c]++
			total++
		} else if held[c] == 0 && total < 60 {
			t.Fatal("a client without any was turned away although there was room")
		}
		if total > 60 || a.waiting() != total {
			t.Fatalf("%d are in, it says %d", total, a.waiting())
		}
	}
	for c, n := range held {
		for range n {
			a.leave(c)
		}
	}
	if a.waiting() != 0 || len(a.clients) != 0 {
		t.Errorf("%d left over, %d clients", a.waiting(), len(a.clients))
	}
}

func TestClientsOfOneIPv6NetworkAreOne(t *testing.T) {
	for _, pair := range [][2]string{
		{"2001:db8::1", "2001:db8::ffff:1"}, {"192.0.2.1", "::ffff:192.0.2.1"}, {"fe80::1%lo", "fe80::2"},
	} {
		if party(netip.MustParseAddr(pair[0])) != party(netip.MustParseAddr(pair[1])) {
			t.Errorf("%v are two", pair)
		}
	}
	if party(netip.MustParseAddr("192.0.2.1")) == party(netip.MustParseAddr("192.0.2.2")) {
		t.Error("two IPv4 clients are one")
	}
}

// TestBackoffOfABrokenUpstream walks through the life of one by the clock.
func TestBackoffOfABrokenUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		u := &upstream{config: func() *Config { return &cfg }}
		state := func() standing { s, _ := u.standing(time.Now()); return s }
		if state() != unsure {
			t.Error("one never asked is not unsure")
		}
		u.ok(time.Now(), time.Millisecond)
		if state() != well || u.patience() != cfg.MinHedge {
			t.Errorf("after an answer: %v, %v", state(), u.patience())
		}
		u.doubt()
		if state() != unsure {
			t.Error("a late one is not unsure")
		}
		for range failsToOpen {
			u.fail(time.Now(), errTimeout)
		}
		longest := time.Duration(0)
		for range 12 {
			if state() != broken {
				t.Fatal("it is not left alone")
			}
			rest := time.Until(u.openUntil)
			longest = max(longest, rest)
			for range 5 { // what was asked before changes nothing
				u.fail(time.Now(), errTimeout)
			}
			if got := time.Until(u.openUntil); got != rest {
				t.Fatalf("old failures make its rest %v, was %v", got, rest)
			}
			<-time.After(rest + time.Millisecond)
			if state() != unsure {
				t.Fatal("it is not tried again")
			}
			u.try(time.Now())
			if state() != broken {
				t.Fatal("a second one tries it too")
			}
			u.fail(time.Now(), errTimeout)
		}
		if longest < cfg.MaxBackoff/2 || longest > cfg.MaxBackoff {
			t.Errorf("the longest rest was %v", longest)
		}
		u.ok(time.Now(), time.Millisecond)
		if state() != well {
			t.Error("an answer does not make it well")
		}
		<-time.After(sampleAge + time.Second)
		if state() != unsure {
			t.Error("an old measurement is not made again")
		}
	})
}
