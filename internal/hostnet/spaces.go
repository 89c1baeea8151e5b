package hostnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// inEverySpace runs f on a thread in each network namespace that a process is
// in or that is mounted somewhere, once each. What fails in one does not keep f
// from the others. A namespace that ended meanwhile is no failure.
func inEverySpace(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with us
		var errs []error
		for _, path := range spaces() {
			errs = append(errs, enter(path, f))
		}
		done <- errors.Join(errs...)
	}()
	return <-done
}

func enter(path string, f func() error) error {
	file, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return nil
		}
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return f()
}

// spaces returns one path to each network namespace.
func spaces() []string {
	seen := map[string]bool{}
	var out []string
	add := func(id, path string) {
		if strings.HasPrefix(id, "net:[") && !seen[id] {
			seen[id] = true
			out = append(out, path)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, p := range procs {
		id, err := os.Readlink(p)
		if err == nil { // else the process has ended
			add(id, p)
		}
	}
	// Fields of a line: id, parent, device, root, mount point; the root of a
	// namespace's mount is its name.
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			add(fields[3], fields[4])
		}
	}
	return out
}
