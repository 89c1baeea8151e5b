package forward

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// FuzzReply holds what is made of an upstream's bytes against the library: what
// it can read we serve with the same records, and no bytes break us.
func FuzzReply(f *testing.F) {
	q := query("www.example.com", dns.TypeA)
	for _, m := range []*dns.Msg{
		reply1(q, 0, "www.example.com. 300 IN CNAME x.example.com.", "x.example.com. 60 IN A 192.0.2.1"),
		reply1(q, dns.RcodeNameError, "example.com. 900 IN SOA ns.example.com. root.example.com. 1 2 3 4 60"),
		reply1(q, dns.RcodeServerFailure),
	} {
		m.Compress = true
		m.SetEdns0(1232, true)
		p, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	cfg := DefaultConfig()
	f.Fuzz(func(t *testing.T, p []byte) {
		end, ok := spelledName(p, headerSize)
		if len(p) < headerSize || !ok || end+4 > len(p) || binary.BigEndian.Uint16(p[4:]) != 1 || len(p) > maxTCP {
			return
		}
		qtype := binary.BigEndian.Uint16(p[end:])
		r, ok := parseReply(p, end+4, qtype, &cfg)
		if !ok {
			return
		}
		ask := append([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, p[headerSize:end+4]...)
		asked, err := parseQuery(ask)
		if err != nil {
			t.Fatalf("our own question % x: %v", ask, err)
		}
		now := time.Now()
		r.entry.stored = now
		out := r.entry.appendAnswer(nil, &asked, now.Add(time.Second), maxTCP, 1232, 0)
		var theirs, ours dns.Msg
		if theirs.Unpack(p) != nil {
			return
		}
		if err := ours.Unpack(out); err != nil {
			t.Fatalf("an answer the library reads becomes one it does not: %v\n% x\n% x", err, p, out)
		}
		if len(ours.Answer) != len(theirs.Answer) || len(ours.Ns) != len(theirs.Ns) || len(ours.Extra) > len(theirs.Extra) {
			t.Fatalf("records are lost:\n%v\n%v", &theirs, &ours)
		}
		small := r.entry.appendAnswer(nil, &asked, now, minUDP, 1232, 0)
		if len(small) > minUDP {
			t.Fatalf("%d octets for who takes 512", len(small))
		}
	})
}

// FuzzQuery gives a client's bytes to a Resolver without upstreams: each gets
// one answer, which is about its own question.
func FuzzQuery(f *testing.F) {
	q := query("www.example.com", dns.TypeA)
	q.SetEdns0(4096, true)
	p, err := q.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	r, err := New(DefaultConfig(), nil, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > maxTCP {
			return
		}
		answers := 0
		r.Resolve(p, client, false, func(msg []byte) {
			answers++
			if len(msg) > 1232 || len(p) >= 2 && len(msg) >= 2 && (msg[0] != p[0] || msg[1] != p[1]) {
				t.Fatalf("% x answered by % x", p, msg)
			}
		})
		if answers != 1 {
			t.Fatalf("%d answers", answers)
		}
	})
}
