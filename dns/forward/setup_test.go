package forward

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap/zaptest"
)

// reconfigure is what a daemon does that is told to read its configuration.
func reconfigure(t *testing.T, r *Resolver, cfg Config) {
	t.Helper()
	if err := r.Reconfigure(cfg, nil); err != nil {
		t.Fatal(err)
	}
}

// names returns a server that answers every name with addr.
func names(t *testing.T, addr string) *server {
	t.Helper()
	return newServer(t, func(_ string, q *dns.Msg) []*dns.Msg {
		return []*dns.Msg{reply1(q, dns.RcodeSuccess, q.Question[0].Name+" 300 IN A "+addr)}
	})
}

// gist is an answer in one line.
func gist(m *dns.Msg) string {
	out := dns.RcodeToString[m.Rcode]
	for _, rr := range m.Answer {
		out += " " + rr.(*dns.A).A.String()
	}
	return out
}

// TestAReconfiguredResolverAnswersLikeANewOne changes the configuration at
// random, while clients ask all the time: each is answered, and after each change
// names are answered as by a Resolver that has started with it.
func TestAReconfiguredResolverAnswersLikeANewOne(t *testing.T) {
	servers := []*server{names(t, "192.0.2.1"), names(t, "192.0.2.2"), names(t, "192.0.2.3")}
	random := rand.New(rand.NewPCG(1, 2))
	// One each, so that there is one right answer.
	pick := func() []Upstream { return []Upstream{servers[random.IntN(len(servers))].upstream()} }
	draw := func() Config {
		cfg := DefaultConfig()
		cfg.Timeout = patience
		cfg.StaleFor = time.Duration(random.IntN(2)) * time.Hour
		cfg.AnswerBytes = (1 + random.IntN(2)) << 20
		cfg.Upstreams, cfg.Zones = pick(), map[string][]Upstream{}
		if random.IntN(2) == 0 {
			cfg.Zones["corp.example"] = pick()
		}
		if random.IntN(2) == 0 {
			cfg.Local = []string{"corp.example"}
		}
		return cfg
	}
	cfg := draw()
	r := start(t, cfg)
	var asked, lost atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for c := range 4 {
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				m := ask(t, r, query(fmt.Sprintf("c%d-%d.example", c, i), dns.TypeA), i%2 == 0)
				asked.Add(1)
				if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
					lost.Add(1)
				}
			}
		})
	}
	for step := range 60 {
		if step > 0 {
			cfg = draw()
			reconfigure(t, r, cfg)
		}
		fresh := start(t, cfg)
		for _, name := range []string{"www.example", "www.corp.example", fmt.Sprintf("s%d.corp.example", step)} {
			got, want := gist(ask(t, r, query(name, dns.TypeA), false)), gist(ask(t, fresh, query(name, dns.TypeA), false))
			if got != want {
				t.Fatalf("step %d: %s: %s, a new one says %s", step, name, got, want)
			}
		}
	}
	eventually(t, "clients ask", func() bool { return asked.Load() > 100 })
	if n := lost.Load(); n != 0 {
		t.Errorf("%d of %d questions lost", n, asked.Load())
	}
}

func TestWhoAsksAfterAChangeDoesNotWaitForWhoHasLeft(t *testing.T) {
	speak := make(chan struct{})
	slow := newServer(t, func(_ string, q *dns.Msg) []*dns.Msg {
		<-speak
		return []*dns.Msg{reply1(q, dns.RcodeSuccess, "x.example. 300 IN A 192.0.2.1")}
	})
	quick := names(t, "192.0.2.2")
	cfg := testConfig(slow)
	cfg.Timeout = patience
	r := start(t, cfg)
	before := askAsync(t, r, query("x.example", dns.TypeA), client, false)
	cfg.Upstreams = []Upstream{quick.upstream()}
	reconfigure(t, r, cfg)
	if got := gist(ask(t, r, query("x.example", dns.TypeA), false)); got != "NOERROR 192.0.2.2" {
		t.Errorf("after the change: %s", got)
	}
	close(speak)
	if got := gist(wait(t, before)); got != "NOERROR 192.0.2.1" {
		t.Errorf("asked before it: %s", got)
	}
	if got := gist(ask(t, r, query("x.example", dns.TypeA), false)); got != "NOERROR 192.0.2.2" {
		t.Errorf("remembered: %s", got)
	}
}

func TestAnUpstreamThatLeavesIsLetGoOf(t *testing.T) {
	gone, stays := names(t, "192.0.2.1"), names(t, "192.0.2.2")
	cfg := testConfig(gone)
	cfg.Timeout, cfg.AttemptTimeout = 20*time.Millisecond, 20*time.Millisecond
	cfg.Zones = map[string][]Upstream{"corp.example": {stays.upstream()}}
	reg := prometheus.NewPedanticRegistry()
	r, err := New(cfg, nil, zaptest.NewLogger(t), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	ask(t, r, query("x.example", dns.TypeA), false)
	ask(t, r, query("x.corp.example", dns.TypeA), false)
	kept, left := r.now.Load().zones, r.now.Load().upstreams
	cfg.Upstreams = []Upstream{stays.upstream()}
	reconfigure(t, r, cfg)
	now := r.now.Load()
	if len(now.upstreams) != 1 || len(kept[now.upstreams[0]]) != 1 || len(now.zones[now.upstreams[0]]) != 2 {
		t.Errorf("the one that stays is not the same: %v in %v", now.upstreams, now.zones)
	}
	eventually(t, "the other is let go of", func() bool {
		r.changing.Lock()
		defer r.changing.Unlock()
		return len(r.leaving) == 0
	})
	for _, u := range left {
		if u != now.upstreams[0] && u.udp.open() != 0 {
			t.Errorf("%d sockets to %s", u.udp.open(), u)
		}
	}
	var text strings.Builder
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		text.WriteString(f.String())
	}
	if strings.Contains(text.String(), gone.addr.String()) || !strings.Contains(text.String(), stays.addr.String()) {
		t.Errorf("metrics: %s", text.String())
	}
	if list, err := testutil.GatherAndLint(reg); err != nil || len(list) > 0 {
		t.Errorf("%v: %v", list, err)
	}
	cfg.Upstreams = append(cfg.Upstreams, gone.upstream()) // comes back as if it had never been there
	reconfigure(t, r, cfg)
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsRememberedOutlivesWhatDoesNotConcernIt(t *testing.T) {
	a, b := names(t, "192.0.2.1"), names(t, "192.0.2.2")
	cfg := testConfig(a)
	r := start(t, cfg)
	ask(t, r, query("x.example", dns.TypeA), false)
	cfg.Timeout, cfg.StaleFor, cfg.InFlight = patience, 0, 7
	reconfigure(t, r, cfg)
	ask(t, r, query("x.example", dns.TypeA), false)
	if n := len(a.questions("")); n != 1 {
		t.Errorf("asked %d times", n)
	}
	wrong := cfg
	wrong.Upstreams, wrong.Local = []Upstream{b.upstream()}, []string{strings.Repeat("x", 64)}
	if err := r.Reconfigure(wrong, nil); err == nil {
		t.Error("a name that is none was taken")
	}
	if got := gist(ask(t, r, query("y.example", dns.TypeA), false)); got != "NOERROR 192.0.2.1" {
		t.Errorf("after an error: %s", got)
	}
	cfg.Upstreams = []Upstream{b.upstream()}
	reconfigure(t, r, cfg)
	if d := cmp.Diff("NOERROR 192.0.2.2", gist(ask(t, r, query("x.example", dns.TypeA), false))); d != "" {
		t.Error(d)
	}
}
