package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"waggle/internal/outside"
)

// change turns what mesos-dns replied to a row into what we reply.
type change func(want digReply, r *digRow, of *digTruth) digReply

// changes are those that testdata/deliberate.tsv lists, with why.
var changes = map[string]change{
	"unasked": func(d digReply, _ *digRow, _ *digTruth) digReply { return d.bare("") },
	"soa": func(d digReply, r *digRow, of *digTruth) digReply {
		d.Authority = of.soa(r)
		return d
	},
	"nxdomain": func(d digReply, r *digRow, of *digTruth) digReply {
		d = d.bare("NXDOMAIN")
		d.Authority = of.soa(r)
		return d
	},
	"nodata": func(d digReply, r *digRow, of *digTruth) digReply {
		d = d.bare("NOERROR")
		d.Authority = of.soa(r)
		return d.with("aa")
	},
	"found": func(d digReply, r *digRow, of *digTruth) digReply {
		d = digReply{Rcode: "NOERROR", Question: r.question(), EDNS: d.EDNS}
		d.Answer = of.records(r.name, r.kind)
		d.Additional = of.targets(d.Answer)
		return d.with("qr", "aa", "rd", "ra")
	},
	"apex": func(d digReply, r *digRow, of *digTruth) digReply {
		d = d.bare("NOERROR")
		soa, ns := of.soa(r), fmt.Sprintf("%s %d IN NS %s", r.name, of.ttl, of.mname)
		switch r.kind {
		case "SOA":
			d.Answer = soa
		case "NS":
			d.Answer, d.Additional = []string{ns}, of.addresses(of.mname)
		case "ANY":
			d.Answer = append(soa, ns)
		}
		return d
	},
	"any": func(d digReply, _ *digRow, _ *digTruth) digReply {
		d.Authority, d.Additional = nil, nil
		return d
	},
	"case": func(d digReply, r *digRow, _ *digTruth) digReply {
		d.Answer = slices.Clone(d.Answer)
		for i, rec := range d.Answer {
			_, rest, _ := strings.Cut(rec, " ")
			d.Answer[i] = r.name + " " + rest
		}
		return d
	},
	"all-addresses": func(d digReply, _ *digRow, of *digTruth) digReply {
		d.Additional = of.targets(d.Answer)
		return d
	},
	"some-addresses": func(d digReply, _ *digRow, _ *digTruth) digReply {
		d.Additional = []string{someAddresses}
		return d
	},
	"edns": func(d digReply, r *digRow, _ *digTruth) digReply {
		d.EDNS = fmt.Sprintf("udp=1232,ver=0,do=%v", strings.Contains(r.asks, "do"))
		return d
	},
	"refused": func(d digReply, _ *digRow, _ *digTruth) digReply { return d.bare("REFUSED").without("aa") },
	"notimp": func(d digReply, _ *digRow, _ *digTruth) digReply {
		d = d.bare("NOTIMP").without("aa").with("rd")
		d.Question = ""
		return d
	},
	"ra": func(d digReply, _ *digRow, _ *digTruth) digReply { return d.with("ra") },
	"local": func(d digReply, _ *digRow, _ *digTruth) digReply {
		d = d.bare("NXDOMAIN")
		d.Authority = []string{". 60 IN SOA localhost. nobody.invalid. 1 3600 1200 604800 60"}
		return d
	},
	"by-tcp": func(d digReply, _ *digRow, _ *digTruth) digReply { return d.bare("NOERROR").with("tc", "ra") },
	"as-over-tcp": func(d digReply, r *digRow, of *digTruth) digReply {
		for i := 1; i <= 50; i++ {
			d.Answer = append(d.Answer, fmt.Sprintf("%s 30 IN A 198.18.0.%d", r.name, i))
		}
		slices.Sort(d.Answer)
		d.Answer = slices.Compact(d.Answer)
		return d.without("tc")
	},
	"not-taken": func(d digReply, r *digRow, _ *digTruth) digReply {
		d.Answer = slices.DeleteFunc(slices.Clone(d.Answer), func(rec string) bool {
			return strings.HasSuffix(rec, " 10.1.0.111") || strings.HasSuffix(rec, " 10.1.0.112")
		})
		return d
	},
}

// readDeliberate returns the changes of each row, by folder and id.
func readDeliberate(t *testing.T) map[string]map[string][]change {
	t.Helper()
	text, err := os.ReadFile("testdata/deliberate.tsv")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string][]change{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		c := strings.Split(line, "\t")
		if len(c) != 4 || c[3] == "" {
			t.Fatalf("%q is not of the form: folder, rows, change, why", line)
		}
		f, ok := changes[c[2]]
		if !ok {
			t.Fatalf("%s %s: there is no change %s", c[0], c[1], c[2])
		}
		if out[c[0]] == nil {
			out[c[0]] = map[string][]change{}
		}
		for _, id := range rowIDs(t, c[1]) {
			out[c[0]][id] = append(out[c[0]][id], f)
		}
	}
	return out
}

// rowIDs reads "q001 q004-q006".
func rowIDs(t *testing.T, text string) (out []string) {
	t.Helper()
	for _, part := range strings.Fields(text) {
		from, to, ok := strings.Cut(strings.ReplaceAll(part, "q", ""), "-")
		if !ok {
			to = from
		}
		first, err := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err != nil || err2 != nil {
			t.Fatalf("%q is no row", part)
		}
		for i := first; i <= last; i++ {
			out = append(out, fmt.Sprintf("q%03d", i))
		}
	}
	return out
}

// digTruth is what mesos-dns knew in one folder.
type digTruth struct {
	rows    []*digRow
	apex    string
	mname   string
	soaData string // of the SOA record, what is behind its owner
	ttl     int
	data    map[string][]string // of records, by "name type"; the names as they are served here
}

func recordedTruth(t *testing.T, folder string, rows []*digRow) *digTruth {
	t.Helper()
	var from struct {
		axfr
		TTL   int
		Mname string
	}
	outside.JSON(t, &from, "conformance", "mesos-dns", folder, "axfr.json")
	of := &digTruth{rows: rows, apex: from.Domain + ".", mname: from.Mname, ttl: from.TTL, data: map[string][]string{}}
	for rec := range from.axfr.records() {
		f := strings.Fields(asServedHere(rec))
		if notServed(rec) == "" {
			of.data[f[0]+" "+f[1]] = append(of.data[f[0]+" "+f[1]], f[2])
		}
	}
	for _, r := range rows {
		for _, rec := range r.reply.Authority {
			if owner, rest, _ := strings.Cut(rec, " "); strings.Contains(rest, " SOA "+of.mname) && strings.EqualFold(owner, r.name) {
				of.soaData = rest
			}
		}
	}
	return of
}

// ways are the transports to ask the row over: its own, and the other unless
// another row is for that.
func (of *digTruth) ways(r *digRow) []string {
	other := map[string]string{"udp": "tcp", "tcp": "udp"}[r.over]
	if slices.ContainsFunc(of.rows, func(o *digRow) bool {
		return o.over == other && o.name == r.name && o.kind == r.kind && o.class == r.class && o.opcode == r.opcode
	}) {
		return []string{r.over}
	}
	return []string{"udp", "tcp"}
}

// soa is the SOA record of the domain, spelled as the row asks for it.
func (of *digTruth) soa(r *digRow) []string {
	return []string{r.name[len(r.name)-len(of.apex):] + " " + of.soaData}
}

// records are those of a name, which they are spelled by.
func (of *digTruth) records(name, kind string) (out []string) {
	for _, data := range of.data[strings.ToLower(name)+" "+kind] {
		if kind == "SRV" {
			i := strings.LastIndexByte(data, ':')
			data = fmt.Sprintf("0 1 %s %s", data[i+1:], data[:i])
		}
		out = append(out, fmt.Sprintf("%s %d IN %s %s", name, of.ttl, kind, data))
	}
	return out
}

func (of *digTruth) addresses(name string) []string {
	return append(of.records(name, "A"), of.records(name, "AAAA")...)
}

// targets are the address records of the targets of SRV records, each once.
func (of *digTruth) targets(services []string) (out []string) {
	for _, rec := range services {
		f := strings.Fields(rec)
		out = append(out, of.addresses(f[len(f)-1])...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// someAddresses stands for as many addresses of targets as there is room for,
// which is a matter of chance.
const someAddresses = "some addresses of targets"

// likened returns got in the words of want where those leave something to
// chance: which records there are in a reply that is cut, and which addresses.
// There are no fewer records than mesos-dns has sent, unless they are longer: one more
// would not have fitted into what it has sent. And there is none that there is not.
func (of *digTruth) likened(got, want digReply, r *digRow) digReply {
	within := func(part, all []string) bool {
		return !slices.ContainsFunc(part, func(rec string) bool { return !slices.Contains(all, rec) })
	}
	if want.has("tc") && got.has("tc") && len(want.Answer) > 0 {
		distinct := len(slices.Compact(slices.Sorted(slices.Values(got.Answer))))
		all := of.records(r.name, r.kind)
		full := distinct >= len(want.Answer) || octets(got.Answer)+longest(all) > octets(want.Answer)
		if len(got.Answer) == distinct && full && within(got.Answer, all) {
			got.Answer = want.Answer
		}
	}
	if slices.Equal(want.Additional, []string{someAddresses}) && len(got.Additional) > 0 && within(got.Additional, of.targets(got.Answer)) {
		got.Additional = want.Additional
	}
	return got
}

// octets is how long records are as text, which grows as they do in a message.
func octets(list []string) (n int) {
	for _, rec := range list {
		n += len(rec)
	}
	return n
}

func longest(list []string) (n int) {
	for _, rec := range list {
		n = max(n, len(rec))
	}
	return n
}
