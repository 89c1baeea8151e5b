package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// env is everything a verb may touch of the process it runs in, so that tests
// drive the real verbs.
type env struct {
	args           []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// The exit codes that scripts may rely on.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotReady = 3 // waggle status: the daemon runs but is not ready
)

// exitError ends the process with a code of its own.
type exitError struct {
	code int
	err  error
}

// Error is that of the cause: the code is not for people.
func (e *exitError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *exitError) Unwrap() error { return e.err }

// run executes one command line and returns its exit code.
func run(ctx context.Context, e env) int {
	root := newRoot(e)
	root.SetArgs(e.args)
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	err := root.ExecuteContext(ctx)
	var coded *exitError
	switch {
	case cancelled(err):
		return exitOK
	case errors.As(err, &coded):
		fmt.Fprintln(e.stderr, "waggle:", err)
		return coded.code
	default:
		fmt.Fprintln(e.stderr, "waggle:", err)
		return exitFailed
	}
}

// cancelled reports whether err says no more than that the verb was told to
// end. What went wrong on the way out is joined to that, and must be seen.
func cancelled(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(part error) bool { return !cancelled(part) })
	}
	return err == nil || errors.Is(err, context.Canceled)
}

func newRoot(e env) *cobra.Command {
	root := &cobra.Command{
		Use:           "waggle",
		Short:         "DNS and virtual IPs for what runs on Mesos and Marathon",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	root.AddCommand(
		newRun(e), newDev(e), newRender(e),
		newStatus(e), newVIPs(e), newRecords(e), newResolve(e), newExplain(e), newDiff(e),
		newCheckConfig(e), newResolvConf(e), newUnload(e), newVersion(e), newApp(e),
		newSelfTest(e), newGenerate(e),
	)
	return root
}

// usageArgs makes a wrong number of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &exitError{exitUsage, err}
		}
		return nil
	}
}

// patience bounds what a verb waits for a daemon that runs but does not answer.
const patience = 10 * time.Second
