package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"waggle/internal/dnspeer"
	"waggle/watcher/mesos/mesostest"
)

// How long one run of a client lasts, and the rate that a node's own DNS server
// may see.
const (
	runLength = 1500 * time.Millisecond
	nodeRate  = 5000
	// fullRounds is how many short runs at full speed there are for each round.
	fullRounds = 4
)

// measured are the figures of one contender over the rounds.
type measured struct {
	costs
	p50, p99, p999 []float64 // µs
	memory         float64   // MB
	visible        []float64 // ms
	lost           int
}

// costs are what queries cost: µs of the server's and the client's CPU at full
// speed, thousand a second, µs of the server's CPU at nodeRate.
type costs struct{ cpu, client, rate, cpuAtRate []float64 }

func (c *costs) add(l load) {
	server, client := l.perQuery()
	c.cpu, c.client, c.rate = append(c.cpu, server), append(c.client, client), append(c.rate, l.rate/1000)
}

func (c *costs) addAtRate(l load) {
	server, _ := l.perQuery()
	c.cpuAtRate = append(c.cpuAtRate, server)
}

// beyond is what an answer costs the machine, in µs: the server's time, and what
// the client spends more than with a server that only receives and sends.
func (c *costs) beyond(floor *costs) float64 {
	return median(c.cpu) + max(0, median(c.client)-median(floor.client))
}

// TestDNSAgainstPeers is run by `make bench-dns`; BENCH_ROUNDS is how many
// rounds there are, 1 for a quick look.
func TestDNSAgainstPeers(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("BENCH_ROUNDS"))
	if err != nil || rounds < 1 {
		t.Skip("takes minutes and both CPUs: make bench-dns")
	}
	bin := buildWaggle(t)
	for _, names := range []int{1_000, 100_000} {
		t.Run(fmt.Sprint(names), func(t *testing.T) {
			b := newDNSBench(t, bin, names)
			for range fullRounds * rounds {
				b.full(t)
			}
			for range rounds {
				b.atRate(t)
			}
			b.visible(t, rounds)
			b.churn(t)
			for _, c := range b.contenders {
				b.figures[c.name].memory = memoryOfTree(c.pid)
			}
			b.print(names)
			b.targets(names)
		})
	}
}

// socketsName is a waggle whose answers are not kept by the kernel.
const socketsName = "waggle, by sockets"

// dnsBench is all servers with one zone, which is waggle's.
type dnsBench struct {
	contenders []*contender
	figures    map[string]*measured
	queries    string
	packets    [][]byte
	owners     int

	master *mesostest.Master
	tasks  []mesostest.Task
}

// namesPerTask is how many names one task of taskMaster has.
const namesPerTask = 6

func newDNSBench(t *testing.T, bin string, names int) *dnsBench {
	b := &dnsBench{figures: map[string]*measured{}}
	b.master, b.tasks = taskMaster(t, names/namesPerTask)
	ours, sockets := startWaggle(t, bin, b.master), startWaggle(t, bin, b.master, "--dns.kernel_answers", "0")
	zone := zoneOf(t, ours)
	owners := map[string]bool{}
	for _, r := range zone.Records {
		owners[r.Name] = true
	}
	b.owners = len(owners)
	b.queries, b.packets = queryFile(t, mix(zone, 20_000))
	b.add(&contender{name: ours.Name, addr: ours.Addr, pid: ours.Pid, publish: func(name string) error {
		app, _, _ := strings.Cut(name, ".")
		task := benchTask(app, len(b.tasks))
		task.State = "TASK_STAGING"
		b.master.Send(mesostest.TaskAdded(task))
		task.State = "TASK_RUNNING"
		b.master.Send(mesostest.TaskUpdated(task))
		return nil
	}})
	b.add(&contender{name: socketsName, addr: sockets.Addr, pid: sockets.Pid})
	kinds := []dnspeer.Kind{dnspeer.NSD(), dnspeer.Knot(), dnspeer.Unbound()}
	if names <= 10_000 { // its services are a list that is searched from the start
		kinds = append(kinds, dnspeer.Dnsmasq())
	}
	if path := os.Getenv("COREDNS"); path != "" {
		kinds = append(kinds, dnspeer.CoreDNS(path))
	}
	publish := len(kinds)
	for i, k := range append(kinds, plainServer(t, zone), floor(t)) {
		s := k.Start(t, zone, dnspeer.Options{Lean: true, Cache: true})
		c := &contender{name: s.Name, addr: s.Addr, pid: s.Pid}
		if i < publish {
			serial := 1000
			c.publish = func(name string) error {
				serial++
				zone = grown(zone, name, serial)
				return s.Publish(zone)
			}
		}
		b.add(c)
	}
	return b
}

func (b *dnsBench) add(c *contender) {
	b.contenders = append(b.contenders, c)
	b.figures[c.name] = &measured{}
}

// each does something with every contender, in an order of its own.
func (b *dnsBench) each(do func(*contender, *measured)) {
	for _, i := range rand.Perm(len(b.contenders)) {
		c := b.contenders[i]
		do(c, b.figures[c.name])
	}
}

// full measures what a query costs at full speed. It is what most targets are of,
// so there are many short runs: a run that goes badly does so as a whole.
func (b *dnsBench) full(t *testing.T) {
	b.each(func(c *contender, m *measured) {
		l, err := dnsperf(c, b.queries, 0, runLength/2)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		m.add(l)
	})
}

// atRate measures the rate of a node, by CPU and by how long answers take.
func (b *dnsBench) atRate(t *testing.T) {
	b.each(func(c *contender, m *measured) {
		slow, err := dnsperf(c, b.queries, nodeRate, runLength)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		took, err := latencies(c.addr, b.packets, nodeRate, runLength)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		m.addAtRate(slow)
		if len(took) > 0 {
			m.p50, m.p99, m.p999 = append(m.p50, micros(took.at(0.5))), append(m.p99, micros(took.at(0.99))), append(m.p999, micros(took.at(0.999)))
		}
	})
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

// visible measures how long a new name takes to be answered.
func (b *dnsBench) visible(t *testing.T, rounds int) {
	for i := range rounds {
		for _, c := range b.contenders {
			if c.publish == nil {
				continue
			}
			name := fmt.Sprintf("new%d.marathon.%s", i, benchApex)
			start := time.Now()
			if err := c.publish(name); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if !appears(c, name, time.Minute) {
				t.Errorf("%s does not show %s", c.name, name)
				continue
			}
			b.figures[c.name].visible = append(b.figures[c.name].visible, time.Since(start).Seconds()*1e3)
		}
	}
}

// appears asks for name until it exists. Each query is for another type, so that
// none is answered from a cache.
func appears(c *contender, name string, within time.Duration) bool {
	client := &mdns.Client{Timeout: 100 * time.Millisecond}
	pause := time.NewTicker(200 * time.Microsecond)
	defer pause.Stop()
	rrtype := uint16(1000)
	for deadline := time.Now().Add(within); time.Now().Before(deadline); <-pause.C {
		rrtype = 1000 + (rrtype+1)%50_000
		r, _, err := client.Exchange(new(mdns.Msg).SetQuestion(name, rrtype), c.addr.String())
		if err == nil && r.Rcode == mdns.RcodeSuccess {
			return true
		}
	}
	return false
}

// churn counts what waggle loses while a thousand tasks a second change.
func (b *dnsBench) churn(t *testing.T) {
	var stop atomic.Bool
	ended := make(chan int)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		n := 0
		for ; !stop.Load(); <-tick.C {
			for range 10 {
				task := b.tasks[n%len(b.tasks)]
				if n/len(b.tasks)%2 == 0 {
					task.IP = task.IP.Next() // an update may bring another address
				}
				b.master.Send(mesostest.TaskUpdated(task))
				n++
			}
		}
		ended <- n
	}()
	l, err := dnsperf(b.contenders[0], b.queries, nodeRate, 2*runLength)
	stop.Store(true)
	changes := <-ended
	if err != nil {
		t.Fatal(err)
	}
	b.figures["waggle"].lost = l.lost
	fmt.Printf("\n%d changes of tasks during %d queries: %d lost\n", changes, l.answered, l.lost)
}

// spread is a median with the least and the most.
func spread(v []float64) string {
	if len(v) == 0 {
		return "-"
	}
	s := slices.Sorted(slices.Values(v))
	return fmt.Sprintf("%s [%s..%s]", short(s[len(s)/2]), short(s[0]), short(s[len(s)-1]))
}

// short writes three digits, or all before the point.
func short(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(v))[len(v)/2]
}

func (b *dnsBench) print(names int) {
	fmt.Printf("\n### %d names (%d in the zone), %d rounds\n\n", names, b.owners, len(b.figures["waggle"].cpu))
	fmt.Println("| server | CPU µs/query | of waggle's by sockets | the client's | thousand/s | CPU µs/query at 5 000/s | p50 µs | p99 | p99.9 | MB | visible ms |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	ours := median(b.figures[socketsName].cpu)
	for _, c := range b.contenders {
		m := b.figures[c.name]
		fmt.Printf("| %s | %s | %.2f | %s | %s | %s | %s | %s | %s | %.0f | %s |\n", c.name, spread(m.cpu), median(m.cpu)/ours, spread(m.client), spread(m.rate),
			spread(m.cpuAtRate), spread(m.p50), spread(m.p99), spread(m.p999), m.memory, spread(m.visible))
	}
}

// target says whether got is within limit; 0 is not measured.
func target(what string, got, limit float64) {
	verdict := "met"
	switch {
	case got == 0:
		verdict = "not measured"
	case got > limit:
		verdict = "NOT met"
	}
	fmt.Printf("- %s: %.2f, target at most %.2f: %s\n", what, got, limit, verdict)
}

// targets says which of the targets are met, as ratios of medians.
func (b *dnsBench) targets(names int) {
	ratio := func(get func(*measured) []float64, ours, name string) float64 {
		m := b.figures[name]
		if m == nil || len(get(m)) == 0 {
			return 0
		}
		return median(get(b.figures[ours])) / median(get(m))
	}
	cpu := func(m *measured) []float64 { return m.cpu }
	atRate := func(m *measured) []float64 { return m.cpuAtRate }
	of := func(name string) float64 { return ratio(cpu, socketsName, name) }
	limit := 0.92
	if names > 10_000 {
		limit = 0.80
	}
	fmt.Println()
	fmt.Printf("- receiving and sending alone: %.2f of waggle by sockets, %.2f of NSD, %.2f of Knot, %.2f of CoreDNS\n",
		1/of(floorName), of("NSD")/of(floorName), of("Knot")/of(floorName), of("CoreDNS")/of(floorName))
	target("CPU per query of the better of NSD and Knot, by sockets", max(of("NSD"), of("Knot")), limit)
	target("CPU per query of CoreDNS with its cache, by sockets", of("CoreDNS"), 0.27)
	kernel, floor := b.figures["waggle"], &b.figures[floorName].costs
	for _, name := range []string{socketsName, "NSD", "Knot", "CoreDNS"} {
		if m := b.figures[name]; m != nil {
			fmt.Printf("- CPU per query, with what it costs the client, of %s: %.2f\n", name, kernel.beyond(floor)/m.beyond(floor))
		}
	}
	target("CPU per query of NSD at 5 000 queries a second", ratio(atRate, "waggle", "NSD"), 1.05)
	target("CPU per query of NSD at 5 000 queries a second, by sockets", ratio(atRate, socketsName, "NSD"), 1.05)
	if lost := b.figures["waggle"].lost; lost > 0 {
		fmt.Printf("- queries lost while 1 000 tasks a second change: %d, target 0: NOT met\n", lost)
	} else {
		fmt.Println("- queries lost while 1 000 tasks a second change: 0: met")
	}
}
