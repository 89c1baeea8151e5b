package devcluster

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/model"
)

// listening returns a port that somebody else on this machine uses.
func listening(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestAssign(t *testing.T) {
	tcp, both := []model.Proto{model.TCP}, []model.Proto{model.TCP, model.UDP}
	busy := listening(t)
	one := PortRange{31999, 31999}
	tests := []struct {
		name  string
		specs []portSpec
		in    PortRange
		taken map[int]string
		want  []int
		err   string
		waits bool
	}{
		{name: "no ports", in: one, want: []int{}},
		{name: "a fixed port and the only free one", specs: []portSpec{{want: 32001, protocols: both}, {protocols: both}}, in: one, want: []int{32001, 31999}},
		{name: "a fixed port of another task is waited for", specs: []portSpec{{want: 32001, protocols: tcp}}, in: one,
			taken: map[int]string{32001: "web.1"}, err: "host port 32001 is in use by another task: web.1", waits: true},
		{name: "a fixed port of somebody else is told", specs: []portSpec{{want: busy, protocols: tcp}}, in: one,
			want: []int{busy}, err: "host port " + strconv.Itoa(busy) + " cannot be used on this machine: address already in use"},
		{name: "no port free", specs: []portSpec{{protocols: tcp}, {protocols: tcp}}, in: one, err: "every port from 31999 to 31999 is in use by another task", waits: true},
		{name: "what is in use is passed over", specs: []portSpec{{protocols: tcp}}, in: PortRange{31998, 31999}, taken: map[int]string{31998: "x"}, want: []int{31999}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := assign(tt.specs, tt.in, tt.taken)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			if errors.Is(err, errPortTaken) != tt.waits {
				t.Errorf("got error %v, to be waited for: %v", err, tt.waits)
			}
		})
	}
}

func TestTheEnvironmentOfATask(t *testing.T) {
	t.Setenv("PATH", "/bin")
	a := parse(t, `{"id": "/a", "cmd": "x", "env": {"MODE": "test"}, "portDefinitions": [{"name": "http-alt"}, {}]}`)
	c := &Cluster{cfg: Config{AgentAddr: netip.MustParseAddr("127.0.0.1")}, executable: "/usr/bin/waggle"}
	got := c.environ(&task{id: "a.1", app: &a, ports: []int{31001, 31002}, sandbox: "/tmp/a.1"})
	want := []string{
		"HOME=/tmp/a.1", "HOST=127.0.0.1", "MARATHON_APP_ID=/a", "MESOS_SANDBOX=/tmp/a.1", "MESOS_TASK_ID=a.1", "MODE=test", "PATH=/bin",
		"PORT=31001", "PORT0=31001", "PORT1=31002", "PORTS=31001,31002", "PORT_HTTP_ALT=31001", "WAGGLE=/usr/bin/waggle",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhyAnAppCannotRunHere(t *testing.T) {
	tests := []struct{ name, app, want string }{
		{"a shell command", `"cmd": "while true; do sleep 1; done"`, ""},
		{"a program after exec and a variable", `"cmd": "exec A=b sleep 1"`, ""},
		{"a program only the shell can tell", `"cmd": "\"$WAGGLE\" dev hello"`, ""},
		{"a program with a path", `"cmd": "/bin/sh -c true"`, ""},
		{"an argument vector", `"args": ["sleep", "1"]`, ""},
		{"a local program although there is an image", `"cmd": "sleep 1", "container": {"docker": {"image": "busybox"}}`, ""},
		{"a program that is not here", `"cmd": "no-such-program -v"`, "needs the program no-such-program, which this machine does not have"},
		{"an argument vector that is not here", `"args": ["no-such-program"]`, "needs the program no-such-program, which this machine does not have"},
		{"an image's program", `"cmd": "no-such-program", "container": {"docker": {"image": "busybox"}}`,
			"needs the program no-such-program, which this machine does not have (docker image busybox is not pulled)"},
		{"an image's own command", `"container": {"docker": {"image": "laketide/nordicdata"}}`,
			"needs the command of docker image laketide/nordicdata: images are not pulled here, only an app with a cmd of its own runs"},
		{"a GPU", `"cmd": "sleep 1", "gpus": 1`, "needs 1 GPU, and this machine has none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := parse(t, `{"id": "/a", `+tt.app+`}`)
			if got := obstacleHere(&a); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
