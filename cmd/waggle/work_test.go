package main

import (
	"errors"
	"fmt"

	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"waggle/watcher/mesos/mesostest"
)

// work is a node whose daemon follows a master and a file.
type work struct {
	*node
	master *told
	file   string
	fixed  string // of the file, as YAML, beside what a row adds
}

// serve writes the file with what is given besides.
func (w *work) serve(t *testing.T, besides string) {
	t.Helper()
	err := os.WriteFile(w.file+".new", []byte("services:\n"+w.fixed+besides), 0o644)
	if err := errors.Join(err, os.Rename(w.file+".new", w.file)); err != nil {
		t.Fatal(err)
	}
}

// spread is one service of a file with a backend at each address.
func spread(vip string, port uint16, addrs ...string) string {
	return fmt.Sprintf("- {name: '%s', addresses: [%s], ports: [{port: %d, vip: '/%s:80'}]}\n", vip, strings.Join(addrs, ", "), port, vip)
}

// The kinds of work of dcos-net.md section 9, by its numbers, through the whole
// daemon. What they took is logged; figures to compare are made by bench.
func TestKindsOfWork(t *testing.T) {
	n := newNode(t)
	w := &work{node: n, master: n.told(t), file: filepath.Join(n.state, "services.yaml")}
	for i, at := range n.echoes(t, 12) {
		w.fixed += fmt.Sprintf("- {name: even%d, addresses: [%s], ports: [{port: %d, vip: '/even:80'}]}\n", i, at.Addr(), at.Port())
	}
	wide := n.Echo(t, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	w.fixed += spread("flushed", wide.Port(), "127.0.0.1")
	w.serve(t, "")
	n.start(t, n.verb("run", "--mesos.masters", w.master.Addr().String(), "--file.paths", w.file)...)
	web := n.up(t, "web.marathon", 3)
	n.up(t, "even.static", 12)

	repaired := w.flush(t) // it takes the daemon some seconds to notice, while other rows run
	t.Run("1 more new connections from one client than one port range has", func(t *testing.T) { w.manyConnections(t, web) })
	t.Run("2 a thousand backends of which an eighth dies", func(t *testing.T) { w.thousand(t, wide.Port()) })
	t.Run("3 small HTTP, direct and by VIP", func(t *testing.T) { w.smallHTTP(t) })
	t.Run("4 from the event to the name and the connection", func(t *testing.T) { w.propagation(t) })
	t.Run("5 a thousand VIPs at once, and one more", func(t *testing.T) { w.thousandVIPs(t, wide.Port()) })
	t.Run("6 what somebody flushed is repaired", repaired)
	t.Run("7 evenness over twelve backends", func(t *testing.T) { w.evenness(t) })
}

// manyConnections closes each as clients do, so that all wait out their time.
func (w *work) manyConnections(t *testing.T, at netip.AddrPort) {
	const connections = 29000 // 28 232 ports are in the range
	start, failed := time.Now(), 0
	w.Must(t, func() error {
		for range connections {
			c, err := net.Dial("tcp", at.String())
			if err != nil {
				if failed++; failed > 3 {
					return err
				}
				continue
			}
			c.Close()
		}
		return nil
	})
	if failed > 0 {
		t.Errorf("%d connections failed", failed)
	}
	t.Logf("%d connections in %s", connections, time.Since(start))
}

// thousand is the evaluation of Minuteman's README at a tenth of its length: ten
// clients, each with new connections, and 125 of 1000 backends that refuse.
func (w *work) thousand(t *testing.T, port uint16) {
	var addrs []string
	for i := range 1000 {
		addrs = append(addrs, fmt.Sprintf("127.0.%d.%d", 1+i/125, 1+i%125))
	}
	w.serve(t, spread("thousand", port, addrs...))
	at := w.up(t, "thousand.static", 1000)
	quit := make(chan struct{})
	var clients sync.WaitGroup
	var mu sync.Mutex // guards last and failures
	last, failures := time.Time{}, 0
	for range 10 {
		clients.Go(func() {
			_ = w.Do(func() error {
				for {
					select {
					case <-quit:
						return nil
					case <-time.After(10 * time.Millisecond):
					}
					if err := dialAndEcho(at); err != nil {
						mu.Lock()
						last = time.Now()
						failures++
						mu.Unlock()
					}
				}
			})
		})
	}
	stop := sync.OnceFunc(func() { close(quit); clients.Wait() })
	defer stop()
	shell(t, w.Namespace, fmt.Sprintf(`nft -f - <<'X'
table ip dead {
	chain out { type filter hook output priority 0; ip daddr 127.0.1.0/24 tcp dport %d reject with tcp reset; }
}
X`, port))
	eventually(t, "somebody is refused", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return failures > 0
	})
	told := time.Now()
	w.serve(t, spread("thousand", port, addrs[125:]...))
	w.up(t, "thousand.static", 875)
	served := time.Now()
	for range 500 {
		if err := w.Do(func() error { return dialAndEcho(at) }); err != nil {
			t.Fatalf("after the event: %v", err)
		}
	}
	stop()
	if last.After(served.Add(time.Second)) { // one that began before may end after
		t.Errorf("refused %s after the event was served", last.Sub(served))
	}
	t.Logf("%d refused; none from %s after the scheduler's event on", failures, last.Sub(told))
}

// smallHTTP asks a small page over new connections, directly and by the VIP.
func (w *work) smallHTTP(t *testing.T) {
	var l net.Listener
	w.Must(t, func() (err error) { l, err = net.Listen("tcp", w.addr.String()+":0"); return err })
	srv := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { fmt.Fprintln(out, "hello") })}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }() // until it is closed
	t.Cleanup(func() { srv.Close(); <-done })
	direct := netip.MustParseAddrPort(l.Addr().String())
	w.serve(t, spread("http", direct.Port(), w.addr.String()))
	at := w.up(t, "http.static", 1)
	took := map[netip.AddrPort][]time.Duration{}
	for range 300 {
		for _, to := range []netip.AddrPort{direct, at} {
			start := time.Now()
			if text, err := w.hello(to); err != nil || text != "hello\n" {
				t.Fatalf("%s: %q, %v", to, text, err)
			}
			took[to] = append(took[to], time.Since(start))
		}
	}
	p95 := func(to netip.AddrPort) time.Duration { slices.Sort(took[to]); return took[to][len(took[to])*95/100] }
	t.Logf("95th percentile: direct %s, by VIP %s", p95(direct), p95(at))
}

// propagation tells of a task and asks until it is named and reached.
func (w *work) propagation(t *testing.T) {
	task := w.master.tasks[0]
	task.ID, task.Name = "new.0", "new"
	task.Ports = []mesostest.Port{{Number: task.Ports[0].Number, Name: "p", Protocol: "tcp", Labels: []string{"VIP_0", "/new:80"}}}
	start := time.Now()
	w.master.Send(mesostest.TaskAdded(task))
	var at netip.AddrPort
	eventually(t, "the VIP is named", func() bool {
		r := w.query(t, w.Namespace, "new.marathon.l4lb.thisdcos.directory.", dns.TypeA)
		if len(r.Answer) != 1 {
			return false
		}
		addr, _ := netip.AddrFromSlice(r.Answer[0].(*dns.A).A.To4())
		at = netip.AddrPortFrom(addr, 80)
		return true
	})
	if err := w.Do(func() error { return dialAndEcho(at) }); err != nil { // named after it is balanced, so at once
		t.Error(err)
	}
	t.Logf("named and reached %s after the event", time.Since(start))
}

func (w *work) thousandVIPs(t *testing.T, port uint16) {
	var text string
	for i := range 1000 {
		text += spread(fmt.Sprintf("many%d", i), port, "127.0.0.1")
	}
	start := time.Now()
	w.serve(t, text)
	w.up(t, "many999.static", 1)
	t.Logf("1000 VIPs are served %s after they were written", time.Since(start))
	vips := w.vips(t)
	err := w.Do(func() error {
		for i := range 1000 {
			v := vips[fmt.Sprintf("many%d.static", i)]
			if err := dialAndEcho(netip.AddrPortFrom(v.Address, v.Port)); err != nil {
				return fmt.Errorf("many%d: %w", i, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	start = time.Now()
	w.serve(t, text+spread("onemore", port, "127.0.0.1"))
	if err := w.Do(func() error { return dialAndEcho(w.up(t, "onemore.static", 1)) }); err != nil {
		t.Error(err)
	}
	t.Logf("one more is served %s after it was written", time.Since(start))
}

// flush takes a VIP out of the kernel's map behind the daemon's back, and returns
// the test that it comes back.
func (w *work) flush(t *testing.T) func(*testing.T) {
	at := w.up(t, "flushed.static", 1)
	connects := func() error { return w.Do(func() error { return dialAndEcho(at) }) }
	if err := connects(); err != nil {
		t.Fatal(err)
	}
	ip := at.Addr().As4()
	shell(t, w.Namespace, fmt.Sprintf("bpftool map delete pinned %s/v*/vip4 key %d %d %d %d 0 80 6 0", w.pins(), ip[0], ip[1], ip[2], ip[3]))
	start := time.Now()
	if connects() == nil {
		t.Fatal("a VIP that is not in the kernel's map is reached")
	}
	return func(t *testing.T) {
		eventually(t, "the VIP is back", func() bool { return connects() == nil })
		t.Logf("seen repaired %s after it was flushed", time.Since(start))
	}
}

func (w *work) evenness(t *testing.T) {
	const each = 2000 // a standard deviation is 2.2 % of it
	got := w.tally(t, w.up(t, "even.static", 12), 12*each)
	least, most := 12*each, 0
	for _, count := range got {
		least, most = min(least, count), max(most, count)
	}
	if ratio := float64(most) / float64(least); len(got) != 12 || ratio > 1.25 {
		t.Errorf("most to least is %.3f: %v", ratio, got)
	} else {
		t.Logf("%d to %d connections a backend, ratio %.3f", least, most, ratio)
	}
}
