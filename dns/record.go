package dns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"waggle/dns/wire"
)

// Record is one resource record, as people read them.
type Record struct {
	Name string // lower case, with the final dot
	Type string // A, AAAA, CNAME, PTR, SRV or TXT
	TTL  uint32 // seconds
	Data string // in presentation form: an address, or "priority weight port target."
}

// value is what a record is made of: an address, or with a target a service,
// unless the type says something else.
type value struct {
	rrtype uint16     // CNAME, PTR or TXT, else 0
	addr   netip.Addr // of A and AAAA
	target string     // of SRV, CNAME and PTR
	text   string     // of TXT, in wire format
	// The rest is SRV's.
	port, priority, weight uint16
}

func (v value) kind() uint16 {
	switch {
	case v.rrtype != 0:
		return v.rrtype
	case v.target != "":
		return dns.TypeSRV
	case v.addr.Is4():
		return dns.TypeA
	}
	return dns.TypeAAAA
}

// appendData appends the data of v's record in wire format.
func (v value) appendData(b []byte) []byte {
	switch v.kind() {
	case dns.TypeA, dns.TypeAAAA:
		return append(b, v.addr.AsSlice()...)
	case dns.TypeTXT:
		return append(b, v.text...)
	case dns.TypeSRV:
		b = binary.BigEndian.AppendUint16(b, v.priority)
		b = binary.BigEndian.AppendUint16(b, v.weight)
		b = binary.BigEndian.AppendUint16(b, v.port)
	}
	return wire.AppendName(b, v.target)
}

// node is what the zone holds at one name. A name without records is there
// because of names below it.
type node struct {
	records []wire.Record // by type and data
	below   int           // records that names below it have, each as often as given
	renames []rename      // what led here, to be undone in targets
}

// ofType returns the records of one type.
func (n *node) ofType(t uint16) []wire.Record {
	from := slices.IndexFunc(n.records, func(r wire.Record) bool { return r.Type == t })
	if from < 0 {
		return nil
	}
	to := from
	for to < len(n.records) && n.records[to].Type == t {
		to++
	}
	return n.records[from:to]
}

// rr returns a record of n as the library has it.
func (n *node) rr(name string, r wire.Record, ttl uint32) dns.RR {
	h := header(name, r.Type, ttl)
	h.Rdlength = uint16(len(r.Data))
	rr, _, err := dns.UnpackRRWithHeader(h, r.Data, 0)
	if err != nil {
		panic(fmt.Sprintf("record %s %d: %x: %v", name, r.Type, r.Data, err)) // appendData made it
	}
	for _, step := range slices.Backward(n.renames) {
		switch rr := rr.(type) {
		case *dns.SRV:
			rr.Target = step.back(rr.Target)
		case *dns.CNAME:
			rr.Target = step.back(rr.Target)
		case *dns.PTR:
			rr.Ptr = step.back(rr.Ptr)
		}
	}
	return rr
}

func nodeOf(w wire.Node, renames []rename) *node {
	return &node{records: slices.Collect(w.Records()), below: w.Below(), renames: renames}
}

// recordsOf returns what n has, as people read it.
func (n *node) recordsOf(name string, ttl uint32) []Record {
	out := make([]Record, len(n.records))
	for i, r := range n.records {
		out[i] = Record{Name: name, Type: dns.TypeToString[r.Type], TTL: ttl, Data: data(n.rr(name, r, ttl))}
	}
	return out
}

// data returns the presentation form of rr's data.
func data(rr dns.RR) string { return strings.TrimPrefix(rr.String(), rr.Header().String()) }

// Records returns the records of all domains, by name, type and data in wire
// format. The SOA and NS records at the top of each domain are not among them, for they
// say nothing of the cluster, and of a domain that is another's by a second name
// there are none.
func (z *Zone) Records() []Record {
	type named struct {
		name string
		node wire.Node
	}
	all := make([]named, 0, z.index.Len())
	for n := range z.index.All() {
		all = append(all, named{wire.Text(n.Name()), n})
	}
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(a.name, b.name) })
	var out []Record
	for _, e := range all {
		if n := nodeOf(e.node, nil); len(n.records) > 0 {
			out = append(out, n.recordsOf(e.name, z.layout.domainOf(e.name).ttl)...)
		}
	}
	return out
}

// record returns the record that v makes of name.
func (l *layout) record(name string, v value) Record {
	d := v.appendData(nil)
	n := node{records: []wire.Record{{Type: v.kind(), Data: d}}}
	return n.recordsOf(name, l.domainOf(name).ttl)[0]
}

// Names returns how many names there are, those included that have no records
// but names below them.
func (z *Zone) Names() int { return z.index.Len() }

// Serial returns what SOA records have: it grows when a record changes.
func (z *Zone) Serial() uint32 { return z.serial }
