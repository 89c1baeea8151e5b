// Guest is the first process of a machine made by vmtest: it mounts what
// programs expect, loads the modules, runs the programs of its script one after
// another and powers the machine off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"waggle/internal/vmtest/guest/script"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: only a machine made by vmtest has use for this")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Println("guest:", err)
	} else {
		fmt.Println(script.Mark + "done")
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	text, err := os.ReadFile(script.Path)
	if err != nil {
		return err
	}
	var s script.Script
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	if err := mounts(s.Hide); err != nil {
		return err
	}
	for _, m := range s.Modules {
		if err := load(m); err != nil {
			return fmt.Errorf("load %s: %w", m, err)
		}
	}
	if exit := execute(script.Run{Path: "/bin/ip", Args: []string{"link", "set", "lo", "up"}, Timeout: time.Minute}); exit != 0 {
		return fmt.Errorf("bring lo up: exit code %d", exit)
	}
	for _, r := range s.Runs {
		fmt.Printf("\n%srun %s\n", script.Mark, r.Name)
		fmt.Printf("\n%send %s %d\n", script.Mark, r.Name, execute(r))
	}
	return nil
}

// mounts makes the file systems that a Linux system has.
func mounts(hide []string) error {
	type mount struct{ source, target, fstype, data, hidden string }
	for _, m := range []mount{
		{"proc", "/proc", "proc", "", ""},
		{"sysfs", "/sys", "sysfs", "", ""},
		{"devtmpfs", "/dev", "devtmpfs", "", ""},
		{"devpts", "/dev/pts", "devpts", "", ""},
		{"tmpfs", "/dev/shm", "tmpfs", "", ""},
		{"tmpfs", "/run", "tmpfs", "", ""},
		{"tmpfs", "/tmp", "tmpfs", "", ""},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", "", "cgroup2"},
		{"bpf", "/sys/fs/bpf", "bpf", "mode=0700", "bpffs"},
		{"tracefs", "/sys/kernel/tracing", "tracefs", "", ""},
	} {
		if m.hidden != "" && slices.Contains(hide, m.hidden) {
			continue
		}
		// What is below /sys is there already or cannot be made.
		if err := os.MkdirAll(m.target, 0o755); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fstype, 0, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if slices.Contains(hide, "btf") {
		if err := unix.Mount("tmpfs", "/sys/kernel/btf", "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("hide BTF: %w", err)
		}
	}
	return errors.Join(
		os.MkdirAll("/run/netns", 0o755), os.MkdirAll("/var", 0o755), os.MkdirAll("/root", 0o700), os.MkdirAll("/etc", 0o755),
		os.Symlink("/run", "/var/run"), os.Symlink("/proc/self/fd", "/dev/fd"),
		os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost\n"), 0o644),
		os.WriteFile("/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"), 0o644),
	)
}

// load loads one module; one that is there already is as good.
func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// execute runs r and returns its exit code. As the first process it also waits
// for all that is left behind by others.
func execute(r script.Run) int {
	pid, err := syscall.ForkExec(r.Path, append([]string{r.Path}, r.Args...), &syscall.ProcAttr{
		Dir:   "/tmp",
		Env:   append([]string{"PATH=/bin:/sbin", "HOME=/root", "TMPDIR=/tmp"}, r.Env...),
		Files: []uintptr{0, 1, 1},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		fmt.Println("guest: run", r.Path, err)
		return 127
	}
	late := time.AfterFunc(r.Timeout, func() {
		fmt.Println("guest: out of time:", r.Name)
		_ = syscall.Kill(-pid, syscall.SIGQUIT) // a Go program shows where it was
		time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(-pid, syscall.SIGKILL) })
	})
	defer late.Stop()
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 126
		case got == pid && status.Signaled():
			return 128 + int(status.Signal())
		case got == pid:
			return status.ExitStatus()
		}
	}
}
