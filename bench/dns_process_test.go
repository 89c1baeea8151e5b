package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The CPUs that servers and clients are pinned to.
const clientCPU, serverCPU = 0, 1

// tree returns pid and all processes below it.
func tree(pid int) []int {
	out := []int{pid}
	for i := 0; i < len(out); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", out[i]))
		for _, l := range lists {
			text, _ := os.ReadFile(l) // a thread may be gone
			for word := range bytes.FieldsSeq(text) {
				if child, err := strconv.Atoi(string(word)); err == nil {
					out = append(out, child)
				}
			}
		}
	}
	return out
}

// cpuOfTree returns the CPU time that a process and those below it have used,
// from the scheduler's account of each thread.
func cpuOfTree(pid int) (sum time.Duration) {
	for _, p := range tree(pid) {
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p))
		for _, path := range stats {
			text, _ := os.ReadFile(path)
			if ns, err := strconv.ParseInt(string(bytes.SplitN(text, []byte(" "), 2)[0]), 10, 64); err == nil {
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}

// memoryOfTree returns the proportional set size of a process and those below
// it, in MB.
func memoryOfTree(pid int) (sum float64) {
	for _, p := range tree(pid) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
				kb, _ := strconv.ParseFloat(f[1], 64)
				sum += kb / 1024
			}
		}
	}
	return sum
}

// pin puts every thread of a process and those below it on one CPU and before
// all others: by nice, and by its session's share, without which nice counts
// within the session only. It is done again before each measurement, because
// Knot chooses CPUs itself.
func pin(pid, cpu int) {
	var set unix.CPUSet
	set.Set(cpu)
	for _, p := range tree(pid) {
		// Without root the figures are noisier, and that is all.
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", p), []byte("-20"), 0)
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p))
		for _, path := range threads {
			if tid, err := strconv.Atoi(filepath.Base(path)); err == nil {
				_ = unix.SchedSetaffinity(tid, &set)
				_ = unix.Setpriority(unix.PRIO_PROCESS, tid, -20)
			}
		}
	}
}
