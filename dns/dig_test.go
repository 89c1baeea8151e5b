package dns

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"waggle/internal/outside"
)

// digRow is one query and what mesos-dns answered.
type digRow struct {
	variant, id, name, rrtype, class, opcode, proto, edns string
	rcode, flags, note                                    string
	answer, authority                                     []string
}

func readDig(t testing.TB, variant string) []digRow {
	t.Helper()
	text, err := os.ReadFile(outside.Path(t, "conformance", "mesos-dns", variant, "dig.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	list := func(cell string) []string {
		if cell == "-" {
			return nil
		}
		return strings.Split(cell, " | ")
	}
	var rows []digRow
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] {
		c := strings.Split(line, "\t")
		rows = append(rows, digRow{
			variant: variant, id: c[0], name: dns.Fqdn(c[1]), rrtype: c[2], class: c[3], opcode: c[4], proto: c[5], edns: c[6],
			rcode: c[8], flags: c[9], answer: list(c[12]), authority: list(c[13]), note: c[18],
		})
	}
	return rows
}

// changed are the names we have other answers for, and why.
var changed = map[string]string{
	"_d-portbig._tcp.marathon.mesos.":      "port 70000 came out as 4464",
	"_big._d-portbig._tcp.marathon.mesos.": "port 70000 came out as 4464",
	"d.upper_name.marathon.mesos.":         "a written name with capitals was never found",
	"slave.mesos.":                         "a framework called slave took part in it",
	"leader.mesos.":                        "a framework called leader took part in it",
	"_framework._tcp.leader.mesos.":        "a framework called leader took part in it",
	"_framework._tcp.slave.mesos.":         "a framework called slave took part in it",
}

// kept reports whether we answer as mesos-dns did. What we do not is listed in
// facts about mesos-dns as a bug of it, or is tested on its own.
func (r digRow) kept(z *Zone) bool {
	d, n := z.find(strings.ToLower(r.name))
	switch {
	case d == nil:
		return false // forwarded there
	case changed[strings.ToLower(r.name)] != "" && strings.HasPrefix(r.variant, "edge"), !fitsQuery(r.name):
		return false
	case r.class != "IN", r.opcode != "QUERY", r.edns != "-":
		return false
	case r.rrtype != "A" && r.rrtype != "AAAA" && r.rrtype != "SRV":
		return false
	case strings.Contains(r.name, "*"):
		return false // stripped there
	case strings.ToLower(r.name) == d.apex:
		return false // NXDOMAIN there
	case n != nil && len(n.records) == 0:
		return false // an empty non-terminal: NXDOMAIN there
	case r.rrtype == "SRV" && r.answer == nil:
		return false // no SOA there, or no reply at all
	case strings.Contains(" "+r.flags+" ", " tc "):
		return false // cut there, at 512 and otherwise than here
	}
	return true
}

type digAnswer struct {
	Rcode         string
	Authoritative bool
	Answer        []string
	SOAs          int
}

func (r digRow) want() digAnswer {
	a := digAnswer{Rcode: r.rcode, Authoritative: true, Answer: slices.Clone(r.answer), SOAs: len(r.authority)}
	for i := range a.Answer {
		a.Answer[i] = strings.ToLower(a.Answer[i])
	}
	slices.Sort(a.Answer)
	return a
}

func digged(r *dns.Msg) digAnswer {
	a := digAnswer{Rcode: dns.RcodeToString[r.Rcode], Authoritative: r.Authoritative, SOAs: len(r.Ns)}
	for _, rr := range r.Answer {
		a.Answer = append(a.Answer, strings.ToLower(strings.Join(strings.Fields(rr.String()), " ")))
	}
	slices.Sort(a.Answer)
	return a
}

func TestAnswersAreThoseOfMesosDNS(t *testing.T) {
	checked := map[string]int{}
	for _, variant := range []string{"default", "domain", "host", "netinfo", "masters3", "edge-default", "big-default"} {
		t.Run(variant, func(t *testing.T) {
			z := zoneOf(t, variant)
			to := serve(t, DefaultServerConfig(), func() *Zone { return z }, nil).Addrs()[0].String()
			for _, row := range readDig(t, variant) {
				if !row.kept(z) {
					continue
				}
				c := &dns.Client{Net: row.proto, Timeout: patience}
				r, _, err := c.Exchange(question(row.name, dns.StringToType[row.rrtype]), to)
				if err != nil {
					t.Errorf("%s %s: %v", row.id, row.name, err)
					continue
				}
				if diff := cmp.Diff(row.want(), digged(r)); diff != "" {
					t.Errorf("%s %s %s over %s (%s):\n%s", row.id, row.name, row.rrtype, row.proto, row.note, diff)
				}
				checked[fmt.Sprint(row.rrtype, " ", row.rcode, " ", len(row.answer) > 0)]++
			}
		})
	}
	for _, kind := range []string{"A NOERROR true", "AAAA NOERROR true", "SRV NOERROR true", "AAAA NOERROR false", "A NXDOMAIN false"} {
		if checked[kind] < 20 && !t.Failed() {
			t.Errorf("only %d rows of %s", checked[kind], kind)
		}
	}
}
