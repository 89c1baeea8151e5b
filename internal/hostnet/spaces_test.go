package hostnet_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"waggle/internal/hostnet"
	"waggle/internal/testnet"
)

// spaceEnv, when set, makes the test binary the process of
// TestTheOwnNamespaceIsNeverMissed.
const spaceEnv = "WAGGLE_HOSTNET_TEST_SPACE"

// visitSpaces returns an error unless each of many passes gets to the process's own
// namespace. Its goroutine waits on the first thread, which then runs the next one.
func visitSpaces() error {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	for pass := range 20 {
		found := 0
		err := hostnet.InEverySpace(func() error {
			if at, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || at != own {
				return err
			}
			found++
			return nil
		})
		if err != nil || found != 1 {
			return fmt.Errorf("pass %d: was in the own namespace %d times, want 1: %v", pass, found, err)
		}
		if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != own {
			return fmt.Errorf("pass %d: the process is shown in %s, not %s: %v", pass, now, own, err)
		}
	}
	return nil
}

// A process that is alone in its namespace stands for it; where its first thread
// goes elsewhere, nobody does.
func TestTheOwnNamespaceIsNeverMissed(t *testing.T) {
	ns := testnet.New(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), spaceEnv+"=1")
	cmd.Stderr = os.Stderr
	ns.Must(t, cmd.Start)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
