package answers

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"waggle/dns"
	"waggle/dns/guard"
	"waggle/internal/testnet"
	"waggle/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// bed is a namespace with a server, in the kernel and outside of it.
type bed struct {
	*testnet.Namespace
	answers *Answers
	zone    atomic.Pointer[dns.Zone]
	at      netip.AddrPort
	stop    func() // ends what tells the kernel that the daemon lives
}

// newBed starts a server on listen, any port.
func newBed(t *testing.T, listen string, prepare ...func(*testnet.Namespace)) *bed {
	t.Helper()
	b := &bed{Namespace: testnet.New(t)}
	for _, do := range prepare {
		do(b.Namespace)
	}
	b.answers = New(Config{Most: 1000}, zaptest.NewLogger(t), nil)
	detach, err := b.answers.attach()
	detach()
	if errors.Is(err, ebpf.ErrNotSupported) {
		testnet.Skip(t, "this kernel takes no program on lo (Linux 6.6 does): "+err.Error())
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = b.run(t, ctx, cancel, func() error { return b.Do(func() error { return b.answers.Run(ctx) }) })
	cfg := dns.DefaultServerConfig()
	cfg.Listen, cfg.Kernel, cfg.Readers = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(listen), 0)}, b.answers, 1
	cfg.Limit = guard.LimitConfig{} // none
	s := dns.NewServer(cfg, b.zone.Load, zaptest.NewLogger(t), nil)
	b.Must(t, s.Listen)
	b.at = s.Addrs()[0]
	serving, end := context.WithCancel(context.Background())
	b.run(t, serving, end, func() error { return s.Run(serving) })
	until(t, "ready", func() bool { return b.answers.Generation() != 0 })
	return b
}

// run runs do until the test ends or the result is called, which waits.
func (b *bed) run(t *testing.T, ctx context.Context, cancel func(), do func() error) (stop func()) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	var ended bool
	stop = func() {
		cancel()
		if ended {
			return
		}
		ended = true
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// serve makes tasks what there is.
func (b *bed) serve(tasks ...*model.Task) {
	snap := &model.Snapshot{}
	apps := snap.Apps.Edit()
	for _, t := range tasks { // each an app of its own
		key := model.AppKey{FrameworkID: t.Key.FrameworkID, Name: t.DiscoveryName()}
		apps.Set(key, &model.App{Key: key, Framework: t.Framework, Tasks: []*model.Task{t}})
	}
	snap.Apps = apps.Groups()
	b.zone.Store(dns.Build(b.zone.Load(), snap, nil, dns.DefaultConfig()))
	b.answers.Forget()
}

// task is one of marathon's with addresses of its own.
func task(name string, addrs ...string) *model.Task {
	t := &model.Task{
		Key: model.TaskKey{FrameworkID: "F", ID: name + ".1"}, Name: name, Framework: "marathon", AgentID: "S0",
		AgentAddr: netip.MustParseAddr("10.0.0.1"), State: model.Running, Discovery: &model.Discovery{Name: name},
	}
	for _, a := range addrs {
		t.Addrs = append(t.Addrs, model.Address{Addr: netip.MustParseAddr(a)})
	}
	return t
}

// client is a socket in the namespace that asks to.
type client struct {
	conn net.Conn
	id   uint16
}

func (b *bed) client(t *testing.T, to netip.AddrPort) *client {
	t.Helper()
	c := &client{}
	b.Must(t, func() (err error) {
		c.conn, err = net.Dial("udp", to.String())
		return err
	})
	t.Cleanup(func() { c.conn.Close() })
	return c
}

// ask sends m with an id of its own and returns the reply, which must come.
func (c *client) ask(t *testing.T, m *mdns.Msg) *mdns.Msg {
	t.Helper()
	reply, err := c.try(m, patience)
	if err != nil {
		t.Fatalf("%s: %v", m.Question[0].String(), err)
	}
	return reply
}

func (c *client) try(m *mdns.Msg, wait time.Duration) (*mdns.Msg, error) {
	c.id++
	m.Id = c.id
	packet, err := m.Pack()
	if err == nil {
		err = c.conn.SetDeadline(time.Now().Add(wait))
	}
	if err == nil {
		_, err = c.conn.Write(packet)
	}
	room := make([]byte, mdns.MaxMsgSize)
	for err == nil {
		var n int
		if n, err = c.conn.Read(room); err != nil {
			break
		}
		reply := new(mdns.Msg)
		if err = reply.Unpack(room[:n]); err == nil && reply.Id == m.Id {
			return reply, nil
		}
	}
	return nil, err
}

// given returns how many answers the kernel has given.
func (b *bed) given() (sum uint64) {
	for _, n := range b.answers.Counts() {
		sum += n
	}
	return sum
}

// inKernel asks m until the kernel answers, and returns that answer.
func (b *bed) inKernel(t *testing.T, c *client, m *mdns.Msg) *mdns.Msg {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		before := b.given()
		if reply := c.ask(t, m); b.given() > before {
			return reply
		}
	}
	t.Fatalf("the kernel does not answer %s", m.Question[0].String())
	return nil
}

func question(name string, rrtype uint16) *mdns.Msg { return new(mdns.Msg).SetQuestion(name, rrtype) }

// nft loads a ruleset into the namespace.
func nft(t *testing.T, n *testnet.Namespace, rules string) {
	t.Helper()
	n.Must(t, func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Log(string(out))
		}
		return err
	})
}

// until waits for what must come true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never %s", what)
		}
	}
}
