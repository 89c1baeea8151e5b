package bench

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"waggle/internal/dnspeer"
	"waggle/watcher/mesos/mesostest"
)

const benchApex = "mesos."

// contender is one server in the comparison.
type contender struct {
	name string
	addr netip.AddrPort
	pid  int
	// publish makes it serve one more name with an address; nil where there is
	// no way.
	publish func(name string) error
}

// master has n tasks, each of an app of its own with one named port.
func taskMaster(tb testing.TB, n int) (*mesostest.Master, []mesostest.Task) {
	tb.Helper()
	var tasks []mesostest.Task
	for i := range n {
		tasks = append(tasks, benchTask(fmt.Sprint("app", i), i))
	}
	m := mesostest.Serve(mesostest.Subscribed(15,
		[]map[string]any{mesostest.Agent("S0", netip.MustParseAddr("10.0.0.1"))},
		[]map[string]any{mesostest.Framework("F", "marathon")}, tasks))
	tb.Cleanup(m.Close)
	return m, tasks
}

func benchTask(app string, i int) mesostest.Task {
	return mesostest.Task{
		Framework: "F", Agent: "S0", ID: app + ".0", Name: app, State: "TASK_RUNNING",
		IP:    netip.AddrFrom4([4]byte{9, byte(i >> 16), byte(i >> 8), byte(i)}),
		Ports: []mesostest.Port{{Number: 1 + i%60000, Name: "http", Protocol: "tcp"}},
	}
}

// buildWaggle builds the program into the test's folder.
func buildWaggle(tb testing.TB) string {
	tb.Helper()
	bin := filepath.Join(tb.TempDir(), "waggle")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/waggle").CombinedOutput(); err != nil {
		tb.Fatalf("%v: %s", err, out)
	}
	return bin
}

// startWaggle starts the program with one reader, as the others have one, and
// further arguments.
func startWaggle(tb testing.TB, bin string, master *mesostest.Master, more ...string) *dnspeer.Server {
	return dnspeer.Other("waggle", bin, func(at netip.AddrPort) []string {
		return append([]string{
			"run", "--mesos.masters", master.Addr().String(), "--dns.listen", at.String(), "--dns.readers", "1",
			"--dns.transfer", "127.0.0.0/8", "--lb.backend", "none", "--http.socket", "", "--http.listen", "", "--state.dir", "",
			"--log.level", "error",
		}, more...)
	}).Start(tb, dnspeer.Zone{Apex: benchApex}, dnspeer.Options{})
}

// zoneOf transfers the zone of a server.
func zoneOf(tb testing.TB, s *dnspeer.Server) dnspeer.Zone {
	tb.Helper()
	q := new(mdns.Msg).SetAxfr(benchApex)
	t := &mdns.Transfer{ReadTimeout: time.Minute}
	envelopes, err := t.In(q, s.Addr.String())
	if err != nil {
		tb.Fatal(err)
	}
	zone := dnspeer.Zone{Apex: benchApex}
	for e := range envelopes {
		if e.Error != nil {
			tb.Fatal(e.Error)
		}
		for _, rr := range e.RR {
			h := rr.Header()
			data := strings.TrimPrefix(rr.String(), h.String())
			zone.Records = append(zone.Records, dnspeer.Record{Name: h.Name, Type: mdns.TypeToString[h.Rrtype], TTL: h.Ttl, Data: data})
		}
	}
	zone.Records = zone.Records[:len(zone.Records)-1] // the SOA again
	return zone
}

// grown returns zone with one more address and a higher serial.
func grown(zone dnspeer.Zone, name string, serial int) dnspeer.Zone {
	out := dnspeer.Zone{Apex: zone.Apex, Records: append([]dnspeer.Record{}, zone.Records...)}
	for i, r := range out.Records {
		if r.Type == "SOA" {
			f := strings.Fields(r.Data)
			f[2] = fmt.Sprint(serial)
			out.Records[i].Data = strings.Join(f, " ")
		}
	}
	out.Records = append(out.Records, dnspeer.Record{Name: name, Type: "A", TTL: 60, Data: "9.9.9.9"})
	return out
}

// mix is half addresses, a quarter services, 15 % addresses of a kind that is
// not there and 10 % names that are not, all in random order.
func mix(zone dnspeer.Zone, n int) (lines []string) {
	var hosts, services []string
	for _, r := range zone.Records {
		switch r.Type {
		case "A":
			hosts = append(hosts, r.Name)
		case "SRV":
			services = append(services, r.Name)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range n {
		switch p := rng.IntN(100); {
		case p < 50:
			lines = append(lines, hosts[rng.IntN(len(hosts))]+" A")
		case p < 75:
			lines = append(lines, services[rng.IntN(len(services))]+" SRV")
		case p < 90:
			lines = append(lines, hosts[rng.IntN(len(hosts))]+" AAAA")
		default:
			lines = append(lines, fmt.Sprintf("x%08x.marathon.%s A", rng.Uint32(), benchApex))
		}
	}
	return lines
}

// queryFile writes queries for dnsperf and returns them in wire format too.
func queryFile(tb testing.TB, lines []string) (path string, packets [][]byte) {
	tb.Helper()
	path = filepath.Join(tb.TempDir(), "queries")
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for _, l := range lines {
		fmt.Fprintln(w, l)
		name, rrtype, _ := strings.Cut(l, " ")
		packet, err := new(mdns.Msg).SetQuestion(name, mdns.StringToType[rrtype]).Pack()
		if err != nil {
			tb.Fatal(err)
		}
		packets = append(packets, packet)
	}
	if err := w.Flush(); err != nil {
		tb.Fatal(err)
	}
	return path, packets
}
