package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rolling is an app whose tasks go on serving for a while after they were told to
// end; version makes it another definition, whose tasks replace those before.
func rolling(id string, version int) string {
	return fmt.Sprintf(`{"id": "/%s", "instances": 3, "cpus": 0.1, "mem": 16, "env": {"VERSION": "%d"}, "taskKillGracePeriodSeconds": 20,
		"cmd": "exec \"$WAGGLE\" dev hello --linger 2s --listen \"$HOST:$PORT0\"",
		"portDefinitions": [{"port": 0, "protocol": "tcp", "name": "http", "labels": {"VIP_0": "/web:80", "VIP_0_DRAIN": "30s"}}],
		"healthChecks": [{"protocol": "MESOS_HTTP", "path": "/health", "portIndex": 0, "gracePeriodSeconds": 60, "intervalSeconds": 1, "timeoutSeconds": 20, "maxConsecutiveFailures": 10}]}`, id, version)
}

// put hands Marathon a definition.
func (n *node) put(t *testing.T, marathon, app, definition string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: n.dial}}
	req, err := http.NewRequest(http.MethodPut, marathon+"/v2/apps/"+app, strings.NewReader(definition))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode/100 != 2 {
		t.Fatalf("PUT %s: %s: %s", app, resp.Status, text)
	}
}

// session is a client that keeps its connection and asks over and over.
type session struct {
	conn   net.Conn
	to     netip.AddrPort
	served atomic.Int64 // when it was last answered, in ns
	ended  chan error
}

// keep asks until the connection ends or quit is closed, which is no error.
func (s *session) keep(quit <-chan struct{}) {
	answers := bufio.NewReader(s.conn)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			s.ended <- nil
			return
		case <-tick.C:
		}
		fmt.Fprint(s.conn, "GET / HTTP/1.1\r\nHost: hello\r\n\r\n") // a failure is seen in what is read
		resp, err := http.ReadResponse(answers, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			err = errors.Join(err, resp.Body.Close())
		}
		if err != nil {
			s.ended <- err
			return
		}
		s.served.Store(time.Now().UnixNano())
	}
}

// sessions opens some to every backend that a VIP has now.
func (n *node) sessions(t *testing.T, at netip.AddrPort, quit <-chan struct{}, wait *sync.WaitGroup) []*session {
	t.Helper()
	var out []*session
	for _, b := range n.vips(t)["web.marathon"].Backends {
		s := &session{to: netip.AddrPortFrom(b.Address, b.Port), ended: make(chan error, 1)}
		s.conn = n.reach(t, at, s.to)
		wait.Go(func() { s.keep(quit) })
		out = append(out, s)
	}
	return out
}

// All backends of a VIP are replaced, first those of one of its two apps, then of
// the other, under load: no connect fails; connections to backends that stay go
// on; those to backends that leave are served on while these drain.
func TestARollingReplacementOfAllBackendsLosesNothing(t *testing.T) {
	n := newNode(t)
	dir := filepath.Join(n.state, "apps")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, app := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(dir, app+".json"), []byte(rolling(app, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := n.start(t, n.verb("dev", "--agent-ip", n.addr.String(), dir)...)
	marathon := p.said(t, marathonAt)
	at := n.up(t, "web.marathon", 6)
	stop := n.load(at)
	quit := make(chan struct{})
	var wait sync.WaitGroup
	defer wait.Wait()
	defer close(quit)
	for _, app := range []string{"one", "two"} {
		before := map[netip.AddrPort]bool{} // of the app that is replaced
		for _, b := range n.vips(t)["web.marathon"].Backends {
			before[netip.AddrPortFrom(b.Address, b.Port)] = strings.HasPrefix(b.Task, app+".")
		}
		held := n.sessions(t, at, quit, &wait)
		n.put(t, marathon, app, rolling(app, 2))
		left := n.watchLeaving(t, before)
		for _, s := range held {
			if !before[s.to] {
				continue
			}
			// Its task ends only after the time it lingers, and closes it then.
			if err := <-s.ended; err == nil {
				t.Errorf("a connection to %s, which has left, goes on", s.to)
			}
			if last := time.Unix(0, s.served.Load()); !last.After(left[s.to]) {
				t.Errorf("%s took no new connections from %s on, and its old one was last served at %s", s.to, left[s.to], last)
			}
		}
		for _, s := range held {
			if before[s.to] {
				continue
			}
			select {
			case err := <-s.ended:
				t.Errorf("a connection to %s, which stays, ended: %v", s.to, err)
			default:
			}
		}
	}
	if asked, failures := stop(); len(failures) > 0 || asked < 100 {
		t.Errorf("%d connections, failures: %v", asked, failures)
	}
}

// watchLeaving waits until all these backends are gone and as many others up, and
// returns when each was seen to take no more connections.
func (n *node) watchLeaving(t *testing.T, leave map[netip.AddrPort]bool) map[netip.AddrPort]time.Time {
	t.Helper()
	left := map[netip.AddrPort]time.Time{}
	eventually(t, "all are replaced", func() bool {
		up, all := map[netip.AddrPort]bool{}, n.vips(t)["web.marathon"].Backends
		for _, b := range all {
			if b.State == "up" {
				up[netip.AddrPortFrom(b.Address, b.Port)] = true
			}
		}
		if len(all) == 0 {
			return false
		}
		done := len(up) == len(leave) && len(all) == len(leave)
		for b, leaves := range leave {
			if leaves && !up[b] && left[b].IsZero() {
				left[b] = time.Now()
			}
			done = done && up[b] != leaves
		}
		return done
	})
	return left
}
