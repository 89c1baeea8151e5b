package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"waggle/internal/dnspeer"
)

// outsideNames is how many names are asked for again and again.
const outsideNames = 2000

// mostMisses is more than any server answers in a run.
const mostMisses = 100_000

// outside is a zone that an upstream has: names to be remembered, and a
// wildcard that gives as many that are not as there are questions.
func outside() dnspeer.Zone {
	z := dnspeer.Zone{Apex: "outside.example.", Records: []dnspeer.Record{
		{Name: "outside.example.", Type: "SOA", TTL: 3600, Data: "ns.outside.example. root.outside.example. 1 3600 3600 3600 3600"},
		{Name: "outside.example.", Type: "NS", TTL: 3600, Data: "ns.outside.example."},
		{Name: "ns.outside.example.", Type: "A", TTL: 3600, Data: "192.0.2.53"},
		{Name: "*.new.outside.example.", Type: "A", TTL: 3600, Data: "192.0.2.1"},
	}}
	for i := range outsideNames {
		z.Records = append(z.Records, dnspeer.Record{
			Name: fmt.Sprintf("host%d.outside.example.", i), Type: "A", TTL: 3600, Data: fmt.Sprintf("198.18.%d.%d", i/256, i%256)})
	}
	return z
}

// forwarded are the figures of one contender over the rounds.
type forwarded struct {
	costs
	lost int
}

// TestDNSForwardingAgainstPeers is run by `make bench-dns`, for names that are
// others': remembered, and asked for the first time.
func TestDNSForwardingAgainstPeers(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("BENCH_ROUNDS"))
	if err != nil || rounds < 1 {
		t.Skip("takes minutes and both CPUs: make bench-dns")
	}
	zone := outside()
	upstream := dnspeer.NSD().Start(t, zone, dnspeer.Options{Lean: true})
	master, _ := taskMaster(t, 1)
	bin, up := buildWaggle(t), upstream.Addr.String()
	ours := startWaggle(t, bin, master, "--dns.forward.upstreams", up)
	sockets := startWaggle(t, bin, master, "--dns.forward.upstreams", up, "--dns.kernel_answers", "0")
	contenders := []*contender{{name: ours.Name, addr: ours.Addr, pid: ours.Pid}, {name: socketsName, addr: sockets.Addr, pid: sockets.Pid}}
	kinds := []dnspeer.Kind{dnspeer.Unbound(), dnspeer.Dnsmasq()}
	if path := os.Getenv("COREDNS"); path != "" {
		kinds = append(kinds, dnspeer.CoreDNS(path))
	}
	for _, k := range append(kinds, floor(t)) {
		s := k.Start(t, zone, dnspeer.Options{Upstream: upstream.Addr})
		contenders = append(contenders, &contender{name: s.Name, addr: s.Addr, pid: s.Pid})
	}
	cached, missed := map[string]*forwarded{}, map[string]*forwarded{}
	for _, c := range contenders {
		cached[c.name], missed[c.name] = &forwarded{}, &forwarded{}
	}
	known, _ := queryFile(t, knownNames(outsideNames, func(i int) int { return i }))
	again, _ := queryFile(t, knownNames(20_000, func(int) int { return rand.IntN(outsideNames) }))
	pin(upstream.Pid, serverCPU)
	for _, c := range contenders { // so that all is remembered
		if _, err := dnsperf(c, known, 0, runLength); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	run := func(rate int, length time.Duration) {
		for _, i := range rand.Perm(len(contenders)) {
			c := contenders[i]
			cached[c.name].run(t, c, again, rate, length)
			if c.name != floorName && c.name != socketsName { // which asks nobody, and which is no other than ours here
				missed[c.name].run(t, c, newNames(t), rate, length)
			}
		}
	}
	for range fullRounds * rounds {
		run(0, runLength/2)
	}
	for range rounds {
		run(nodeRate, runLength)
	}
	printForwarded("remembered", rounds, contenders, cached)
	printForwarded("asked for the first time", rounds, contenders, missed)
	forwardTargets(cached, missed)
}

func knownNames(n int, pick func(int) int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("host%d.outside.example. A", pick(i)))
	}
	return lines
}

// newNames writes queries for names that nobody has asked for.
func newNames(t *testing.T) (path string) {
	lines := make([]string, mostMisses)
	run := rand.Uint64()
	for i := range lines {
		lines[i] = fmt.Sprintf("x%x-%d.new.outside.example. A", run, i)
	}
	path, _ = queryFile(t, lines)
	return path
}

// run measures a contender, at full speed where there is no rate.
func (f *forwarded) run(t *testing.T, c *contender, queries string, rate int, length time.Duration) {
	l, err := dnsperf(c, queries, rate, length)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	f.lost += l.lost
	if rate > 0 {
		f.addAtRate(l)
	} else {
		f.add(l)
	}
}

func printForwarded(what string, rounds int, contenders []*contender, figures map[string]*forwarded) {
	fmt.Printf("\n### Names of others, %s, %d rounds\n\n", what, rounds)
	fmt.Println("| server | CPU µs/query | the client's | thousand/s | CPU µs/query at 5 000/s | lost |")
	fmt.Println("| --- | --- | --- | --- | --- | --- |")
	for _, c := range contenders {
		f := figures[c.name]
		if len(f.cpu) == 0 {
			continue
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %d |\n", c.name, spread(f.cpu), spread(f.client), spread(f.rate), spread(f.cpuAtRate), f.lost)
	}
}

// forwardTargets says which of the targets are met, as ratios of medians.
func forwardTargets(cached, missed map[string]*forwarded) {
	ratio := func(figures map[string]*forwarded, ours, name string) float64 {
		if figures[name] == nil {
			return 0
		}
		return median(figures[ours].cpu) / median(figures[name].cpu)
	}
	floor := &cached[floorName].costs
	fmt.Printf("\n- a remembered name, receiving and sending alone: %.2f of waggle by sockets, %.2f of CoreDNS\n",
		1/ratio(cached, socketsName, floorName), ratio(cached, socketsName, "CoreDNS")/ratio(cached, socketsName, floorName))
	for _, name := range []string{"Unbound", "CoreDNS"} {
		limit := 1.0
		if name == "CoreDNS" {
			limit = 0.33
		}
		what := "CPU of a remembered name of " + name
		target(what, ratio(cached, "waggle", name), limit)
		if m := cached[name]; m != nil {
			target(what+", with what it costs the client", cached["waggle"].beyond(floor)/m.beyond(floor), limit)
		}
		target(what+", by sockets", ratio(cached, socketsName, name), limit)
	}
	target("CPU of a new name of dnsmasq", ratio(missed, "waggle", "dnsmasq"), 0.40)
	target("CPU of a new name of CoreDNS", ratio(missed, "waggle", "CoreDNS"), 0.40)
}
