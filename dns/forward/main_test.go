package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"waggle/dns/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits for what must happen.
const patience = 60 * time.Second

// server is an upstream that says what it is told, over UDP and TCP on one port.
type server struct {
	addr netip.AddrPort

	mu     sync.Mutex
	handle func(proto string, q *dns.Msg) []*dns.Msg // the answers to send; none is silence
	asked  []asked
}

// asked is a question a server was asked.
type asked struct {
	proto string
	msg   *dns.Msg
}

// newServer starts a server on loopback that lasts as long as the test.
func newServer(t *testing.T, handle func(proto string, q *dns.Msg) []*dns.Msg) *server {
	t.Helper()
	s := &server{handle: handle}
	for {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err != nil {
			pc.Close() // the port is taken for TCP
			continue
		}
		s.addr = netip.MustParseAddrPort(pc.LocalAddr().String())
		for _, srv := range []*dns.Server{
			{PacketConn: pc, Handler: dns.HandlerFunc(s.serve)},
			{Listener: l, Handler: dns.HandlerFunc(s.serve)},
		} {
			started := make(chan struct{})
			srv.NotifyStartedFunc = func() { close(started) }
			done := make(chan error, 1)
			go func() { done <- srv.ActivateAndServe() }()
			<-started
			t.Cleanup(func() {
				_ = srv.Shutdown()
				<-done
			})
		}
		return s
	}
}

func (s *server) serve(w dns.ResponseWriter, q *dns.Msg) {
	proto := w.LocalAddr().Network()
	s.mu.Lock()
	s.asked = append(s.asked, asked{proto, q.Copy()})
	handle := s.handle
	s.mu.Unlock()
	for _, r := range handle(proto, q) {
		_ = w.WriteMsg(r)
	}
}

func (s *server) set(handle func(proto string, q *dns.Msg) []*dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle = handle
}

// questions returns what was asked so far, by protocol if that is not empty.
func (s *server) questions(proto string) (out []*dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if proto == "" || a.proto == proto {
			out = append(out, a.msg)
		}
	}
	return out
}

func (s *server) upstream() Upstream { return Upstream{Addr: s.addr} }

// answer answers with records in presentation form.
func answer(records ...string) func(string, *dns.Msg) []*dns.Msg {
	return func(_ string, q *dns.Msg) []*dns.Msg { return []*dns.Msg{reply1(q, dns.RcodeSuccess, records...)} }
}

func reply1(q *dns.Msg, rcode int, records ...string) *dns.Msg {
	r := new(dns.Msg).SetRcode(q, rcode)
	r.Compress = true
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		if rr.Header().Rrtype == dns.TypeSOA {
			r.Ns = append(r.Ns, rr)
		} else {
			r.Answer = append(r.Answer, rr)
		}
	}
	if o := q.IsEdns0(); o != nil {
		r.SetEdns0(1232, o.Do())
	}
	return r
}

func rcode(code int, records ...string) func(string, *dns.Msg) []*dns.Msg {
	return func(_ string, q *dns.Msg) []*dns.Msg { return []*dns.Msg{reply1(q, code, records...)} }
}

func silence(string, *dns.Msg) []*dns.Msg { return nil }

// testConfig asks the servers for everything.
func testConfig(servers ...*server) Config {
	cfg := DefaultConfig()
	cfg.Eager = true
	for _, s := range servers {
		cfg.Upstreams = append(cfg.Upstreams, s.upstream())
	}
	return cfg
}

// start runs a Resolver as long as the test.
func start(t *testing.T, cfg Config) *Resolver {
	t.Helper()
	r, err := New(cfg, nil, zaptest.NewLogger(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return r
}

var client = netip.MustParseAddr("10.1.1.1")

func query(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
}

// ask asks r and waits for its one answer.
func ask(t *testing.T, r *Resolver, q *dns.Msg, tcp bool) *dns.Msg {
	t.Helper()
	return wait(t, askAsync(t, r, q, client, tcp))
}

func askAsync(t *testing.T, r *Resolver, q *dns.Msg, from netip.Addr, tcp bool) chan []byte {
	t.Helper()
	packet, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte, 2)
	r.Resolve(packet, from, tcp, nil, func(_ *wire.Outbox, msg []byte) { got <- msg })
	return got
}

func wait(t *testing.T, got chan []byte) *dns.Msg {
	t.Helper()
	select {
	case msg := <-got:
		m := new(dns.Msg)
		if err := m.Unpack(msg); err != nil {
			t.Fatalf("answer % x: %v", msg, err)
		}
		return m
	case <-time.After(patience):
		t.Fatal("no answer")
		return nil
	}
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func edeOf(m *dns.Msg) int {
	if o := m.IsEdns0(); o != nil {
		for _, opt := range o.Option {
			if e, ok := opt.(*dns.EDNS0_EDE); ok {
				return int(e.InfoCode)
			}
		}
	}
	return edeNone
}
