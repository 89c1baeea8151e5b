package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"waggle/watcher/mesos/mesostest"
)

// manager is a service manager: it hears what its service says.
type manager struct {
	socket *net.UnixConn
	said   lines
	done   chan struct{}
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{socket: l, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		buf := make([]byte, 65536)
		for {
			n, err := l.Read(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(&m.said, "%s\n", buf[:n])
		}
	}()
	t.Cleanup(func() { l.Close(); <-m.done })
	t.Setenv("NOTIFY_SOCKET", path)
	return m
}

// hears waits until the service has said all of what, in that order.
func (m *manager) hears(t *testing.T, what ...string) {
	t.Helper()
	eventually(t, "the manager is told "+strings.Join(what, ", "), func() bool {
		rest := m.said.String()
		for _, w := range what {
			_, after, ok := strings.Cut(rest, w)
			if !ok {
				return false
			}
			rest = after
		}
		return true
	})
}

// askOn asks for one name after the other until the test ends; lost counts the
// queries that nobody answered or answered otherwise than with a name that exists.
func (n *node) askOn(t *testing.T, name func() string) (asked, lost *atomic.Int64) {
	t.Helper()
	asked, lost = new(atomic.Int64), new(atomic.Int64)
	var conn *dns.Conn
	n.Must(t, func() (err error) {
		conn, err = (&dns.Client{}).Dial(n.addr.String() + ":53")
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer conn.Close()
		for ctx.Err() == nil {
			m := new(dns.Msg).SetQuestion(name(), dns.TypeA)
			r, _, err := (&dns.Client{Timeout: 10 * time.Second}).ExchangeWithConn(m, conn)
			asked.Add(1)
			if err != nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0 {
				lost.Add(1)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return asked, lost
}

// TestAReloadAppliesWhatItCanAndLosesNoQuery changes the file under a running
// daemon: what can change live is served, what cannot is named, a file with an
// error changes nothing, and a client that asks all the while misses no answer.
func TestAReloadAppliesWhatItCanAndLosesNoQuery(t *testing.T) {
	n, m := newNode(t), newManager(t)
	t.Setenv("WATCHDOG_USEC", "300000")
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(n.picture(n.greeter(t), "web")); return nil })
	t.Cleanup(master.Close)
	file := filepath.Join(n.state, "waggle.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("dns: {ttl: 60s}\n")
	daemon := n.start(t, n.verb("run", "--config", file, "--mesos.masters", master.Addr().String())...)
	n.up(t, "web.marathon", 1)
	m.hears(t, "READY=1", "STATUS=", "WATCHDOG=1")
	asked, lost := n.askOn(t, func() string { return "web.marathon.mesos." })
	hup := func(text string) {
		t.Helper()
		write(text)
		if err := daemon.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	ttl := func() uint32 { return n.query(t, n.client, "web.marathon.mesos.", dns.TypeA).Answer[0].Header().Ttl }

	hup("dns: {ttl: 11s, domain: corp, records: [extra.mesos. A 10.9.9.9]}\nlb: {watch: true}\nvip: {drain: 90s}\n")
	eventually(t, "the new TTL", func() bool { return ttl() == 11 })
	m.hears(t, "RELOADING=1", "MONOTONIC_USEC=", "READY=1")
	if r := n.query(t, n.client, "extra.mesos.", dns.TypeA); len(r.Answer) != 1 {
		t.Errorf("the new record: %v", r)
	}
	if got := strings.Join(n.vips(t)["web.marathon"].Options, " "); !strings.Contains(got, "drain") {
		t.Errorf("options of the VIP: %q", got)
	}
	if got := strings.Join(n.status(t).Reasons, "\n"); !strings.Contains(got, "a restart is needed for changes of dns.domain, lb.watch") {
		t.Errorf("reasons: %s", got)
	}

	hup("dns: {ttl: 12s, nothing: 1}\n")
	eventually(t, "the error is shown", func() bool {
		return strings.Contains(strings.Join(n.status(t).Reasons, "\n"), "line 1: there is no key nothing here")
	})
	if got := ttl(); got != 11 {
		t.Errorf("the TTL is %d after a file with an error", got)
	}

	hup("dns: {ttl: 13s}\n")
	eventually(t, "the next TTL", func() bool { return ttl() == 13 })
	eventually(t, "nothing is wrong any more", func() bool { return len(n.status(t).Reasons) == 0 })
	was := asked.Load()
	eventually(t, "a hundred more answers", func() bool { return asked.Load() > was+100 })
	if got := lost.Load(); got != 0 {
		t.Errorf("%d of %d queries lost", got, asked.Load())
	}
	daemon.stop(t, syscall.SIGTERM)
	m.hears(t, "STOPPING=1")
}

// TestAReloadChangesWhoIsAskedAndLosesNoQuestion moves a daemon from one upstream
// to another and back, while a client asks for names that nobody remembers.
func TestAReloadChangesWhoIsAskedAndLosesNoQuestion(t *testing.T) {
	n := newNode(t)
	one, two := n.everyName(t, "192.0.2.1"), n.everyName(t, "192.0.2.2")
	file := filepath.Join(n.state, "waggle.yaml")
	write := func(format string, args ...any) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, "dns: {forward: {"+format+"}}\n", args...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("upstreams: [%s]", one)
	daemon := n.forwarding(t, "--config", file)
	fresh := new(atomic.Int64)
	asked, lost := n.askOn(t, func() string { return fmt.Sprintf("n%d.example.", fresh.Add(1)) })
	from := func(zone, addr string) {
		t.Helper()
		eventually(t, "names below "+zone+" are asked of who has "+addr, func() bool {
			r := n.query(t, n.client, fmt.Sprintf("n%d.%s", fresh.Add(1), zone), dns.TypeA)
			return len(r.Answer) == 1 && strings.HasSuffix(r.Answer[0].String(), addr)
		})
	}
	from("example.", "192.0.2.1")
	for range 3 {
		write("upstreams: [%s], timeout: 20s, cache_mb: 8", two)
		n.Must(t, func() error { return daemon.cmd.Process.Signal(syscall.SIGHUP) })
		from("example.", "192.0.2.2")
		write("upstreams: [%s], zones: [corp.example=%s], stale: 0s", one, two)
		n.Must(t, func() error { return daemon.cmd.Process.Signal(syscall.SIGHUP) })
		from("example.", "192.0.2.1")
		from("corp.example.", "192.0.2.2")
	}
	was := asked.Load()
	eventually(t, "a hundred more answers", func() bool { return asked.Load() > was+100 })
	if got := lost.Load(); got != 0 {
		t.Errorf("%d of %d questions lost", got, asked.Load())
	}
	if st := n.status(t); strings.Contains(strings.Join(st.Reasons, " "), "restart") || len(st.Forward.Upstreams) != 2 {
		t.Errorf("%q, %+v", st.Reasons, st.Forward)
	}
}

func TestEveryLiveKeyExists(t *testing.T) {
	keys := configOf(t)
	for _, k := range liveKeys {
		found := false
		for name := range keys {
			found = found || name == k || strings.HasSuffix(k, ".") && strings.HasPrefix(name, k)
		}
		if !found {
			t.Errorf("there is no key %s", k)
		}
	}
}
