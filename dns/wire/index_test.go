package wire

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testDomains() []Domain {
	soa := AppendName(AppendName(nil, "ns1.mesos."), "root.ns1.mesos.")
	soa = append(soa, make([]byte, 20)...)
	return []Domain{
		{Apex: AppendName(nil, "inner.mesos."), TTL: 5, Negative: 4, SOA: soa},
		{Apex: AppendName(nil, "mesos."), TTL: 60, Negative: 30, SOA: soa},
	}
}

// naive is the Index as a map from names to types to data to counts.
type naive map[string]map[uint16]map[string]int32

func (m naive) add(name string, rrtype uint16, data string, n int32) {
	if m[name] == nil {
		m[name] = map[uint16]map[string]int32{}
	}
	if m[name][rrtype] == nil {
		m[name][rrtype] = map[string]int32{}
	}
	m[name][rrtype][data] += n
}

// lines says all that m holds, one line a name.
func (m naive) lines() []string {
	below := map[string]int32{}
	for name, types := range m {
		for _, data := range types {
			for _, n := range data {
				below[name] += 0
				for rest := name; ; {
					_, up, _ := strings.Cut(rest, ".")
					if rest = up; rest == "" || !strings.HasSuffix("."+rest, ".mesos.") {
						break
					}
					below[rest] += n
				}
			}
		}
	}
	var out []string
	for name, under := range below {
		var records []string
		for rrtype, data := range m[name] {
			for d, n := range data {
				if n > 0 {
					records = append(records, fmt.Sprintf("%05d %x %d", rrtype, d, n))
				}
			}
		}
		slices.Sort(records)
		if under > 0 || len(records) > 0 {
			out = append(out, fmt.Sprint(name, under, records))
		}
	}
	slices.Sort(out)
	return out
}

func lines(x *Index) []string {
	var out []string
	for n := range x.All() {
		var records []string
		for r := range n.Records() {
			records = append(records, fmt.Sprintf("%05d %x %d", r.Type, r.Data, r.Count))
		}
		out = append(out, fmt.Sprint(Text(n.Name()), n.Below(), records))
	}
	slices.Sort(out)
	return out
}

func TestRandomWalkEqualsAMap(t *testing.T) {
	for seed := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 1))
		x, m := NewIndex(testDomains()), naive{}
		labels := []string{"a", "bb", "_tcp", "x1", "y"}
		for step := range 150 {
			e, before := x.Edit(), lines(x)
			for range rng.IntN(40) {
				name := []string{"mesos.", "inner.mesos."}[rng.IntN(2)]
				for range rng.IntN(5) {
					name = labels[rng.IntN(len(labels))] + "." + name
				}
				rrtype := []uint16{typeA, typeAAAA, typeSRV, 16}[rng.IntN(4)]
				data := strings.Repeat("d", 1+rng.IntN(3)) + fmt.Sprint(rng.IntN(4))
				n := int32(1 + rng.IntN(2))
				if has := m[name][rrtype][data]; has > 0 && (step%50 > 25 || rng.IntN(2) == 0) {
					n = -min(n, has)
				}
				m.add(name, rrtype, data, n)
				e.Add(AppendName(nil, name), rrtype, []byte(data), n)
			}
			next, _ := e.Index()
			if diff := cmp.Diff(m.lines(), lines(next)); diff != "" {
				t.Fatalf("seed %d, step %d:\n%s", seed, step, diff)
			}
			if diff := cmp.Diff(before, lines(x)); diff != "" {
				t.Fatalf("seed %d, step %d: the Index before has changed:\n%s", seed, step, diff)
			}
			if next.Len() != len(lines(next)) {
				t.Fatalf("seed %d, step %d: Len is %d, there are %d", seed, step, next.Len(), len(lines(next)))
			}
			x = next
		}
	}
}

func TestShardsGrowAndShrinkWithTheNames(t *testing.T) {
	const names = 5000
	name := func(i int) []byte { return AppendName(nil, fmt.Sprintf("n%d.mesos.", i)) }
	addr := func(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }
	x := NewIndex(testDomains())
	for from := 0; from < names; from += 500 {
		e := x.Edit()
		for i := from; i < from+500; i++ {
			e.Add(name(i), typeA, addr(i), 1)
		}
		x, _ = e.Index()
	}
	if got := 1 << x.bits; got < names/perShard || got > 2*names/perShard {
		t.Errorf("%d shards for %d names", got, names)
	}
	for i := range names {
		if n, ok := x.Get(name(i)); !ok || string(slices.Collect(n.Records())[0].Data) != string(addr(i)) {
			t.Fatalf("%s: %v", Text(name(i)), ok)
		}
	}
	e := x.Edit()
	for i := range names - 10 {
		e.Add(name(i), typeA, addr(i), -1)
	}
	// What shrinks is seen by the change after it.
	x, _ = e.Index()
	e = x.Edit()
	e.Add(name(names-1), typeA, addr(0), 1)
	x, _ = e.Index()
	if x.Len() != 11 || x.bits != minBits {
		t.Errorf("%d names in %d shards", x.Len(), 1<<x.bits)
	}
}

func TestChangesThatComeToNothingChangeNothing(t *testing.T) {
	a, b := AppendName(nil, "a.b.mesos."), AppendName(nil, "b.mesos.")
	e := NewIndex(testDomains()).Edit()
	e.Add(a, typeA, []byte{1, 2, 3, 4}, 1)
	x, changed := e.Index()
	if !changed {
		t.Error("a new record is no change")
	}
	e = x.Edit()
	e.Add(a, typeA, []byte{1, 2, 3, 4}, -1)
	e.Add(b, typeA, []byte{1, 2, 3, 4}, 1)
	e.Add(b, typeA, []byte{1, 2, 3, 4}, -1)
	e.Add(a, typeA, []byte{1, 2, 3, 4}, 1)
	if next, changed := e.Index(); changed || next != x {
		t.Errorf("changed %v, same Index %v", changed, next == x)
	}
	e = x.Edit()
	e.Add(a, typeA, []byte{1, 2, 3, 4}, 1)
	if next, changed := e.Index(); changed || next == x {
		t.Errorf("a record given twice: changed %v, same Index %v", changed, next == x)
	}
	e = x.Edit()
	e.Add(AppendName(nil, "xmesos."), typeA, []byte{1, 2, 3, 4}, 1)
	if next, changed := e.Index(); changed || next != x {
		t.Error("a name that is not ours was taken")
	}
}
