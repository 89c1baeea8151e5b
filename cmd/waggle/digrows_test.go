package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"waggle/internal/outside"
	"waggle/internal/testnet"
	"waggle/watcher/mesos/mesostest"
)

// digRow is one query that was put to mesos-dns, and its reply.
type digRow struct {
	folder, id                      string
	name, kind, class, opcode, over string
	edns, asks                      string
	reply                           digReply
}

func (r *digRow) String() string {
	return strings.Join([]string{r.folder, r.id, r.name, r.kind, r.class, r.opcode, "EDNS", r.edns}, " ")
}

// digReply is a reply, each section a set of records.
type digReply struct {
	Rcode                         string
	Flags                         string // "qr aa rd ra"
	Question                      string
	Answer, Authority, Additional []string
	EDNS                          string
}

// bare is a reply without records.
func (d digReply) bare(rcode string) digReply {
	return digReply{Rcode: rcode, Flags: d.Flags, Question: d.Question, EDNS: d.EDNS}
}

func (d digReply) with(flags ...string) digReply {
	d.Flags = sortedFlags(append(strings.Fields(d.Flags), flags...))
	return d
}

func (d digReply) without(flag string) digReply {
	d.Flags = sortedFlags(slices.DeleteFunc(strings.Fields(d.Flags), func(f string) bool { return f == flag }))
	return d
}

func (d digReply) has(flag string) bool { return slices.Contains(strings.Fields(d.Flags), flag) }

func sortedFlags(set []string) string {
	var out []string
	for _, f := range []string{"qr", "aa", "tc", "rd", "ra", "cd", "ad"} {
		if slices.Contains(set, f) {
			out = append(out, f)
		}
	}
	return strings.Join(out, " ")
}

func readDigRows(t *testing.T, folder string) []*digRow {
	t.Helper()
	list := func(cell string) []string {
		if cell == "-" {
			return nil
		}
		return strings.Split(cell, " | ")
	}
	var rows []*digRow
	text := outside.Read(t, "conformance", "mesos-dns", folder, "dig.tsv")
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] {
		c := strings.Split(line, "\t")
		rows = append(rows, &digRow{
			folder: folder, id: c[0], name: dns.Fqdn(c[1]), kind: c[2], class: c[3], opcode: c[4], over: c[5], edns: c[6], asks: c[7],
			reply: digReply{
				Rcode: c[8], Flags: sortedFlags(strings.Fields(c[9])), Question: c[10],
				Answer: list(c[12]), Authority: list(c[13]), Additional: list(c[14]), EDNS: c[15],
			},
		})
	}
	return rows
}

// question is what a reply repeats.
func (r *digRow) question() string {
	class := r.class
	if class == "ANY" {
		class = "CLASS255"
	}
	return r.name + " " + class + " " + r.kind
}

// message returns the row's query.
func (r *digRow) message() *dns.Msg {
	m := new(dns.Msg)
	m.Id, m.Opcode = dns.Id(), dns.StringToOpcode[r.opcode]
	m.RecursionDesired, m.CheckingDisabled = strings.Contains(r.asks, "rd"), strings.Contains(r.asks, "cd")
	kind, ok := dns.StringToType[r.kind]
	if !ok {
		_, _ = fmt.Sscanf(r.kind, "TYPE%d", &kind)
	}
	m.Question = []dns.Question{{Name: r.name, Qtype: kind, Qclass: dns.StringToClass[r.class]}}
	var size uint16
	if _, err := fmt.Sscanf(r.edns, "%d", &size); err == nil {
		m.SetEdns0(size, strings.Contains(r.asks, "do"))
	}
	return m
}

// replyOf brings a reply into the form of the rows.
func replyOf(m *dns.Msg) digReply {
	out := digReply{Rcode: dns.RcodeToString[m.Rcode], EDNS: "-"}
	if len(m.Question) == 1 {
		q := m.Question[0]
		class := dns.ClassToString[q.Qclass]
		if q.Qclass == dns.ClassANY {
			class = "CLASS255"
		}
		out.Question = fmt.Sprintf("%s %s %s", q.Name, class, dns.Type(q.Qtype))
	}
	var flags []string
	for name, on := range map[string]bool{
		"qr": m.Response, "aa": m.Authoritative, "tc": m.Truncated, "rd": m.RecursionDesired,
		"ra": m.RecursionAvailable, "cd": m.CheckingDisabled, "ad": m.AuthenticatedData,
	} {
		if on {
			flags = append(flags, name)
		}
	}
	out.Flags = sortedFlags(flags)
	section := func(rrs []dns.RR) (list []string) {
		for _, rr := range rrs {
			if !m.Authoritative {
				rr.Header().Ttl = (rr.Header().Ttl + 29) / 30 * 30 // it may have been in the cache
			}
			text := strings.Join(strings.Fields(rr.String()), " ")
			switch rr := rr.(type) {
			case *dns.OPT:
				out.EDNS = fmt.Sprintf("udp=%d,ver=%d,do=%v", rr.UDPSize(), rr.Version(), rr.Do())
				continue
			case *dns.SOA:
				if m.Authoritative {
					text = strings.Replace(text, fmt.Sprintf(" %d ", rr.Serial), " SERIAL ", 1)
				}
			}
			list = append(list, text)
		}
		return list
	}
	out.Answer, out.Authority, out.Additional = section(m.Answer), section(m.Ns), section(m.Extra)
	return out
}

// recordedNode is a namespace in which what was around mesos-dns is: the master
// and the servers asked for other names, all at the addresses of config.json.
type recordedNode struct{ *testnet.Namespace }

func newRecordedNode(t *testing.T, state []byte) *recordedNode {
	t.Helper()
	n := &recordedNode{testnet.New(t)}
	for port, zone := range map[string]string{"5301": "example.", "5302": "weave."} {
		n.upstream(t, "127.0.0.1:"+port, zone)
	}
	var l net.Listener
	n.Must(t, func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:15050"); return err })
	master := mesostest.ServeOn(l, nil)
	t.Cleanup(master.Close)
	master.SetDocument("/master/state", state)
	return n
}

// recordedState returns the state that mesos-dns was given, of the master that
// it was given by.
func recordedState(t *testing.T, folder string) []byte {
	t.Helper()
	var state map[string]json.RawMessage
	outside.JSON(t, &state, "fixtures", "mesos-dns", states[folder]+".json")
	for key, value := range map[string]string{
		"leader": `"master@127.0.0.1:15050"`, "pid": `"master@127.0.0.1:15050"`, "id": `"m"`, "elected_time": "1.5",
	} {
		state[key] = json.RawMessage(value)
	}
	out, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// serve runs the daemon with a configuration file until the test ends, and waits
// until it says that it is ready.
func (n *recordedNode) serve(t *testing.T, config string, args ...string) {
	t.Helper()
	dir := t.TempDir()
	at := &node{Namespace: n.Namespace, state: dir}
	at.start(t, append([]string{
		"run", "--config", config, "--http.socket", at.socket(), "--http.listen", "", "--lb.backend", "none",
		"--state.dir", filepath.Join(dir, "lib"),
	}, args...)...)
	eventually(t, "the daemon is ready", func() bool { return at.status(t).Ready })
}

// ask puts m to the daemon; nil is no reply.
func (n *recordedNode) ask(t *testing.T, m *dns.Msg, over string) *dns.Msg {
	t.Helper()
	r, err := n.exchange(m, over)
	if err != nil {
		t.Errorf("%v over %s: %v", m.Question, over, err)
		return nil
	}
	return r
}

func (n *recordedNode) exchange(m *dns.Msg, over string) (*dns.Msg, error) {
	var conn *dns.Conn
	if err := n.Do(func() (err error) {
		conn, err = dns.DialTimeout(over, "127.0.0.1:8053", time.Minute)
		return err
	}); err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	conn.UDPSize = dns.MaxMsgSize
	if err := conn.WriteMsg(m); err != nil {
		return nil, err
	}
	return conn.ReadMsg()
}

var anyOrder = cmp.Options{cmpopts.EquateEmpty(), cmpopts.SortSlices(strings.Compare)}

// TestEveryRowOfMesosDNS asks the daemon, with mesos-dns' configuration and
// state, what mesos-dns was asked, over UDP and TCP. It answers the same, or what
// testdata/deliberate.tsv says that it answers instead.
func TestEveryRowOfMesosDNS(t *testing.T) {
	testnet.NeedRoot(t)
	list := readDeliberate(t)
	for folder := range states {
		t.Run(folder, func(t *testing.T) {
			t.Parallel() // they wait for upstreams that do not answer
			rows := readDigRows(t, folder)
			truth := recordedTruth(t, folder, rows)
			n := newRecordedNode(t, recordedState(t, folder))
			n.serve(t, outside.Path(t, "conformance", "mesos-dns", folder, "config.json"), "--mesos.poll", "always")
			for _, r := range rows {
				want := r.reply
				for _, c := range list[folder][r.id] {
					before := want
					if want = c(want, r, truth); cmp.Equal(before, want, anyOrder) {
						t.Errorf("%v: a change that is listed changes nothing", r)
					}
				}
				delete(list[folder], r.id)
				n.compare(t, r, want, truth)
			}
			for id := range list[folder] {
				t.Errorf("%s %s is listed, and is no row", folder, id)
			}
		})
	}
}

// compare asks the row and reports whatever is not as wanted. A name that cannot
// be in a query is one without a reply.
func (n *recordedNode) compare(t *testing.T, r *digRow, want digReply, truth *digTruth) {
	t.Helper()
	m := r.message()
	if _, err := m.Pack(); err != nil {
		if want.Rcode != "" {
			t.Errorf("%v: %v", r, err)
		}
		return
	}
	for _, over := range truth.ways(r) {
		got := n.ask(t, m, over)
		if got == nil {
			continue
		}
		if d := cmp.Diff(want, truth.likened(replyOf(got), want, r), anyOrder); d != "" {
			t.Errorf("%v over %s:\n%s", r, over, d)
		}
	}
}

// upstream answers for names outside, as the server beside mesos-dns did.
func (n *recordedNode) upstream(t *testing.T, at, zone string) {
	t.Helper()
	var pc net.PacketConn
	var l net.Listener
	n.Must(t, func() (err error) {
		if pc, err = net.ListenPacket("udp", at); err != nil {
			return err
		}
		l, err = net.Listen("tcp", at)
		return err
	})
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if r := elsewhere(q, zone, w.LocalAddr().Network() == "udp"); r != nil {
			_ = w.WriteMsg(r) // who asked may be gone
		}
	})
	done := make(chan error, 2)
	udp, tcp := &dns.Server{PacketConn: pc, Handler: h}, &dns.Server{Listener: l, Handler: h}
	go func() { done <- udp.ActivateAndServe() }()
	go func() { done <- tcp.ActivateAndServe() }()
	t.Cleanup(func() { pc.Close(); l.Close(); <-done; <-done })
}

// elsewhere is the reply of the server that was asked for names outside.
func elsewhere(q *dns.Msg, zone string, udp bool) *dns.Msg {
	asked := q.Question[0]
	r := new(dns.Msg).SetReply(q)
	r.RecursionAvailable, r.Compress = true, true
	many := func(of int) {
		for i := 1; i <= of && asked.Qtype == dns.TypeA; i++ {
			r.Answer = append(r.Answer, addressOf(asked.Name, netip.AddrFrom4([4]byte{198, 18, 0, byte(i)})))
		}
	}
	switch first := strings.ToLower(dns.SplitDomainName(asked.Name + "x.")[0]); {
	case asked.Name == ".":
	case zone == "weave.":
		r.Answer = []dns.RR{addressOf(asked.Name, netip.MustParseAddr("192.0.2.2"))}
	case first == "drop":
		return nil
	case first == "nx":
		r.Rcode = dns.RcodeNameError
		r.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 300},
			Ns:  "ns.example.", Mbox: "root.example.", Serial: 7, Refresh: 1, Retry: 2, Expire: 3, Minttl: 4,
		}}
	case first == "servfail":
		r.Rcode = dns.RcodeServerFailure
	case first == "refused":
		r.Rcode = dns.RcodeRefused
	case first == "tc" && udp:
		many(2)
		r.Truncated = true
	case first == "tc":
		many(60)
	case first == "big", first == "opt512":
		many(50)
	case asked.Qtype == dns.TypeA:
		r.Answer = []dns.RR{addressOf(asked.Name, netip.MustParseAddr("192.0.2.1"))}
	}
	if q.IsEdns0() != nil {
		r.SetEdns0(1232, false)
	}
	if udp {
		r.Truncate(1232)
		r.Compress = true
	}
	return r
}

func addressOf(name string, a netip.Addr) dns.RR {
	return &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30}, A: a.AsSlice()}
}
