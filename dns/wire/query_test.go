package wire

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func packet(t testing.TB, name string, rrtype uint16, change func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.Id, m.RecursionDesired = 4711, true
	m.Question = []dns.Question{{Name: name, Qtype: rrtype, Qclass: dns.ClassINET}}
	if change != nil {
		change(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func edns(size uint16, do bool) func(*dns.Msg) {
	return func(m *dns.Msg) { m.SetEdns0(size, do) }
}

func TestParseTakesOnlyTheUsualQuery(t *testing.T) {
	longest := strings.Repeat(strings.Repeat("L", 63)+".", 3) + strings.Repeat("l", 61) + "."
	good := packet(t, "A.b.", dns.TypeA, nil)
	with := func(at int, octet byte) []byte {
		b := bytes.Clone(good)
		b[at] = octet
		return b
	}
	for _, c := range []struct {
		name   string
		packet []byte
		want   Query
		ok     bool
	}{
		{"a question", good, Query{Type: dns.TypeA, Size: 512}, true},
		{"EDNS", packet(t, "A.b.", dns.TypeSRV, edns(1400, true)), Query{Type: dns.TypeSRV, Size: 1232, EDNS: true, DO: true}, true},
		{"a small size", packet(t, "A.b.", dns.TypeSRV, edns(1, false)), Query{Type: dns.TypeSRV, Size: 512, EDNS: true}, true},
		{"the root", packet(t, ".", dns.TypeA, nil), Query{Type: dns.TypeA, Size: 512}, true},
		{"the longest name", packet(t, longest, dns.TypeA, nil), Query{Type: dns.TypeA, Size: 512}, true},
		{"a type with letters for octets", packet(t, "A.b.", 0x4141, nil), Query{Type: 0x4141, Size: 512}, true},
		{"a name that is too long", append(append(good[:12:12], bytes.Repeat([]byte{1, 'a'}, 128)...), 0, 0, 1, 0, 1), Query{}, false},
		{"nothing", nil, Query{}, false},
		{"a response", with(2, 0x81), Query{}, false},
		{"another opcode", with(2, 0x10), Query{}, false},
		{"two questions", with(5, 2), Query{}, false},
		{"an answer", with(7, 1), Query{}, false},
		{"a record that is missing", with(11, 1), Query{}, false},
		{"a label that is a pointer", with(12, 0xc0), Query{}, false},
		{"a name that goes on", with(16, 1), Query{}, false},
		{"class CH", with(20, 3), Query{}, false},
		{"ANY", with(18, 255), Query{}, false},
		{"something behind", append(bytes.Clone(good), 0), Query{}, false},
		{"EDNS version 1", packet(t, "A.b.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(512, false).IsEdns0().SetVersion(1) }), Query{}, false},
		{"an option", packet(t, "A.b.", dns.TypeA, func(m *dns.Msg) {
			m.SetEdns0(512, false).IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}}
		}), Query{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var q Query
			if ok := q.Parse(c.packet); ok != c.ok {
				t.Fatalf("taken: %v", ok)
			}
			if !c.ok {
				return
			}
			if q.Type != c.want.Type || q.Size != c.want.Size || q.EDNS != c.want.EDNS || q.DO != c.want.DO {
				t.Errorf("got type %d, size %d, EDNS %v, DO %v", q.Type, q.Size, q.EDNS, q.DO)
			}
			if want := bytes.ToLower(c.packet[12 : 12+q.nameSize]); !bytes.Equal(q.Name(), want) {
				t.Errorf("name %q, want %q", q.Name(), want)
			}
		})
	}
	var q Query
	for size := range good {
		if q.Parse(good[:size]) {
			t.Errorf("%d octets of a query were taken", size)
		}
	}
}

func TestFoldingIsOfLettersOnly(t *testing.T) {
	name := make([]byte, 256+8)
	for i := range 256 {
		name[i] = byte(i)
	}
	foldName(name, 256)
	for i := range 256 {
		want := byte(i)
		if 'A' <= i && i <= 'Z' {
			want += 'a' - 'A'
		}
		if name[i] != want {
			t.Errorf("%#x became %#x", i, name[i])
		}
	}
}

func TestTextIsTheReverseOfAppendName(t *testing.T) {
	for _, name := range []string{"a.", "www.a-b._c.mesos."} {
		if got := Text(AppendName(nil, name)); got != name {
			t.Errorf("%q became %q", name, got)
		}
	}
	if got := Text([]byte{0}); got != "." {
		t.Errorf("the root became %q", got)
	}
}

// FuzzParse checks against a DNS library that what is taken is what it says.
func FuzzParse(f *testing.F) {
	f.Add(packet(f, "Memcached.marathon.mesos.", dns.TypeA, nil))
	f.Add(packet(f, "_memcached._tcp.marathon.mesos.", dns.TypeSRV, edns(4096, true)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var q Query
		if !q.Parse(b) {
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil {
			t.Fatalf("taken, but: %v", err)
		}
		asked := m.Question[0]
		name := make([]byte, 300)
		n, err := dns.PackDomainName(asked.Name, name, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		foldName(name[:], n)
		opt := m.IsEdns0()
		if m.Response || m.Opcode != 0 || len(m.Question) != 1 || len(m.Answer)+len(m.Ns) != 0 || asked.Qclass != dns.ClassINET ||
			asked.Qtype != q.Type || !bytes.Equal(name[:n], q.Name()) || (opt != nil) != q.EDNS || len(m.Extra) > 1 {
			t.Errorf("%+v\nis not\n%v", q, m)
		}
		if opt != nil && (opt.Version() != 0 || opt.Do() != q.DO || len(opt.Option) != 0) {
			t.Errorf("%+v\nis not\n%v", q, opt)
		}
	})
}
