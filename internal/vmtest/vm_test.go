package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"waggle/internal/testnet"
)

// suites are the packages whose tests run on the old kernel, with the minutes
// they may take there: software emulation is ten times slower. The last one
// locks the kernel down.
var suites = []struct {
	pkg, run string
	minutes  int
}{
	{"internal/testnet", ".", 2}, {"internal/hostnet", ".", 2}, {"internal/capability", ".", 1}, {"ebpf", ".", 8}, {"lb/ipvs", ".", 5}, {"ebpf/answers", "^TestAPacket", 1},
	{"cmd/waggle", "^TestKernelsThatLack", 4},
}

// TestSuitesOnTheOldestKernelWeServe runs whole suites, with the very eBPF
// objects that are shipped, on Linux 6.1.
func TestSuitesOnTheOldestKernelWeServe(t *testing.T) {
	m := New(t)
	dir := t.TempDir()
	cases := filepath.Join("..", "..", "..", "shared", "conformance", "dcos-net.json")
	without := "none"
	if _, err := os.Stat(cases); err == nil {
		m.Files = map[string]string{"/dcos-net.json": cases}
	} else {
		without = "OfDCOS" // those that read it
	}
	for _, s := range suites {
		name := strings.ReplaceAll(s.pkg, "/", "_")
		bin := filepath.Join(dir, filepath.Base(s.pkg)+".test") // as go test names it
		if err := BuildTest(t.Context(), bin, "waggle/"+s.pkg); err != nil {
			t.Fatal(err)
		}
		m.Runs = append(m.Runs, Run{
			Name: name, Path: bin, Timeout: time.Duration(s.minutes) * time.Minute,
			Args: []string{"-test.v", "-test.short", "-test.run=" + s.run, fmt.Sprintf("-test.timeout=%dm", s.minutes), "-test.skip=" + without},
			Env:  []string{testnet.NoSkip + "=1", InMachine + "=" + m.Kernel.Release, "WAGGLE_DCOS_CASES=/dcos-net.json"},
		})
	}
	results, err := m.Boot(t.Context(), dir, Log())
	if err != nil {
		t.Error(err)
	}
	for _, s := range suites {
		t.Run(s.pkg, func(t *testing.T) { report(t, results[strings.ReplaceAll(s.pkg, "/", "_")]) })
	}
}

// finished matches the end of a test in the output of a test binary.
var finished = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+)`)

// report makes a test of each test that ran in the machine.
func report(t *testing.T, r Result) {
	n := 0
	for line := range strings.Lines(r.Output) {
		m := finished.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		n++
		t.Run(m[2], func(t *testing.T) {
			switch m[1] {
			case "FAIL":
				t.Errorf("failed in the machine")
			case "SKIP":
				t.Errorf("was skipped in the machine")
			}
		})
	}
	if r.Exit != 0 || n == 0 {
		t.Errorf("exit code %d after %d tests:\n%s", r.Exit, n, tail(r.Output, 200))
	}
}

// tail returns the last lines of text.
func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// story is what a person does on a node whose kernel cannot balance by eBPF. What
// somebody takes away from IPVS meanwhile is back within seconds.
const story = `
ip link set lo up && ip addr add 10.0.0.1/24 dev dummy0 && ip link set dummy0 up && ip route add default via 10.0.0.2 || exit 10
waggle dev --log.level info --agent-ip 10.0.0.1 --lb.backend auto --lb.pin_dir /proc/nowhere --http.socket /tmp/w.sock /hello.json >/tmp/out 2>&1 &
daemon=$!
vip=
for i in $(seq 60); do
	vip=$(waggle vips --socket /tmp/w.sock 2>/dev/null | awk '/hello/ {for (i = 1; i <= NF; i++) if ($i ~ /^[0-9.]+:80$/) {print $i; exit}}')
	[ -n "$vip" ] && wget -q -O /tmp/page "http://$vip/" && break
	sleep 1
done
cat /tmp/out /tmp/page
grep -q "hello from app /hello" /tmp/page || exit 11
waggle status --socket /tmp/w.sock | grep balancer
waggle status --socket /tmp/w.sock | grep -q "balancer *ipvs" || exit 12
waggle unload --lb.pin_dir /proc/nowhere || exit 14 # which takes away what a daemon has made
grep -q "^TCP  0B" /proc/net/ip_vs && exit 15
for i in $(seq 60); do
	wget -q -O /tmp/again "http://$vip/" && break
	sleep 1
done
grep -q "hello from app /hello" /tmp/again || exit 16
for i in $(seq 60); do
	grep -q "no answers in the kernel" /tmp/out && break # which is too old for that
	sleep 1
done
grep -q "no answers in the kernel" /tmp/out || exit 17
kill -TERM $daemon; wait $daemon
grep -q "^TCP  0B" /proc/net/ip_vs && exit 13
exit 0
`

// TestTheProgramBalancesByIPVSWhereEBPFIsNotPossible runs the real program on
// the embedded cluster in a machine, and connects through a VIP.
func TestTheProgramBalancesByIPVSWhereEBPFIsNotPossible(t *testing.T) {
	m := New(t)
	dir := t.TempDir()
	bin := filepath.Join(dir, "waggle")
	if err := Build(t.Context(), bin, "waggle/cmd/waggle"); err != nil {
		t.Fatal(err)
	}
	m.Files = map[string]string{"/hello.json": filepath.Join("..", "..", "examples", "hello.json"), "/bin/waggle": bin}
	m.Runs = []Run{{Name: "story", Path: "/bin/busybox", Args: []string{"sh", "-c", story}}}
	results, err := m.Boot(t.Context(), dir, Log())
	if r := results["story"]; err != nil || r.Exit != 0 {
		t.Errorf("exit code %d, %v:\n%s", r.Exit, err, tail(r.Output, 60))
	}
}
