package dns

import (
	"cmp"
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
	Type string // A, AAAA or SRV
	TTL  uint32 // seconds
	Data string // an address, or "priority weight port target."
}

// value is what a record says: an address or, with a target, a service.
type value struct {
	addr   netip.Addr
	target string
	port   uint16
}

func (v value) rrtype() uint16 {
	switch {
	case v.target != "":
		return dns.TypeSRV
	case v.addr.Is4():
		return dns.TypeA
	}
	return dns.TypeAAAA
}

func compareValues(a, b value) int {
	return cmp.Or(cmp.Compare(a.rrtype(), b.rrtype()), a.addr.Compare(b.addr),
		strings.Compare(a.target, b.target), cmp.Compare(a.port, b.port))
}

// counted is a value and how many tasks, agents or services give it to a name.
// It is served once however many do, and until the last is gone.
type counted struct {
	value
	n int32
}

// node is what the zone holds at one name. A name without values is there
// because of names below it.
type node struct {
	values []counted // sorted by compareValues
	below  int       // values that names below it have, each as often as given
}

// ofType returns the values of one type.
func (n *node) ofType(t uint16) []counted {
	before := func(c counted, t int) int { return cmp.Compare(int(c.rrtype()), t) }
	from, _ := slices.BinarySearchFunc(n.values, int(t), before)
	to, _ := slices.BinarySearchFunc(n.values, int(t)+1, before)
	return n.values[from:to]
}

// appendData appends the data of v's record in wire format.
func (l *layout) appendData(b []byte, v value) []byte {
	if v.target == "" {
		return append(b, v.addr.AsSlice()...)
	}
	const priority = 0
	b = binary.BigEndian.AppendUint16(b, priority)
	b = binary.BigEndian.AppendUint16(b, l.cfg.SRVWeight)
	b = binary.BigEndian.AppendUint16(b, v.port)
	return wire.AppendName(b, v.target)
}

// valueOf is the reverse of appendData.
func valueOf(rrtype uint16, data []byte) value {
	if rrtype == dns.TypeSRV {
		return value{target: wire.Text(data[6:]), port: binary.BigEndian.Uint16(data[4:])}
	}
	addr, _ := netip.AddrFromSlice(data)
	return value{addr: addr}
}

func nodeOf(w wire.Node) *node {
	n := &node{below: w.Below()}
	for r := range w.Records() {
		n.values = append(n.values, counted{valueOf(r.Type, r.Data), r.Count})
	}
	slices.SortFunc(n.values, func(a, b counted) int { return compareValues(a.value, b.value) })
	return n
}

// Records returns the A, AAAA and SRV records of all domains, sorted by name,
// type and data. The SOA and NS records at the top of each domain are not among
// them: they say nothing of the cluster.
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
		for _, v := range nodeOf(e.node).values {
			out = append(out, z.layout.record(e.name, v.value))
		}
	}
	return out
}

func (l *layout) record(name string, v value) Record {
	return Record{Name: name, Type: dns.TypeToString[v.rrtype()], TTL: l.domainOf(name).ttl, Data: l.text(v)}
}

func (l *layout) text(v value) string {
	if v.target == "" {
		return v.addr.String()
	}
	return fmt.Sprintf("0 %d %d %s", l.cfg.SRVWeight, v.port, v.target)
}

// Names returns how many names there are, those included that have no records
// but names below them.
func (z *Zone) Names() int { return z.index.Len() }
