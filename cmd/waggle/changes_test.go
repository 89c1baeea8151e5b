package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"waggle/api"
	"waggle/internal/testnet"
	"waggle/watcher/mesos/mesostest"
)

// TestTheRunningDaemonTellsWhatChanges follows the stream while a task starts
// and falls ill.
func TestTheRunningDaemonTellsWhatChanges(t *testing.T) {
	ns := testnet.New(t)
	n := &node{Namespace: ns, client: ns, state: t.TempDir()}
	agent := netip.MustParseAddr("10.0.0.1")
	var master *mesostest.Master
	n.Must(t, func() error {
		master = mesostest.Serve(mesostest.Subscribed(15, []map[string]any{mesostest.Agent("S0", agent)}, []map[string]any{mesostest.Framework("F", "marathon")}, nil))
		return nil
	})
	t.Cleanup(master.Close)
	n.start(t, "run", "--mesos.masters", master.Addr().String(), "--state.dir", "", "--http.socket", "", "--http.listen", "127.0.0.1:8123",
		"--lb.backend", "none", "--dns.forward.on=false")
	c := asking(t, ns)
	eventually(t, "there is a picture", func() bool {
		code, _, _ := asked(t, c, "http://127.0.0.1:8123/v2/vips")
		return code == http.StatusOK
	})
	resp, err := c.Get("http://127.0.0.1:8123/v2/changes")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	watchdog := time.AfterFunc(time.Minute, func() { resp.Body.Close() })
	defer watchdog.Stop()
	in := bufio.NewScanner(resp.Body)
	next := func(what string, ok func(api.Change) bool) {
		t.Helper()
		for in.Scan() {
			var ch api.Change
			data, is := strings.CutPrefix(in.Text(), "data: ")
			if is && json.Unmarshal([]byte(data), &ch) == nil && ok(ch) {
				return
			}
		}
		t.Fatalf("the stream ended without: %s", what)
	}
	next("a reset", func(ch api.Change) bool { return ch == api.Change{} })

	well, ill := true, false
	task := mesostest.Task{
		Framework: "F", Agent: "S0", ID: "web.1", Name: "web", State: "TASK_RUNNING", IP: agent, Healthy: &well,
		Ports: []mesostest.Port{{Number: 80, Name: "http", Protocol: "tcp", Labels: []string{"VIP_0", "/web:80"}}},
	}
	master.Send(mesostest.TaskAdded(task))
	next("the VIP", func(ch api.Change) bool {
		return ch.VIP != nil && ch.VIP.Label == "/web" && ch.VIP.Backends[0].State == "up"
	})
	next("a name", func(ch api.Change) bool {
		return ch.Records != nil && ch.Records.Name == "web.marathon.mesos." && ch.Records.Records[0].Data == agent.String()
	})
	task.Healthy = &ill
	master.Send(mesostest.TaskUpdated(task))
	next("the backend's illness", func(ch api.Change) bool { return ch.VIP != nil && ch.VIP.Backends[0].State == "unhealthy" })
}
