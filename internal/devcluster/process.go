package devcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// command is a process to run.
type command struct {
	argv  []string
	dir   string // its working folder, made if need be and owned by user
	env   []string
	user  string        // for root only
	grace time.Duration // between SIGTERM and SIGKILL
	quiet bool          // no stdout and stderr in dir
}

// shell is how Mesos runs a cmd.
func shell(cmd string) []string { return []string{"/bin/sh", "-c", cmd} }

// runFunc runs a command, calls started with its process id, and returns when
// it and all that it started have ended: nil after exit status 0. When ctx ends
// it stops them.
type runFunc func(ctx context.Context, c command, started func(pid int)) error

// spawner runs processes, each leading a session of its own, that outlive
// neither their task nor us, even if we are killed with SIGKILL: the kernel
// sends SIGKILL to the first process of each, and a watchdog to the rest of
// its group.
type spawner struct {
	starts   chan func()
	stopped  chan struct{}
	watchdog *exec.Cmd
	lifeline *os.File // its end of file tells the watchdog that we are gone
}

// watchdogScript reads "+ GROUP" and "- GROUP" until its input ends, and then
// kills the groups that are left.
const watchdogScript = `
groups=' '
while read -r sign group; do
	case $sign in
	+) groups="$groups$group " ;;
	-) groups="${groups%% $group *} ${groups#* $group }" ;;
	esac
done
for group in $groups; do kill -KILL "-$group"; done 2>/dev/null
exit 0`

func newSpawner() (*spawner, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe for the watchdog: %w", err)
	}
	defer r.Close()
	dog := exec.Command("/bin/sh", "-c", watchdogScript)
	dog.Stdin = r
	dog.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	if err := dog.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the watchdog: %w", err), w.Close())
	}
	s := &spawner{starts: make(chan func()), stopped: make(chan struct{}), watchdog: dog, lifeline: w}
	go s.thread()
	return s, nil
}

// thread starts all processes: the kernel's parent-death signal is tied to the
// thread that forked, so that this one must live as long as they do.
func (s *spawner) thread() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.stopped)
	for start := range s.starts {
		start()
	}
}

// close ends the spawner; no run may be under way.
func (s *spawner) close() error {
	close(s.starts)
	<-s.stopped
	if err := errors.Join(s.lifeline.Close(), s.watchdog.Wait()); err != nil {
		return fmt.Errorf("end the watchdog: %w", err)
	}
	return nil
}

func (s *spawner) run(ctx context.Context, c command, started func(pid int)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	cmd, err := c.prepare()
	if err != nil {
		return err
	}
	result := make(chan error)
	s.starts <- func() { result <- cmd.Start() }
	err = errors.Join(<-result, closeOutput(cmd))
	if err != nil {
		return fmt.Errorf("start %s: %w", c.argv[0], err)
	}
	group := cmd.Process.Pid
	fmt.Fprintf(s.lifeline, "+ %d\n", group)
	defer fmt.Fprintf(s.lifeline, "- %d\n", group)
	started(group)

	go func() { result <- cmd.Wait() }()
	select {
	case err = <-result:
	case <-ctx.Done():
		err = terminate(group, c.grace, result)
	}
	clearGroup(group, c.grace)
	return outcome(err)
}

// terminate asks a group to end and makes it; the first process's end is what
// result tells.
func terminate(group int, grace time.Duration, result <-chan error) error {
	_ = unix.Kill(-group, unix.SIGTERM) // gone already: result tells
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
	}
	_ = unix.Kill(-group, unix.SIGKILL)
	return <-result
}

// clearGroup ends what the first process of a group left behind: politely
// first, then with SIGKILL.
func clearGroup(group int, grace time.Duration) {
	for _, step := range []struct {
		signal unix.Signal
		within time.Duration
	}{{unix.SIGTERM, grace}, {unix.SIGKILL, time.Second}} {
		if !groupAlive(group) {
			return
		}
		_ = unix.Kill(-group, step.signal) // gone meanwhile: good
		waitFor(step.within, func() bool { return !groupAlive(group) })
	}
}

// waitFor polls cond for at most limit.
func waitFor(limit time.Duration, cond func() bool) {
	ticker, end := time.NewTicker(10*time.Millisecond), time.NewTimer(limit)
	defer ticker.Stop()
	defer end.Stop()
	for !cond() {
		select {
		case <-ticker.C:
		case <-end.C:
			return
		}
	}
}

// groupAlive reports whether a group has a process that is no zombie. Zombies
// of processes we did not start ourselves are for the machine's first process
// to bury, and in containers that may well never do.
func groupAlive(group int) bool {
	if unix.Kill(-group, 0) != nil {
		return false
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has just gone
		}
		// After the name in parentheses: state, parent, group.
		f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if len(f) > 2 && f[2] == strconv.Itoa(group) && f[0] != "Z" && f[0] != "X" {
			return true
		}
	}
	return false
}

// outcome says how a process ended in the words of Mesos, for the reader of a
// status message.
func outcome(err error) error {
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) {
		return err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Errorf("command terminated with signal %s", capitalised(errors.New(ws.Signal().String())))
	}
	return fmt.Errorf("command exited with status %d", exit.ExitCode())
}

// prepare makes the sandbox and everything else up to the start.
func (c command) prepare() (*exec.Cmd, error) {
	cmd := exec.Command(c.argv[0], c.argv[1:]...)
	cmd.Dir, cmd.Env = c.dir, c.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	if os.Geteuid() == 0 {
		cred, err := credential(c.user)
		if err != nil {
			return nil, err
		}
		cmd.SysProcAttr.Credential = cred
		if err := os.Chown(c.dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return nil, fmt.Errorf("give sandbox to %s: %w", c.user, err)
		}
	}
	if c.quiet {
		return cmd, nil
	}
	stdout, err := os.Create(filepath.Join(c.dir, "stdout"))
	if err != nil {
		return nil, err
	}
	stderr, err := os.Create(filepath.Join(c.dir, "stderr"))
	if err != nil {
		return nil, errors.Join(err, stdout.Close())
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, nil
}

// closeOutput closes our copies of the files a process writes to.
func closeOutput(cmd *exec.Cmd) error {
	var errs []error
	for _, w := range []any{cmd.Stdout, cmd.Stderr} {
		if f, ok := w.(*os.File); ok {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("run as %s: %w", name, err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("run as %s: %w", name, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// lastLine returns the last line of a file that is not empty, at most 200
// bytes of it; empty if there is none.
func lastLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(string(data[max(0, len(data)-4096):]))
	line := text[strings.LastIndexByte(text, '\n')+1:]
	return line[:min(len(line), 200)]
}
