package bench

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"waggle/ebpf"
	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// few is how many backends each VIP of the others has: with a hundred, loading
// them takes minutes. Their ratios are to a direct client of as many.
const few = 3

// rival is one way to connect, and the direct client it is compared with.
type rival struct {
	name   string
	crew   crew
	base   string
	least  map[string][2]float64 // by kind of work, the bounds of its target
	helper int                   // process whose CPU time counts too; 0 for none
	took   map[string]sample     // CPU time by kind of work
	ratios map[string][]float64  // to the direct client's in the same round
}

// TestConnectAgainstPeers is run by `make bench-connect`; BENCH_ROUNDS says how
// many rounds there are.
func TestConnectAgainstPeers(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("BENCH_ROUNDS"))
	if err != nil || rounds < 1 {
		t.Skip("takes minutes and both CPUs: make bench-connect")
	}
	all := rivals(t)
	for _, kind := range []string{"connect", "rr", "bulk"} {
		for i := range rounds {
			round(t, all, kind, i)
		}
	}
	report(all)
}

// round lets everyone do one piece of work, in an order of its own: who always
// came after the same one would find the caches as that one leaves them.
func round(t *testing.T, all []*rival, kind string, i int) {
	took := map[string]time.Duration{}
	for _, j := range rand.Perm(len(all)) {
		c := all[j]
		before := processCPU(c.helper)
		d, err := c.crew.do(kind, i)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		took[c.name] = d + processCPU(c.helper) - before
	}
	for _, c := range all {
		c.took[kind] = append(c.took[kind], took[c.name])
		c.ratios[kind] = append(c.ratios[kind], float64(took[c.name])/float64(took[c.base]))
	}
}

// report prints the ratio of medians, which other work on the machine moves
// least, and the quartiles of the ratios round by round.
func report(all []*rival) {
	fmt.Printf("%-18s %-8s %7s %15s  %s\n", "CPU / direct", "work", "medians", "quartiles", "target")
	direct := map[string]*rival{}
	for _, c := range all {
		direct[c.name] = c
	}
	for _, kind := range []string{"connect", "rr", "bulk"} {
		for _, c := range all {
			if c.name == c.base {
				continue
			}
			r := slices.Sorted(slices.Values(c.ratios[kind]))
			at := func(q int) float64 { return r[len(r)*q/100] }
			ratio := float64(c.took[kind].at(0.5)) / float64(direct[c.base].took[kind].at(0.5))
			verdict := ""
			if b, ok := c.least[kind]; ok {
				verdict = fmt.Sprintf("%.2f to %.2f: met", b[0], b[1])
				if ratio < b[0] || ratio > b[1] {
					verdict = fmt.Sprintf("%.2f to %.2f: NOT met", b[0], b[1])
				}
			}
			fmt.Printf("%-18s %-8s %7.3f [%6.3f %6.3f]  %s\n", c.name, kind, ratio, at(25), at(75), verdict)
		}
	}
}

func rivals(t *testing.T) []*rival {
	t.Helper()
	ns, dests := joined(t, backends)
	all := []*rival{
		{name: "direct", base: "direct", crew: hire(t, ns, testnet.Cgroup(t), dests)},
		{name: "direct again", base: "direct", crew: hire(t, ns, testnet.Cgroup(t), dests)},
		{name: "direct to few", base: "direct to few", crew: hire(t, ns, "", dests[:few])},
	}
	steady := [2]float64{0.97, 1.03}
	add := func(name string, c crew, most float64) {
		all = append(all, &rival{name: name, base: "direct", crew: c, least: map[string][2]float64{
			"connect": {0, most}, "rr": steady, "bulk": steady,
		}})
	}
	for _, n := range []int{1, 1_000, 10_000} {
		cgroup, vips := balance(t, n, dests, lb.Random)
		add(fmt.Sprint("lean ", n), hire(t, ns, cgroup, vips), 1.05)
		if n == 10_000 {
			add("not a VIP", hire(t, ns, cgroup, dests), 1.03)
		}
		cgroup, vips = balance(t, n, dests, lb.LeastActive)
		add(fmt.Sprint("tracked ", n), hire(t, ns, cgroup, vips), 1.12)
	}
	peer := func(name string, set func(ns *testnet.Namespace, dests []netip.AddrPort) (netip.AddrPort, int)) {
		ns, dests := joined(t, few)
		at, helper := set(ns, dests)
		all = append(all, &rival{name: name, base: "direct to few", crew: hire(t, ns, "", []netip.AddrPort{at}), helper: helper})
	}
	for _, n := range []int{1, 1_000} {
		peer(fmt.Sprint("nftables ", n), func(ns *testnet.Namespace, d []netip.AddrPort) (netip.AddrPort, int) { return nftables(t, ns, n, d), 0 })
	}
	for _, n := range []int{1, 1_000, 10_000} {
		peer(fmt.Sprint("iptables ", n), func(ns *testnet.Namespace, d []netip.AddrPort) (netip.AddrPort, int) { return iptables(t, ns, n, d), 0 })
	}
	peer("haproxy 1", func(ns *testnet.Namespace, d []netip.AddrPort) (netip.AddrPort, int) { return haproxy(t, ns, d) })
	for _, c := range all {
		c.took, c.ratios = map[string]sample{}, map[string][]float64{}
	}
	return all
}

// joined returns the namespace of clients, and n backends beyond a link.
func joined(t *testing.T, n int) (*testnet.Namespace, []netip.AddrPort) {
	t.Helper()
	node, away := testnet.New(t), testnet.New(t)
	at := netip.MustParsePrefix("10.77.0.2/24")
	testnet.Link(t, node, netip.MustParsePrefix("10.77.0.1/24"), away, at)
	var dests []netip.AddrPort
	for range n {
		dests = append(dests, away.Echo(t, netip.AddrPortFrom(at.Addr(), 0)))
	}
	return node, dests
}

// numbered is the i-th VIP.
func numbered(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 80)
}

// balance makes n VIPs that lead to dests for the processes of a cgroup, and
// returns that and up to a hundred of the VIPs.
func balance(t *testing.T, n int, dests []netip.AddrPort, choice lb.Choice) (cgroup string, vips []netip.AddrPort) {
	t.Helper()
	cfg := ebpf.DefaultConfig()
	cfg.Cgroup = testnet.Cgroup(t)
	cfg.PinDir = "/sys/fs/bpf/waggle-bench-" + filepath.Base(cfg.Cgroup)
	plane, err := ebpf.Open(cfg, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := plane.Close()
		if _, unload := ebpf.Unload(cfg); err != nil || unload != nil {
			t.Error(errors.Join(err, unload))
		}
	})
	list := alike(dests)
	services := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	for i := range n {
		f := vip.Frontend{Addr: numbered(i), Proto: model.TCP}
		services.Set(f, &lb.Service{Frontend: f, Backends: list, Choice: choice})
	}
	if err := plane.Apply(t.Context(), &lb.Plan{Services: services.Groups()}); err != nil {
		t.Fatal(err)
	}
	for i := range min(n, backends) {
		vips = append(vips, numbered(n-1-i))
	}
	return cfg.Cgroup, vips
}

// alike are backends of one weight.
func alike(dests []netip.AddrPort) (list []lb.Backend) {
	for _, d := range dests {
		list = append(list, lb.Backend{Addr: d, Weight: 1})
	}
	return list
}

// command runs a program inside ns with a text as its input.
func command(t *testing.T, ns *testnet.Namespace, text string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &out, &out
	ns.Must(t, cmd.Start)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v: %.500s", args, err, out.String())
	}
}

// nftables makes n VIPs with a chain each, found by one map, as kube-proxy does.
// The result is one of them.
func nftables(t *testing.T, ns *testnet.Namespace, n int, dests []netip.AddrPort) netip.AddrPort {
	t.Helper()
	var chains, elements strings.Builder
	for i := range n {
		fmt.Fprintf(&chains, "chain s%d { meta l4proto tcp dnat ip to numgen random mod %d map { ", i, len(dests))
		for j, d := range dests {
			fmt.Fprintf(&chains, "%d : %s . %d, ", j, d.Addr(), d.Port())
		}
		chains.WriteString("}\n}\n")
		fmt.Fprintf(&elements, "%s . 80 : goto s%d,\n", numbered(i).Addr(), i)
	}
	text := "table ip bench {\n" + chains.String() + "map vips { type ipv4_addr . inet_service : verdict; elements = {\n" + elements.String() +
		"} }\nchain out { type nat hook output priority -100; ip daddr . tcp dport vmap @vips\n}\n}\n"
	command(t, ns, text, "nft", "-f", "-")
	command(t, ns, "", "ip", "route", "add", "11.0.0.0/8", "via", "10.77.0.2")
	return numbered(n - 1)
}

// iptables makes n VIPs with a rule for each backend, and returns the last.
func iptables(t *testing.T, ns *testnet.Namespace, n int, dests []netip.AddrPort) netip.AddrPort {
	t.Helper()
	text := strings.Builder{}
	text.WriteString("*nat\n:OUTPUT ACCEPT [0:0]\n")
	for i := range n {
		fmt.Fprintf(&text, ":S%d - [0:0]\n-A OUTPUT -d %s/32 -p tcp -m tcp --dport 80 -j S%d\n", i, numbered(i).Addr(), i)
		for j, d := range dests {
			chance := ""
			if left := len(dests) - j; left > 1 {
				chance = fmt.Sprintf("-m statistic --mode random --probability %.6f ", 1/float64(left))
			}
			fmt.Fprintf(&text, "-A S%d -p tcp %s-j DNAT --to-destination %s\n", i, chance, d)
		}
	}
	text.WriteString("COMMIT\n")
	command(t, ns, text.String(), "iptables-restore")
	command(t, ns, "", "ip", "route", "add", "11.0.0.0/8", "via", "10.77.0.2")
	return numbered(n - 1)
}

// haproxy starts one on the last VIP, and returns its process too.
func haproxy(t *testing.T, ns *testnet.Namespace, dests []netip.AddrPort) (netip.AddrPort, int) {
	t.Helper()
	at := netip.MustParseAddrPort("127.0.0.1:8080")
	text := fmt.Sprintf("global\n nbthread 1\ndefaults\n mode tcp\n timeout client 5m\n timeout server 5m\n timeout connect 5s\nlisten vip\n bind %s\n balance random\n", at)
	for i, d := range dests {
		text += fmt.Sprintf(" server s%d %s\n", i, d)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("haproxy", "-db", "-f", file)
	ns.Must(t, cmd.Start)
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if ns.Do(func() error { return connect(at) }) == nil {
			return at, cmd.Process.Pid
		}
	}
	t.Fatal("haproxy does not answer")
	return at, 0
}

// processCPU returns the CPU time of a process' first thread; 0 of none.
func processCPU(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	first, _, _ := strings.Cut(string(text), " ")
	ns, _ := strconv.ParseInt(first, 10, 64)
	return time.Duration(ns)
}
