package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"waggle/watcher/mesos/mesostest"
)

// oneApp is a Marathon with an app of one task, as much of it as the daemon asks
// for.
type oneApp struct {
	addr      string
	port      uint16
	framework string

	mu      sync.Mutex // guards the following
	healthy bool
	changed chan struct{} // closed at a change
}

func (m *oneApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	healthy, changed := m.healthy, m.changed
	m.mu.Unlock()
	app := fmt.Sprintf(`{"id": "/web", "portDefinitions": [{"port": 10101, "name": "p", "labels": {"VIP_0": "/web:80"}}], "healthChecks": [{"protocol": "HTTP"}],
		"tasks": [{"id": "web.0", "host": %q, "slaveId": "S0", "state": "TASK_RUNNING", "ports": [%d], "ipAddresses": [{"ipAddress": %q}],
			"healthCheckResults": [{"alive": %t, "consecutiveFailures": 1}]}]}`, m.addr, m.port, m.addr, healthy)
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/v2/info":
		fmt.Fprintf(w, `{"name": "marathon", "frameworkId": %q}`, m.framework)
	case "/v2/apps":
		fmt.Fprint(w, `{"apps": [`+app+`]}`)
	case "/v2/apps/web":
		fmt.Fprint(w, `{"app": `+app+`}`)
	case "/v2/pods/::status":
		fmt.Fprint(w, `[]`)
	case "/v2/events":
		w.Header().Set("Content-Type", "text/event-stream;charset=utf-8")
		for {
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-changed:
			}
			fmt.Fprint(w, "event: health_status_changed_event\r\ndata: {\"appId\":\"/web\"}\r\n\r\n")
			m.mu.Lock()
			changed = m.changed
			m.mu.Unlock()
		}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// serve answers on the node's address until the returned function is called.
func (m *oneApp) serve(t *testing.T, n *node) (host string, stop func()) {
	t.Helper()
	var l net.Listener
	n.Must(t, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(m.addr, "0"))
		return err
	})
	server := &http.Server{Handler: m}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	stop = sync.OnceFunc(func() { _ = server.Close(); <-done })
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func (m *oneApp) set(healthy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.healthy = healthy
	close(m.changed)
	m.changed = make(chan struct{})
}

// TestMarathonAloneIsEnough follows no master: names, VIPs, verdicts, the status,
// and what is left when Marathon goes.
func TestMarathonAloneIsEnough(t *testing.T) {
	n := newNode(t)
	m := &oneApp{addr: n.addr.String(), port: n.greeter(t), framework: "F-0000", healthy: true, changed: make(chan struct{})}
	host, stop := m.serve(t, n)

	n.start(t, n.verb("run", "--marathon.hosts", host)...)
	web := n.up(t, "web.marathon", 1)
	if r := n.query(t, n.client, "web.marathon.mesos.", dns.TypeA); len(r.Answer) != 1 {
		t.Errorf("its name: %v", r)
	}
	if err := n.greeted(web); err != nil {
		t.Errorf("through the VIP: %v", err)
	}
	if why, err := n.get("/v2/explain?q=web.0"); err != nil || !strings.Contains(why, "10101") {
		t.Errorf("no word of the service port: %v\n%s", err, why)
	}
	if st := n.status(t); st.Source.Marathon == nil || !st.Source.Marathon.Connected || st.Source.Marathon.Host != host {
		t.Errorf("status %+v", st.Source.Marathon)
	}
	m.set(false)
	eventually(t, "the verdict is told", func() bool {
		why, err := n.get("/v2/explain?q=web.0")
		return err == nil && strings.Contains(why, "unhealthy")
	})
	m.set(true)
	stop()
	eventually(t, "the status says that Marathon is gone", func() bool {
		st := n.status(t)
		return st.Ready && st.Source.Marathon.Error != ""
	})
	if err := n.greeted(web); err != nil {
		t.Errorf("through the VIP without Marathon: %v", err)
	}
}

// TestMarathonBesideMesosAddsWhatOnlyItKnows: the verdict of a check that Mesos
// never hears of, and a service port. What runs is Mesos' word.
func TestMarathonBesideMesosAddsWhatOnlyItKnows(t *testing.T) {
	n := newNode(t)
	m := &oneApp{addr: n.addr.String(), port: n.greeter(t), framework: "F", healthy: true, changed: make(chan struct{})}
	host, stop := m.serve(t, n)
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(n.picture(m.port, "web", "db")); return nil })
	t.Cleanup(master.Close)
	n.start(t, n.verb("run", "--mesos.masters", master.Addr().String(), "--marathon.hosts", host)...)
	n.up(t, "db.marathon", 1) // which Marathon says nothing of
	web := n.up(t, "web.marathon", 1)
	says := func(what string) {
		t.Helper()
		eventually(t, what, func() bool {
			why, err := n.get("/v2/explain?q=web.0")
			return err == nil && strings.Contains(why, what)
		})
	}
	says("10101")
	m.set(false)
	says("unhealthy")
	if err := n.greeted(web); err != nil { // all are unhealthy, so all are used
		t.Errorf("through the VIP: %v", err)
	}
	m.set(true)
	stop()
	master.Send(mesostest.TaskUpdated(mesostest.Task{Framework: "F", ID: "web.0", Agent: "S0", State: "TASK_FINISHED"}))
	eventually(t, "Mesos says that it has ended, and Marathon no more than before", func() bool {
		_, served := n.vips(t)["web.marathon"]
		return !served
	})
}
