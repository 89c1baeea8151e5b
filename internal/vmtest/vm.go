package vmtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"waggle/internal/vmtest/guest/script"
)

// Run is one program to run in the machine.
type Run struct {
	Name string   // unique, without blanks
	Path string   // of a statically linked program
	Args []string // without the program's name
	Env  []string // KEY=value, beside PATH, HOME and TMPDIR
	// Timeout ends the program; the runs after it go on. Zero is five minutes.
	Timeout time.Duration
}

// Machine says what to boot.
type Machine struct {
	Kernel  Kernel
	Modules []string // names of modules; what they need comes with them
	// Append is added to the kernel's command line.
	Append string
	// Hide are what the machine is to do without: "bpffs", "cgroup2", "btf".
	Hide []string
	// Files are put into the machine, by where they are put.
	Files map[string]string
	Runs  []Run
}

// Result is what became of one Run.
type Result struct {
	Exit   int // -1 if it never ended
	Output string
}

// memory of the machine in MiB, and its processors. Tests of this project need
// less than half of it.
const (
	memory     = 2048
	processors = 2
)

// Boot boots the machine in dir, which must be empty, runs what there is to run
// and powers it off. It returns the results by name. What the machine says goes
// to log as well, as it comes. An error says that the machine itself failed.
func (m Machine) Boot(ctx context.Context, dir string, log io.Writer) (map[string]Result, error) {
	initrd := filepath.Join(dir, "initrd")
	if err := m.pack(ctx, dir, initrd); err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", fmt.Sprint(processors), "-m", fmt.Sprint(memory),
		"-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-no-reboot",
		"-kernel", m.Kernel.Image, "-initrd", initrd,
		"-append", "console=ttyS0 panic=-1 quiet mitigations=off "+m.Append)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the machine: %w", err)
	}
	results, done := read(io.TeeReader(out, log))
	if err := cmd.Wait(); err != nil {
		return results, fmt.Errorf("the machine: %w: %s", err, stderr.String())
	}
	if !done {
		return results, fmt.Errorf("the machine ended before its first process had: %s", stderr.String())
	}
	return results, nil
}

// pack writes the initramfs.
func (m Machine) pack(ctx context.Context, dir, initrd string) error {
	first := filepath.Join(dir, "init")
	if err := Build(ctx, first, "waggle/internal/vmtest/guest"); err != nil {
		return err
	}
	f, err := os.Create(initrd)
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := newArchive(f)
	if err != nil {
		return err
	}
	if err := a.add("init", first, 0o755); err != nil {
		return err
	}
	s := script.Script{Hide: m.Hide}
	modules, err := m.Kernel.order(m.Modules)
	if err != nil {
		return err
	}
	for _, mod := range modules {
		s.Modules = append(s.Modules, "/modules/"+filepath.Base(mod))
		if err := a.add(s.Modules[len(s.Modules)-1], mod, 0o644); err != nil {
			return err
		}
	}
	if err := m.busybox(a); err != nil {
		return err
	}
	for to, from := range m.Files {
		if err := a.add(to, from, 0o755); err != nil {
			return err
		}
	}
	programs := map[string]bool{}
	for _, r := range m.Runs {
		at := "/bin/" + filepath.Base(r.Path)
		if r.Timeout == 0 {
			r.Timeout = 5 * time.Minute
		}
		s.Runs = append(s.Runs, script.Run{Name: r.Name, Path: at, Args: r.Args, Env: r.Env, Timeout: r.Timeout})
		if programs[at] {
			continue
		}
		programs[at] = true
		if err := a.add(at, r.Path, 0o755); err != nil {
			return err
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := a.text(script.Path, string(text)); err != nil {
		return err
	}
	return a.close()
}

// busybox adds the commands that tests run.
func (m Machine) busybox(a *archive) error {
	const from = "/bin/busybox" // of Debian's busybox-static
	if err := a.add("/bin/busybox", from, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"sh", "sleep", "cat", "true", "false", "ping", "ip", "nc", "mount", "ls", "dmesg", "awk", "grep", "wget", "kill", "echo", "seq"} {
		if err := a.link("/bin/"+name, "busybox"); err != nil {
			return err
		}
	}
	return nil
}

// read takes the results from what the machine says, and whether its first
// process came to its end.
func read(r io.Reader) (results map[string]Result, done bool) {
	results = map[string]Result{}
	name, output := "", &strings.Builder{}
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		text := strings.TrimRight(line, "\r\n")
		// The kernel may have said something without an end of line before.
		if i := strings.Index(text, script.Mark); i >= 0 {
			output.WriteString(text[:i])
			fields := strings.Fields(text[i+len(script.Mark):])
			switch {
			case len(fields) == 2 && fields[0] == "run":
				name = fields[1]
				output.Reset()
				results[name] = Result{Exit: -1}
			case len(fields) == 3 && fields[0] == "end":
				exit := -1
				_, _ = fmt.Sscan(fields[2], &exit) // which stays -1
				results[fields[1]] = Result{Exit: exit, Output: output.String()}
				name = ""
			case len(fields) == 1 && fields[0] == "done":
				done = true
			}
		} else if text != "" {
			output.WriteString(text + "\n")
		}
		if err != nil {
			if name != "" {
				results[name] = Result{Exit: -1, Output: output.String()}
			}
			return results, done
		}
	}
}

// Build builds a program of this module, statically linked, at to.
func Build(ctx context.Context, to, pkg string) error {
	return compile(ctx, "build", "-trimpath", "-ldflags=-s -w", "-o", to, pkg)
}

// Tag is the build tag of tests that can only run in a machine.
const Tag = "vmtest"

// BuildTest builds the test binary of a package of this module at to.
func BuildTest(ctx context.Context, to, pkg string) error {
	return compile(ctx, "test", "-c", "-tags", Tag, "-trimpath", "-ldflags=-s -w", "-o", to, pkg)
}

func compile(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
