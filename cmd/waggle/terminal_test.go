package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waggle/api"
	"waggle/internal/testnet"
	"waggle/model"
)

// onTerminal runs the program with a terminal as its output, and returns what a
// person would be shown.
func onTerminal(t *testing.T, env string, args ...string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testnet.Skip(t, "no terminal to be had: "+err.Error())
	}
	defer master.Close()
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary(t), args...)
	cmd.Stdout, cmd.Stderr = slave, slave
	cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=", env)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var said bytes.Buffer
	_, _ = io.Copy(&said, master) // ends with EIO when nobody has the other end any more
	_ = cmd.Wait()                // what it exits with is not of interest
	return said.String()
}

func TestColoursAreForTerminalsOnly(t *testing.T) {
	n := newNode(t)
	n.forwarding(t)
	status := []string{"status", "--socket", n.socket()}
	if st := n.status(t); st.Balancer.Kind != "none" || strings.Contains(strings.Join(st.Reasons, " "), "balancing") {
		t.Errorf("no balancing, as it is wanted, is taken for wrong: %q", st.Reasons)
	}
	if got := onTerminal(t, "", status...); !strings.Contains(got, green+"ready"+plain) && !strings.Contains(got, yellow+"ready, but") {
		t.Errorf("on a terminal: %q", got)
	}
	for what, env := range map[string]string{"with NO_COLOR": "NO_COLOR=1", "on a dumb terminal": "TERM=dumb"} {
		if got := onTerminal(t, env, status...); strings.Contains(got, "\x1b") || !strings.Contains(got, "ready") {
			t.Errorf("%s: %q", what, got)
		}
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(binary(t), status...)
	cmd.Stdout, cmd.Env = out, append(os.Environ(), "TERM=xterm", "NO_COLOR=")
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(out.Name()); err != nil || bytes.Contains(text, []byte("\x1b")) || !bytes.Contains(text, []byte("ready")) {
		t.Errorf("in a file: %q %v", text, err)
	}
}

func TestTheStatusSaysWhatIsWrongAndWhomToAsk(t *testing.T) {
	list := []model.Problem{{Task: "web.1", Field: "VIP_0", Value: "/web:x", Error: "no port"}, {Task: "web.2", Field: "VIP_0", Value: "/web:x", Error: "no port"}}
	for i := range 6 {
		list = append(list, model.Problem{Task: fmt.Sprintf("job.%d", i), Field: "VIP_1", Value: fmt.Sprint(i), Error: "odd"})
	}
	var b strings.Builder
	st := api.Status{Version: "1", Ready: true, Reasons: []string{"no master\nanswers"}, Counts: api.Counts{Problems: len(list)}}
	if err := statusTable(&b, st, list, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"waggle           ready, but one thing is wrong, version 1\n",
		"problems         8\n                 VIP_0 \"/web:x\": no port (2 times)\n                   waggle explain web.1\n",
		"waggle explain job.3\n                 and 2 more: /v2/problems\n",
		"!                no master; answers\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, b.String())
		}
	}
}
