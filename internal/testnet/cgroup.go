package testnet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Cgroup makes a cgroup below the root of cgroup v2 that lasts as long as the
// test, and returns its path. What still runs in it then is moved to the root.
func Cgroup(tb testing.TB) string {
	tb.Helper()
	NeedRoot(tb)
	root, err := CgroupRoot()
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp(root, "waggle-test-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		// A thread or process that is just ending cannot be moved and keeps
		// the cgroup busy for a moment.
		deadline := time.Now().Add(5 * time.Second)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		err := removeCgroup(root, dir)
		for ; err != nil && time.Now().Before(deadline); err = removeCgroup(root, dir) {
			<-tick.C
		}
		if err != nil {
			tb.Errorf("remove cgroup: %v", err)
		}
	})
	return dir
}

// Enter moves the whole test process into a cgroup, and back to where it came
// from when the test ends.
func Enter(tb testing.TB, cgroup string) {
	tb.Helper()
	before, err := ownCgroup()
	if err != nil {
		tb.Fatal(err)
	}
	if err := moveSelf(cgroup); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := moveSelf(before); err != nil {
			tb.Error(err)
		}
	})
}

func moveSelf(cgroup string) error {
	return os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0)
}

func ownCgroup() (string, error) {
	root, err := CgroupRoot()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			return filepath.Join(root, strings.TrimSpace(rest)), nil
		}
	}
	return "", errors.New("not in a cgroup v2")
}

// CgroupRoot returns where cgroup v2 is mounted.
func CgroupRoot() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		for i, f := range fields {
			if f == "-" && i+1 < len(fields) && fields[i+1] == "cgroup2" {
				return fields[4], nil
			}
		}
	}
	return "", errors.New("cgroup v2 is not mounted")
}

// removeCgroup removes dir and all below it, deepest first, after moving out
// what still runs there.
func removeCgroup(root, dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		procs, _ := os.ReadFile(filepath.Join(dirs[i], "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(procs)) {
			// A process may end meanwhile; rmdir tells if one is left.
			_ = os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(pid), 0)
		}
		err = errors.Join(err, os.Remove(dirs[i]))
	}
	return err
}
