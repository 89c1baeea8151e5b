package hostnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// InEverySpace runs f on a thread in each network namespace that a process is
// in or that is mounted somewhere, once each. What fails in one does not keep f
// from the others. A namespace that ended meanwhile is no failure.
func InEverySpace(f func() error) error {
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
	// Not by filepath.Glob, which looks at each file three times.
	for _, name := range names("/proc") {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		p := "/proc/" + name + "/ns/net"
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

// names returns what is in a folder, in no order.
func names(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	list, _ := f.Readdirnames(-1) // what it has read so far counts
	return list
}
