package forward

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/miekg/dns"

	"waggle/dns/wire"
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
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > maxTCP {
			return
		}
		cached(t, p)
		var theirs, ours dns.Msg
		if theirs.Unpack(p) != nil {
			return
		}
		// As the library writes it: pointers only to names that stand before.
		theirs.Compress = true
		sane, err := theirs.Pack()
		if err != nil || theirs.Unpack(sane) != nil {
			return
		}
		out := cached(t, sane)
		if out == nil {
			return
		}
		if err := ours.Unpack(out); err != nil {
			t.Fatalf("an answer the library reads becomes one it does not: %v\n% x\n% x", err, sane, out)
		}
		if len(ours.Answer) != len(theirs.Answer) || len(ours.Ns) != len(theirs.Ns) || len(ours.Extra) > len(theirs.Extra) {
			t.Fatalf("records are lost:\n%v\n%v", &theirs, &ours)
		}
		for i, rr := range theirs.Answer {
			if was := dns.Copy(rr); !dns.IsDuplicate(was, ours.Answer[i]) {
				t.Fatalf("%v became %v", was, ours.Answer[i])
			}
		}
	})
}

// cached returns what a client is answered that asked p's question when p was an
// upstream's answer to it; nil where p is none.
func cached(t *testing.T, p []byte) []byte {
	end, ok := spelledName(p, headerSize)
	if len(p) < headerSize || !ok || end+4 > len(p) || binary.BigEndian.Uint16(p[4:]) != 1 {
		return nil
	}
	cfg := DefaultConfig()
	r, ok := parseReply(p, end+4, binary.BigEndian.Uint16(p[end:]), &cfg)
	if !ok {
		return nil
	}
	ask := append([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, p[headerSize:end+4]...)
	asked, err := parseQuery(ask)
	if err != nil {
		t.Fatalf("our own question % x: %v", ask, err)
	}
	now := time.Now()
	r.entry.stored = now
	small := r.entry.appendAnswer(nil, &asked, now, minUDP, 1232, 0)
	if len(small) > minUDP {
		t.Fatalf("%d octets for who takes 512", len(small))
	}
	return r.entry.appendAnswer(nil, &asked, now.Add(time.Second), maxTCP, 1232, 0)
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
		r.Resolve(p, client, false, nil, func(_ *wire.Outbox, msg []byte) {
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
