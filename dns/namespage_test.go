package dns

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"waggle/model"
)

// stands is what the words of the page stand for in its cluster.
var stands = strings.NewReplacer(
	"HASH", "[a-z0-9]{5}", "TASK", "(memcached|bridged|mixed|legacy)", "FRAMEWORK", "marathon", "NETWORK", "(dcos|dcos6)",
	"PORT", "(connect|admin|http)", "PROTO", "(tcp|udp)", "VIP", "web", "ADDRESS", "[0-9a-f.]+",
	"AGENT", "(s0|0f7a-s0|node1-example-com|node1\\.example\\.com)", "N", "[0-9]+", ".", "\\.",
)

// pageRow is a kind of name as the page has it.
type pageRow struct {
	kind    *regexp.Regexp
	types   []string
	example string
	rrtype  string
	answer  string
	line    string
}

func readPage(t *testing.T) (rows []pageRow) {
	t.Helper()
	text, err := os.ReadFile("../docs/names.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) < 4 || !strings.HasPrefix(cells[0], "`") {
			continue
		}
		unquoted := func(i int) string { return strings.Trim(cells[i], "`") }
		r := pageRow{line: line}
		if second := strings.HasPrefix(cells[1], "`"); !second {
			r.kind = regexp.MustCompile("^" + stands.Replace(unquoted(0)+".") + "$")
			r.types = strings.Fields(cells[1])
		}
		r.example, r.rrtype, _ = strings.Cut(strings.ReplaceAll(cells[2], "`", ""), " ")
		r.answer = unquoted(3)
		rows = append(rows, r)
	}
	return rows
}

// pageZone is the cluster of the page: the inventory, a task that has ports of
// both kinds, and one without discovery information.
func pageZone() *Zone {
	snap, table, cfg := inventory()
	apps := snap.Apps.Edit()
	for _, task := range []*model.Task{
		memcached(func(t *model.Task) {
			t.Key.ID, t.Discovery.Name, t.AgentID = "mixed.1", "mixed", "A-S0"
			t.Addrs, t.Ports = in("", ownIP2.Next()), []model.Port{port("http", 80, 31002), port("admin", 81, 0)}
		}),
		memcached(func(t *model.Task) {
			t.Key.ID, t.Name, t.Discovery, t.AgentID = "legacy.1", "legacy", nil, "A-S0"
			t.Addrs, t.Resources = in("", agentIP), []model.PortRange{{First: 31500, Last: 31500}}
		}),
	} {
		for key, a := range world(task).Apps.All() {
			apps.Set(key, a)
		}
	}
	snap.Apps = apps.Groups()
	return Build(nil, snap, table, cfg)
}

// TestThePageOfNames holds docs/names.md true: its examples are asked of a running
// server, over UDP and TCP, and every name there is of a kind that it lists.
func TestThePageOfNames(t *testing.T) {
	rows := readPage(t)
	if len(rows) < 40 {
		t.Fatalf("only %d rows read", len(rows))
	}
	z := pageZone()
	to := serve(t, DefaultServerConfig(), func() *Zone { return z }, nil).Addrs()[0].String()
	for _, r := range rows {
		if r.kind != nil && !r.kind.MatchString(r.example+".") && !strings.Contains(r.line, "CONFIGURED") {
			t.Errorf("the example is not of the kind: %s", r.line)
		}
		for _, proto := range []string{protoUDP, protoTCP} {
			c := &dns.Client{Net: proto, Timeout: patience}
			m, _, err := c.Exchange(question(r.example+".", dns.StringToType[r.rrtype]), to)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { return data(rr) == r.answer && dns.TypeToString[rr.Header().Rrtype] == r.rrtype }) {
				t.Errorf("over %s the answer is %v: %s", proto, m.Answer, r.line)
			}
		}
	}
	for _, rec := range z.Records() {
		if !slices.ContainsFunc(rows, func(r pageRow) bool {
			of := r.kind != nil && r.kind.MatchString(rec.Name) || strings.Contains(r.line, "CONFIGURED") && z.layout.taken[rec.Name]
			return of && slices.Contains(r.types, rec.Type)
		}) {
			t.Errorf("the page has no kind for %s %s", rec.Name, rec.Type)
		}
	}
}
