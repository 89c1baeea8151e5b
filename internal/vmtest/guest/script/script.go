// Package script is what the tests on the outside and the first process in the
// machine tell each other.
package script

import "time"

// Path is where the first process finds its Script.
const Path = "/script.json"

// Mark starts the lines that the first process writes for the outside: "run
// NAME", "end NAME EXIT", "done".
const Mark = "@@vmtest "

// Script is what the first process does.
type Script struct {
	Modules []string // files, in the order in which to load them
	Hide    []string // what not to mount: "bpffs", "cgroup2", "btf"
	Runs    []Run
}

// Run is one program to run.
type Run struct {
	Name    string
	Path    string
	Args    []string
	Env     []string
	Timeout time.Duration
}
