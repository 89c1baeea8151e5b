package wire

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/miekg/dns"
)

// tasks returns an Index of n names: of each task an address at its name and at
// one of its own, and a service.
func tasks(n int) *Index {
	e := NewIndex(testDomains()).Edit()
	for i := 0; i*3 < n; i++ {
		addTask(e, i, uint32(i), 1)
	}
	x, _ := e.Index()
	return x
}

func addTask(e *Editor, i int, addr uint32, n int32) {
	data := binary.BigEndian.AppendUint32(nil, addr)
	one := AppendName(nil, fmt.Sprintf("service-%06d-group-abcde-s%d.marathon.mesos.", i, i%100))
	e.Add(AppendName(nil, fmt.Sprintf("service-%06d-group.marathon.mesos.", i)), typeA, data, n)
	e.Add(one, typeA, data, n)
	service := append([]byte{0, 0, 0, 1, 0, 80}, one...)
	e.Add(AppendName(nil, fmt.Sprintf("_service-%06d-group._tcp.marathon.mesos.", i)), typeSRV, service, n)
}

func TestNamesTakeLittleMemory(t *testing.T) {
	const most = 105 // octets, of the issue
	for _, n := range []int{1000, 100_000} {
		before := heap()
		x := tasks(n)
		if got := float64(heap()-before) / float64(x.Len()); got > most {
			t.Errorf("%d names take %.1f octets each", x.Len(), got)
		} else {
			t.Logf("%d names: %.1f octets each", x.Len(), got)
		}
		runtime.KeepAlive(x)
	}
}

// heap returns how many octets are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkAnswer is the cost of one answer from names in random order, of which
// half are addresses.
func BenchmarkAnswer(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint("names=", n), func(b *testing.B) {
			x := tasks(n)
			rng := rand.New(rand.NewPCG(1, 2))
			packets := make([][]byte, 1<<16)
			for k := range packets {
				i := rng.IntN(n / 3)
				name, rrtype := fmt.Sprintf("Service-%06d-group.marathon.mesos.", i), dns.TypeA
				switch kind := rng.IntN(100); {
				case kind < 25:
					name, rrtype = fmt.Sprintf("_service-%06d-group._tcp.marathon.mesos.", i), dns.TypeSRV
				case kind < 40:
					rrtype = dns.TypeAAAA
				case kind < 50:
					name = "x" + name
				}
				packets[k] = packet(b, name, rrtype, nil)
			}
			var q Query
			room := make([]byte, 0, MaxUDP)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p := packets[i%len(packets)]
				if !q.Parse(p) {
					b.Fatal("not parsed")
				}
				x.Answer(room, p, &q, q.Size, uint32(i)*0x9e3779b9)
			}
		})
	}
}

// BenchmarkChange is the cost of one task having another address.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint("names=", n), func(b *testing.B) {
			x := tasks(n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e, task := x.Edit(), i*7919%(n/3)
				addTask(e, task, uint32(task), -1)
				addTask(e, task, uint32(task)+1<<31, 1)
				e.Index()
			}
		})
	}
}

// BenchmarkIndexFromNothing is the cost of all names at once.
func BenchmarkIndexFromNothing(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint("names=", n), func(b *testing.B) {
			for b.Loop() {
				tasks(n)
			}
		})
	}
}
