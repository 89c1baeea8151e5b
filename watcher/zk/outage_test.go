package zk_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"waggle/watcher/zk"
	"waggle/watcher/zk/zktest"
)

func TestAnEnsembleMayLoseServersAndQuorum(t *testing.T) {
	e := zktest.Start(t, 3)
	one, two := e.Client(""), e.Client("")
	one.Make("/mesos")
	one.Master("/mesos", addr(m1))
	two.Master("/mesos", addr(m2))
	var all []*detector // on different servers, so that one of them is hit
	for range 6 {
		all = append(all, detect(t, e.URL("/mesos")))
	}
	each := func(f func(d *detector)) {
		t.Helper()
		for _, d := range all {
			f(d)
		}
	}
	each(func(d *detector) { d.untilLeader(m1) })

	e.Servers[0].Kill()
	three := e.Client("")
	three.Master("/mesos", addr(m3)) // which needs a quorum
	each(func(d *detector) {
		d.until("two servers are enough", func(s zk.Status) bool { return s.Connected && s.Members == 3 })
	})
	e.Servers[1].Kill()
	each(func(d *detector) { d.until("the quorum is gone", func(s zk.Status) bool { return !s.Connected }) })
	e.Kill()
	each(func(d *detector) {
		d.until("all servers are gone", fails("not connected"))
		if s := d.Status(); s.Leader.Addr != m1 {
			t.Errorf("the last leader does not stand: %+v", s)
		}
		d.wantLeaders(m1)
	})
	e.Restart()
	each(func(d *detector) {
		d.until("it is connected again", func(s zk.Status) bool { return s.Connected && s.Err == nil })
	})
	one.Close()
	each(func(d *detector) {
		d.until("m1 does not lead", func(s zk.Status) bool { return s.Leader.Addr != m1 })
	})
}

func TestAPausedServerIsLeftForAnother(t *testing.T) {
	e := zktest.Start(t, 1)
	c := e.Client("")
	c.Make("/mesos")
	c.Master("/mesos", addr(m1))
	d := detect(t, e.URL("/mesos"))
	d.untilLeader(m1)
	e.Servers[0].Pause()
	d.until("silence is noticed", func(s zk.Status) bool { return !s.Connected })
	d.wantLeaders(m1)
	e.Servers[0].Resume()
	e.Client("").Master("/mesos", addr(m2)) // in case m1's session has expired
	d.until("it is back", func(s zk.Status) bool { return s.Connected && s.Err == nil })
}

func TestAnExpiredSessionIsReplaced(t *testing.T) {
	e := zktest.Start(t, 1)
	c := e.Client("")
	c.Make("/mesos")
	first := c.Master("/mesos", addr(m1))
	p := newProxy(t, e.Servers[0].Addr())
	d := detect(t, "zk://"+p.addr()+"/mesos")
	d.untilLeader(m1)

	p.cut(true)
	d.until("it is cut off", func(s zk.Status) bool { return !s.Connected })
	c.Master("/mesos", addr(m2))
	c.Delete(first)               // nobody tells
	<-time.After(4 * time.Second) // twice what the server waits for us
	d.wantLeaders(m1)
	p.cut(false)
	d.untilLeader(m2)

	p.cut(true) // and within a session
	d.until("it is cut off", func(s zk.Status) bool { return !s.Connected })
	p.cut(false)
	c.Master("/mesos", addr(m3))
	d.until("the watch still tells", func(s zk.Status) bool { return s.Members == 2 })
	d.wantLeaders(m1, m2)
}

// listen takes connections, sends text and nothing more.
func listen(tb testing.TB, text []byte) string {
	return serve(tb, func(c net.Conn) {
		_, _ = c.Write(text)
		_, _ = io.Copy(io.Discard, c) // until the other side gives up
	}).Addr().String()
}

func serve(tb testing.TB, f func(net.Conn)) net.Listener {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var g sync.WaitGroup
	g.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		g.Wait()
	})
	return l
}

// proxy is a line that can be cut.
type proxy struct {
	l  net.Listener
	to string

	mu    sync.Mutex // guards the following
	down  bool
	conns map[net.Conn]bool
}

func newProxy(tb testing.TB, to string) *proxy {
	p := &proxy{to: to, conns: map[net.Conn]bool{}}
	p.l = serve(tb, p.carry)
	tb.Cleanup(func() { p.cut(true) }) // before serve waits
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

// cut ends all connections and refuses new ones, or takes them again.
func (p *proxy) cut(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return !p.down
}

func (p *proxy) carry(c net.Conn) {
	s, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer s.Close()
	if !p.track(c) || !p.track(s) {
		return
	}
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(s, c)
		s.Close()
		close(done)
	}()
	_, _ = io.Copy(c, s)
	c.Close()
	<-done
}
