// Package feature lists what balancers can do, with a proof of each point: the
// tests of every balancer try all of them, and the table in docs/balancers.md
// says the same or a test fails. For tests only; it knows no balancer.
package feature

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
	"waggle/lb"
)

// Column is a balancer on a kernel, one column of the table.
type Column int

// The columns of the table.
const (
	EBPF    Column = iota // on kernels newer than 6.1
	EBPF61                // on Linux 6.1
	IPVS                  // on Linux 6.1
	Nothing               // no balancer
	columns
)

// String is the head of the column.
func (c Column) String() string {
	return [columns]string{"eBPF", "eBPF on Linux 6.1", "IPVS", "none"}[c]
}

// EBPFHere returns the column of eBPF on the kernel that runs.
func EBPFHere(tb testing.TB) Column {
	tb.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		tb.Fatal(err)
	}
	if strings.HasPrefix(unix.ByteSliceToString(u.Release[:]), "6.1.") {
		return EBPF61
	}
	return EBPF
}

// Bed is a balancer to prove something of, in a namespace of its own.
type Bed struct {
	// Open opens the balancer, anew after it was closed, as a daemon that
	// restarts does. It is closed by the one who opened it.
	Open func(tb testing.TB) lb.Dataplane
	// Damage takes away from the kernel what the balancer made there. Nil where
	// it makes nothing.
	Damage func(tb testing.TB)
	// Cgroup is that of the processes that are balanced, one that the test
	// process is in. Empty means that cgroups do not matter.
	Cgroup string
}

// Setting is what a Bed is made in.
type Setting struct {
	Node       *testnet.Namespace // the machine's
	Containers string             // the folder in which containers are registered
}

// feature is a row of the table.
type feature struct {
	name  string
	works []Column
	prove func(w *world) error // nil if it works
}

// Prove tries every feature with a new Bed each, and fails where the table says
// something else.
func Prove(t *testing.T, c Column, bed func(tb testing.TB, s Setting) Bed) {
	t.Helper()
	for _, f := range features() {
		t.Run(f.name, func(t *testing.T) {
			wait := impatience
			if f.in(c) {
				wait = patience
			}
			err := f.prove(newWorld(t, bed, wait))
			if f.in(c) && err != nil {
				t.Errorf("%s cannot: %v", c, err)
			}
			if !f.in(c) && err == nil {
				t.Errorf("%s can, which the table does not say", c)
			}
		})
	}
}

func (f feature) in(c Column) bool {
	for _, w := range f.works {
		if w == c {
			return true
		}
	}
	return false
}

// table returns the table in Markdown.
func table() string {
	var out strings.Builder
	out.WriteString("| |")
	for c := range columns {
		fmt.Fprintf(&out, " %s |", c)
	}
	out.WriteString("\n| --- |" + strings.Repeat(" --- |", int(columns)) + "\n")
	for _, f := range features() {
		fmt.Fprintf(&out, "| %s |", f.name)
		for c := range columns {
			if f.in(c) {
				out.WriteString(" yes |")
			} else {
				out.WriteString(" - |")
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}
