package devcluster

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"waggle/internal/testnet"
)

func TestTheExamplesRun(t *testing.T) {
	if _, err := exec.LookPath("memcached"); err != nil {
		testnet.Skip(t, "the example needs memcached: "+err.Error())
	}
	testnet.NeedRoot(t) // to tell nobody from root
	free := func() bool { return bindable(11211, protocols("tcp")) == nil }
	waitFor(20*time.Second, free) // another package's test may run the example too
	if !free() {
		testnet.Skip(t, "port 11211 of the example is in use")
	}
	cfg := quick()
	cfg.User = "nobody" // memcached refuses to run as root
	c := start(t, cfg)
	apps, err := ReadApps([]string{"../../examples"})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range apps {
		if a.ID == "/hello" {
			a.User = "root" // nobody cannot reach the test binary
		}
		if err := c.Deploy(a); err != nil {
			t.Error(err)
		}
	}
	healthy(t, c, "/memcached")
	healthy(t, c, "/hello")
	want := []AppStatus{
		{ID: "/docker-gpu-test", Wanted: 1, Blocked: true, Message: "needs 1 GPU, and this machine has none"},
		{ID: "/hello", Wanted: 3, Running: 3, Healthy: 3},
		{ID: "/memcached", Wanted: 1, Running: 1, Healthy: 1,
			Message: "a local process: image memcached not pulled, container/bridge network emulated in the host's"},
		{ID: "/nordicdatasummit", Wanted: 1, Blocked: true,
			Message: "needs the command of docker image laketide/nordicdata: images are not pulled here, only an app with a cmd of its own runs"},
	}
	if diff := cmp.Diff(want, c.Apps()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	conn, err := net.Dial("tcp", "127.0.0.1:11211")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "set waggle 0 0 5\r\ndance\r\nget waggle\r\n")
	r := bufio.NewReader(conn)
	for _, want := range []string{"STORED\r\n", "VALUE waggle 0 5\r\n", "dance\r\n", "END\r\n"} {
		if got, err := r.ReadString('\n'); err != nil || got != want {
			t.Errorf("memcached says %q (%v), want %q", got, err, want)
		}
	}
	for _, task := range c.Tasks() {
		if task.App == "/hello" {
			addr := netip.AddrPortFrom(cfg.AgentAddr, uint16(task.Ports[0]))
			want := fmt.Sprintf("hello from app /hello, task %s, at %s\n", task.ID, addr)
			if got := body(t, call(t, "GET", addr, "/any", "")); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}

func TestAPortInUseOnTheMachineFailsTheTaskWithThatReason(t *testing.T) {
	c := start(t, quick())
	w := follow(t, c.Masters()[0])
	port := itoa(listening(t))
	deploy(t, c, `{"id": "/a", "cmd": "sleep 100", "backoffSeconds": 3600, "maxLaunchDelaySeconds": 3600, "requirePorts": true, "portDefinitions": [{"port": `+port+`}]}`)
	w.next(t, "TASK_ADDED")
	reason := "ost port " + port + " cannot be used on this machine: address already in use"
	if msg := string(w.next(t, "TASK_UPDATED")); !strings.Contains(msg, `"TASK_FAILED","message":"H`+reason) {
		t.Errorf("got %s", msg)
	}
	until(t, c, "the app says why", func() bool {
		return strings.HasPrefix(c.Apps()[0].Message, "h"+reason+"; next start at ")
	})
}

func TestAFailingTaskShowsTheLastItSaid(t *testing.T) {
	c := start(t, quick())
	deploy(t, c, `{"id": "/a", "cmd": "echo first >&2; echo no such luck >&2; exit 7", "backoffSeconds": 3600, "maxLaunchDelaySeconds": 3600}`)
	until(t, c, "the app says why", func() bool {
		return strings.HasPrefix(c.Apps()[0].Message, "command exited with status 7: no such luck; next start at ")
	})
}

func TestBadSettingsAreRefused(t *testing.T) {
	busy := itoa(listening(t))
	tests := []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"no master", func(c *Config) { c.Masters = 0 }, "masters: 0"},
		{"no agent address", func(c *Config) { c.AgentAddr = netip.Addr{} }, "agent address"},
		{"ports the wrong way round", func(c *Config) { c.Ports = PortRange{2, 1} }, "ports: 2 to 1"},
		{"no heartbeat", func(c *Config) { c.Heartbeat = 0 }, "heartbeat"},
		{"an address in use", func(c *Config) { c.Listen = "127.0.0.1:" + busy }, "listen for master 0"},
		{"an address in use for Marathon", func(c *Config) { c.MarathonListen = "127.0.0.1:" + busy }, "listen for marathon"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := quick()
			tt.edit(&cfg)
			if _, err := New(cfg, zap.NewNop()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestAClusterThatIsNeverRunCanBeClosed(t *testing.T) {
	cfg := quick()
	cfg.Masters = 3
	c, err := New(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, m := range c.Masters() {
		if _, err := net.Dial("tcp", m.String()); err == nil {
			t.Errorf("%s still listens", m)
		}
	}
}

func TestHelloEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	said := make(chan string, 1)
	done := make(chan error, 1)
	go func() { done <- Hello(ctx, "127.0.0.1:0", 0, write(func(s string) { said <- s })) }()
	addr := netip.MustParseAddrPort(strings.TrimSpace(strings.TrimPrefix(<-said, "listening on ")))
	if resp := call(t, "GET", addr, "/health", ""); resp.StatusCode != 200 || body(t, resp) != "" {
		t.Errorf("health: %s", resp.Status)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on")
	}
	if err := Hello(t.Context(), "256.0.0.1:0", 0, write(func(string) {})); err == nil {
		t.Error("it listened on no address")
	}
}

type write func(string)

func (w write) Write(p []byte) (int, error) {
	w(string(p))
	return len(p), nil
}
