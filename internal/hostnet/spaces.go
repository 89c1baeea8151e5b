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

// errEnded is what OnThread returns of a function that ends its goroutine.
var errEnded = errors.New("ended by runtime.Goexit: a test's Fatal is for the test's own goroutine")

// OnThread runs f on a thread of its own, which ends with f: one that has changed
// its namespace is no use to others. It is never the process's first thread, which
// would not end, and which /proc shows as the whole process. A f that ends its
// goroutine is an error.
func OnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread() // meanwhile f cannot get here
			done <- OnThread(f)
			return
		}
		err := errEnded
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}

// InEverySpace runs f on a thread in each network namespace that a process is
// in or that is mounted somewhere, once each. What fails in one does not keep f
// from the others. A namespace that ended meanwhile is no failure.
func InEverySpace(f func() error) error {
	return OnThread(func() error {
		var errs []error
		done := map[string]bool{}
		// Whoever stood for a namespace may have ended while others are in it still.
		for range 3 {
			missed := false
			for id, path := range spaces() {
				if done[id] {
					continue
				}
				found, err := enter(path, id, f)
				errs = append(errs, err)
				done[id] = found || err != nil
				missed = missed || !done[id]
			}
			if !missed {
				break
			}
		}
		return errors.Join(errs...)
	})
}

// enter runs f in the namespace that path leads to, and reports whether that is
// the one with that id.
func enter(path, id string, f func() error) (found bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return false, nil
		}
		return false, fmt.Errorf("open network namespace: %w", err)
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return false, fmt.Errorf("look at network namespace %s: %w", path, err)
	}
	if fmt.Sprintf("net:[%d]", st.Ino) != id {
		return false, nil
	}
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return false, fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return true, f()
}

// spaces returns one path to each network namespace, by what the kernel calls it.
func spaces() map[string]string {
	out := map[string]string{}
	add := func(id, path string) {
		if strings.HasPrefix(id, "net:[") && out[id] == "" {
			out[id] = path
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
