package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waggle/internal/vmtest"
)

// TestBalancersInOneMachine is run by `make bench-vm`: it boots a machine with
// Debian's kernel and compares eBPF, IPVS and direct connections there, in
// turn. Software emulation is slow and has no caches: only ratios mean something.
func TestBalancersInOneMachine(t *testing.T) {
	rounds := os.Getenv("BENCH_ROUNDS")
	if rounds == "" {
		t.Skip("takes minutes and both CPUs: make bench-vm")
	}
	m := vmtest.New(t)
	dir := t.TempDir()
	bin := filepath.Join(dir, "bench.test")
	if err := vmtest.BuildTest(t.Context(), bin, "waggle/bench"); err != nil {
		t.Fatal(err)
	}
	m.Runs = []vmtest.Run{{
		Name: "balancers", Path: bin, Timeout: 15 * time.Minute,
		Args: []string{"-test.v", "-test.timeout=15m", "-test.run=^TestBalancersSideBySide$"},
		Env:  []string{"BENCH_ROUNDS=" + rounds},
	}}
	results, err := m.Boot(t.Context(), dir, vmtest.Log())
	r := results["balancers"]
	if err != nil || r.Exit != 0 || !strings.Contains(r.Output, "--- PASS: TestBalancersSideBySide") {
		t.Fatalf("exit code %d, %v:\n%s", r.Exit, err, r.Output)
	}
	fmt.Println("Linux", m.Kernel.Release)
}
