package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"waggle/api"
	"waggle/watcher/mesos/mesostest"
)

// picture is a cluster with one agent, the node, on which each app runs once
// and has a VIP.
func (n *node) picture(port uint16, apps ...string) []byte {
	var tasks []mesostest.Task
	for _, app := range apps {
		tasks = append(tasks, mesostest.Task{
			Framework: "F", Agent: "S0", ID: app + ".0", Name: app, State: "TASK_RUNNING", IP: n.addr,
			Ports: []mesostest.Port{{Number: int(port), Name: "p", Protocol: "tcp", Labels: []string{"VIP_0", "/" + app + ":80"}}},
		})
	}
	return mesostest.Subscribed(15, []map[string]any{mesostest.Agent("S0", n.addr)}, []map[string]any{mesostest.Framework("F", "marathon")}, tasks)
}

// greeter answers "hi" on a port of the node until the test ends.
func (n *node) greeter(t *testing.T) uint16 {
	t.Helper()
	var l net.Listener
	n.Must(t, func() (err error) { l, err = net.Listen("tcp", n.addr.String()+":0"); return err })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hi") // a client that is gone is seen as one that got nothing
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// greeted reports whether a connection to at is answered by the greeter.
func (n *node) greeted(at netip.AddrPort) error {
	c, err := n.dial(context.Background(), "tcp", at.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if text, err := io.ReadAll(c); err != nil || string(text) != "hi" {
		return errors.Join(err, errors.New("answered "+string(text)))
	}
	return nil
}

func (n *node) status(t *testing.T) api.Status {
	t.Helper()
	var st api.Status
	if err := (api.Client{Socket: n.socket()}).Get(t.Context(), "/v2/status", &st); err != nil {
		return api.Status{}
	}
	return st
}

// TestARestartWithoutASchedulerServesWhatRan kills the daemon while the
// scheduler is away: the next one names and balances what ran, says how old that
// is, takes nothing away, and believes the scheduler once it is back.
func TestARestartWithoutASchedulerServesWhatRan(t *testing.T) {
	n := newNode(t)
	port := n.greeter(t)
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(n.picture(port, "web", "old")); return nil })
	t.Cleanup(master.Close)
	args := n.verb("run", "--mesos.masters", master.Addr().String())
	daemon := n.start(t, args...)
	web, old := n.up(t, "web.marathon", 1), n.up(t, "old.marathon", 1)
	eventually(t, "the Snapshot is on the disk", func() bool {
		_, err := os.Stat(filepath.Join(n.archive(), "snapshot"))
		return err == nil
	})

	master.Refuse(503, "Master has not finished recovery")
	master.Cut()
	daemon.stop(t, syscall.SIGKILL)
	n.start(t, args...)
	for name, was := range map[string]netip.AddrPort{"web": web, "old": old} {
		if now := n.up(t, name+".marathon", 1); now != was {
			t.Errorf("the VIP of %s was %s, is %s", name, was, now)
		}
		if err := n.greeted(was); err != nil {
			t.Errorf("through the VIP of %s: %v", name, err)
		}
		if r := n.query(t, n.client, name+".marathon.mesos.", dns.TypeA); len(r.Answer) != 1 {
			t.Errorf("the name of %s: %v", name, r)
		}
	}
	st := n.status(t)
	if !st.Ready || st.Source.Restored.IsZero() || !strings.Contains(strings.Join(st.Reasons, "\n"), "from the disk") {
		t.Errorf("status: %+v", st)
	}

	master.SetPicture(n.picture(port, "web", "new"))
	master.SetAnswer(nil)
	n.up(t, "new.marathon", 1)
	eventually(t, "the Snapshot from the disk is let go", func() bool {
		_, served := n.vips(t)["old.marathon"]
		return !served && n.status(t).Source.Restored.IsZero()
	})
	if err := n.greeted(web); err != nil {
		t.Errorf("through the VIP that stayed: %v", err)
	}
}

// TestARestartDuringAFailoverHoldsWhatRan kills the daemon, and a new master is
// elected that has not heard from the agent yet: the tasks that the daemon knows
// from the disk only are held as if it had never been away.
func TestARestartDuringAFailoverHoldsWhatRan(t *testing.T) {
	n := newNode(t)
	port := n.greeter(t)
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(n.picture(port, "web")); return nil })
	t.Cleanup(master.Close)
	args := n.verb("run", "--mesos.masters", master.Addr().String())
	daemon := n.start(t, args...)
	web := n.up(t, "web.marathon", 1)
	eventually(t, "the Snapshot is on the disk", func() bool {
		_, err := os.Stat(filepath.Join(n.archive(), "snapshot"))
		return err == nil
	})
	daemon.stop(t, syscall.SIGKILL)
	master.Cut()
	master.SetPicture(mesostest.FailedOver(15, nil, []string{"S0"}, nil, nil))
	n.start(t, args...)
	eventually(t, "the new master is followed", func() bool {
		st := n.status(t)
		return st.Source.Connected && st.Source.Restored.IsZero()
	})
	if now := n.up(t, "web.marathon", 1); now != web {
		t.Errorf("the VIP was %s, is %s", web, now)
	}
	if err := n.greeted(web); err != nil {
		t.Error(err)
	}
}

// TestADamagedArchiveIsDoneWithout starts over a file that is none of ours.
func TestADamagedArchiveIsDoneWithout(t *testing.T) {
	n := newNode(t)
	if err := errors.Join(os.Mkdir(n.archive(), 0o700), os.WriteFile(filepath.Join(n.archive(), "snapshot"), []byte("not ours"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(n.picture(80, "web")); return nil })
	t.Cleanup(master.Close)
	daemon := n.start(t, n.verb("run", "--mesos.masters", master.Addr().String())...)
	n.up(t, "web.marathon", 1)
	if out := daemon.out.String(); !strings.Contains(out, "starting without") || !strings.Contains(out, n.archive()) {
		t.Errorf("the log does not name the file:\n%s", out)
	}
}

// get reads a path of the daemon's HTTP interface as it is.
func (n *node) get(path string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", n.socket())
	}}}
	resp, err := client.Get("http://waggle" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// TestADaemonKilledDuringADrainEndsItAfterwards: whoever is connected to a
// backend that was taken away is told by the next daemon, and not too early.
func TestADaemonKilledDuringADrainEndsItAfterwards(t *testing.T) {
	n := newNode(t)
	stays, leaves := n.Echo(t, netip.AddrPortFrom(n.addr, 0)), n.Echo(t, netip.AddrPortFrom(n.addr, 0))
	path := filepath.Join(n.state, "services.yaml")
	const drain = "VIP_0_DRAIN: 10s"
	first := backendOf{"a", "/web:80", stays, drain}
	rewrite(t, path, first, backendOf{"b", "/web:80", leaves, drain})
	run := n.start(t, n.verb("run", "--file.paths", path)...)
	web := n.up(t, "web.static", 2)
	lives, told := n.reach(t, web, stays), n.reach(t, web, leaves)
	rewrite(t, path, first)
	n.up(t, "web.static", 1)
	began := time.Now()
	file := filepath.Join(n.archive(), "drains")
	eventually(t, "the drain is on the disk", func() bool {
		b, _ := os.ReadFile(file)
		return strings.Contains(string(b), leaves.String())
	})
	run.stop(t, syscall.SIGKILL)
	n.start(t, n.verb("run", "--file.paths", path)...)
	n.up(t, "web.static", 1)
	if time.Since(began) < 9*time.Second { // else the machine is too busy to tell
		if err := echoed(told); err != nil {
			t.Errorf("within the drain: %v", err)
		}
	}
	if err := told.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := told.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("the drain ended with %v, want ECONNABORTED", err)
	}
	if err := echoed(lives); err != nil {
		t.Errorf("%s: %v", lives.RemoteAddr(), err)
	}
}

// TestTheFirstAnswerAfterARestartIsFromTheDisk asks all the time while a daemon
// starts that has a picture on disk: what it says first is what it knew.
func TestTheFirstAnswerAfterARestartIsFromTheDisk(t *testing.T) {
	n := newNode(t)
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(n.picture(80, "web")); return nil })
	t.Cleanup(master.Close)
	args := n.verb("run", "--mesos.masters", master.Addr().String(), "--state.dir", filepath.Join(n.state, "kept"))
	daemon := n.start(t, args...)
	n.up(t, "web.marathon", 1)
	daemon.stop(t, syscall.SIGTERM)
	n.start(t, args...)
	eventually(t, "an answer", func() bool {
		r, err := n.asked(n.client, new(dns.Msg).SetQuestion("web.marathon.mesos.", dns.TypeA), 10*time.Second)
		if err == nil && (r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1) {
			t.Fatalf("the first answer is %v", r)
		}
		return err == nil
	})
}
