package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"waggle/watcher/mesos/mesostest"
	"waggle/watcher/zk/zktest"
)

// heartbeat is short, so that silence is noticed within 1.5 s.
const heartbeat = 500 * time.Millisecond

// fact is what is true of one app of the test's cluster, which has one task or
// none.
type fact struct {
	running bool
	turn    int // counts how often it has started
	// told is when the daemon was told of it, zero while it has not been.
	told time.Time
}

// testCluster is what runs, and the masters that tell of it: the first leads, as
// ZooKeeper sees it too, the others send everybody on to it.
type testCluster struct {
	t       *testing.T
	node    *node
	port    uint16 // where all tasks are reached
	zk      *zktest.Ensemble
	masters []*testMaster // in the order of their nodes; only faults touch it

	mu    sync.Mutex // guards the following
	lead  *mesostest.Master
	apps  []fact
	deaf  bool // the daemon may miss what it is told now
	fault bool // and will go on doing so
	still bool // nothing starts or ends
	blank bool // the leader has not heard from the agent
	muted bool // nothing is told, not even heartbeats
}

// testMaster is a master and its session with ZooKeeper.
type testMaster struct {
	*mesostest.Master
	addr    netip.AddrPort
	session *zktest.Client
}

func newTestCluster(t *testing.T, n *node, apps int) *testCluster {
	t.Helper()
	c := &testCluster{t: t, node: n, port: n.greeter(t), zk: zktest.Start(t, 1), apps: make([]fact, apps), deaf: true}
	root := c.zk.Client("")
	root.Make("/mesos")
	root.Close()
	for range 3 {
		c.join()
	}
	t.Cleanup(func() {
		for _, m := range c.masters {
			m.Close()
		}
	})
	return c
}

// join starts a master and registers it as the last.
func (c *testCluster) join() {
	c.t.Helper()
	m := &testMaster{}
	c.node.client.Must(c.t, func() error {
		l, err := net.Listen("tcp", c.node.addr.Next().String()+":0")
		if err == nil {
			m.addr = l.Addr().(*net.TCPAddr).AddrPort()
			m.Master = mesostest.ServeOn(l, nil)
		}
		return err
	})
	m.session = c.zk.Client("")
	m.session.Master("/mesos", m.addr)
	c.masters = append(c.masters, m)
	c.elect()
}

// elect makes the first master lead and the others say so.
func (c *testCluster) elect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deafenLocked(underWay)
	c.lead = c.masters[0].Master
	for _, m := range c.masters[1:] {
		m.Redirect(c.masters[0].addr.String())
		m.Cut()
	}
	c.lead.SetPicture(c.pictureLocked())
	c.lead.SetAnswer(nil)
}

// underWay is how long something that was told may still be on its way.
const underWay = time.Second

// deafen notes that what was told so lately may have got lost.
func (c *testCluster) deafen(lately time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deafenLocked(lately)
}

func (c *testCluster) deafenLocked(lately time.Duration) {
	c.deaf, c.fault = true, true
	for i := range c.apps {
		if time.Since(c.apps[i].told) < lately {
			c.apps[i].told = time.Time{}
		}
	}
}

// mended notes that the fault is over.
func (c *testCluster) mended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = false
}

// hear notes that the leader has a stream, which says everything.
func (c *testCluster) hear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.deaf || c.fault || c.lead.Streams() == 0 {
		return
	}
	c.deaf = false
	for i := range c.apps {
		if c.apps[i].told.IsZero() {
			c.apps[i].told = time.Now()
		}
	}
}

func (c *testCluster) hears() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.deaf
}

// flip starts an app's task or ends it, and tells whoever listens.
func (c *testCluster) flip(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.still {
		return
	}
	a := &c.apps[i]
	task := c.taskLocked(i)
	var events [][]byte
	if a.running {
		task.State = "TASK_KILLED"
		events = append(events, mesostest.TaskUpdated(task))
	} else {
		a.turn++
		task = c.taskLocked(i)
		task.State = "TASK_STAGING"
		events = append(events, mesostest.TaskAdded(task))
		task.State = "TASK_RUNNING"
		events = append(events, mesostest.TaskUpdated(task))
	}
	a.running, a.told = !a.running, time.Time{}
	c.lead.SetPicture(c.pictureLocked())
	if c.muted {
		return
	}
	for _, e := range events {
		c.lead.Send(e)
	}
	if !c.deaf {
		a.told = time.Now()
	}
}

// beat sends what keeps a stream alive.
func (c *testCluster) beat() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.muted {
		c.lead.Send(mesostest.Heartbeat())
	}
}

// fact returns what is true of an app.
func (c *testCluster) fact(i int) fact {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apps[i]
}

func appName(i int) string { return fmt.Sprint("app", i) }

func (c *testCluster) taskLocked(i int) mesostest.Task {
	return mesostest.Task{
		Framework: "F", Agent: "S0", ID: fmt.Sprintf("%s.%d", appName(i), c.apps[i].turn), Name: appName(i),
		State: "TASK_RUNNING", IP: c.node.addr,
		Ports: []mesostest.Port{{Number: int(c.port), Name: "p", Protocol: "tcp", Labels: []string{"VIP_0", "/" + appName(i) + ":80"}}},
	}
}

func (c *testCluster) pictureLocked() []byte {
	if c.blank {
		return mesostest.FailedOver(heartbeat.Seconds(), nil, []string{"S0"}, nil, nil)
	}
	tasks := c.runningLocked()
	return mesostest.Subscribed(heartbeat.Seconds(), []map[string]any{mesostest.Agent("S0", c.node.addr)},
		[]map[string]any{mesostest.Framework("F", "marathon")}, tasks)
}

func (c *testCluster) runningLocked() (tasks []mesostest.Task) {
	for i, a := range c.apps {
		if a.running {
			tasks = append(tasks, c.taskLocked(i))
		}
	}
	return tasks
}

// forget makes the next leader one that knows the agent from its registry only.
// Nothing starts or ends meanwhile, and all there is has been told.
func (c *testCluster) forget() {
	c.mu.Lock()
	c.still = true
	c.mu.Unlock()
	<-time.After(1500 * time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blank = true
}

// remember lets the agent register with the leader.
func (c *testCluster) remember() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.still, c.blank = false, false
	c.lead.SetPicture(c.pictureLocked())
	c.lead.Send(mesostest.FrameworkAdded(mesostest.Framework("F", "marathon")))
	c.lead.Send(mesostest.AgentAdded(mesostest.Agent("S0", c.node.addr)))
	for _, t := range c.runningLocked() {
		c.lead.Send(mesostest.TaskAdded(t))
	}
}

// zkProxy leads from the masters' namespace to ZooKeeper, so that a cut link
// cuts it off too. It returns the zk:// URL to give to the daemon.
func (c *testCluster) zkProxy() string {
	c.t.Helper()
	var l net.Listener
	c.node.client.Must(c.t, func() (err error) {
		l, err = net.Listen("tcp", c.node.addr.Next().String()+":0")
		return err
	})
	var g sync.WaitGroup
	open := map[net.Conn]bool{}
	var mu sync.Mutex
	pipe := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // either end may go at any time
		to.Close()
		from.Close()
	}
	g.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.DialTimeout("tcp", c.zk.Servers[0].Addr(), 5*time.Second)
			if err != nil {
				in.Close()
				continue
			}
			mu.Lock()
			open[in], open[out] = true, true
			mu.Unlock()
			g.Go(func() { pipe(in, out) })
			g.Go(func() { pipe(out, in) })
		}
	})
	c.t.Cleanup(func() {
		err := l.Close()
		mu.Lock()
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		g.Wait()
		if err != nil && !errors.Is(err, net.ErrClosed) {
			c.t.Error(err)
		}
	})
	return "zk://" + l.Addr().String() + "/mesos"
}
