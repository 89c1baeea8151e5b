package dns

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
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

// node is what the zone holds at one name. It is immutable. A name without
// values is there because of names below it.
type node struct {
	values   []counted // sorted by compareValues
	children int32     // names that exist one label below
}

func (n *node) exists() bool { return len(n.values) > 0 || n.children > 0 }

// ofType returns the values of one type.
func (n *node) ofType(t uint16) []counted {
	before := func(c counted, t int) int { return cmp.Compare(int(c.rrtype()), t) }
	from, _ := slices.BinarySearchFunc(n.values, int(t), before)
	to, _ := slices.BinarySearchFunc(n.values, int(t)+1, before)
	return n.values[from:to]
}

// Records returns the A, AAAA and SRV records of all domains, sorted by name,
// type and data. The SOA and NS records at the top of each domain are not among
// them: they say nothing of the cluster.
func (z *Zone) Records() []Record {
	type named struct {
		name string
		node *node
	}
	all := make([]named, 0, z.names.Len())
	for name, n := range z.names.All() {
		all = append(all, named{name, n})
	}
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(a.name, b.name) })
	var out []Record
	for _, e := range all {
		for _, v := range e.node.values {
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
func (z *Zone) Names() int { return z.names.Len() }
