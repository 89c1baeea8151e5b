package dns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"waggle/dns/wire"
)

// The checks a correct authoritative server passes, put to the server from
// outside, over UDP and TCP. Names used:
const (
	nameA   = "memcached.marathon.mesos."       // one address
	nameSRV = "_memcached._tcp.marathon.mesos." // one service
	nameBig = "big.marathon.mesos."             // 200 addresses
	nameENT = "_tcp.marathon.mesos."            // nothing, but names below
	nameNX  = "missing.marathon.mesos."
)

// check is one query and what must be true of the reply.
type check struct {
	name  string
	query any // *dns.Msg, or the packet as []byte
	want  func(t *testing.T, query []byte, r *dns.Msg, raw []byte)
}

// ask returns a query with recursion desired and an id of its own.
func ask(name string, rrtype uint16, edits ...func(*dns.Msg)) *dns.Msg {
	q := question(name, rrtype)
	q.Id = 0x1234
	for _, edit := range edits {
		edit(q)
	}
	return q
}

func edns(size uint16, edits ...func(*dns.OPT)) func(*dns.Msg) {
	return func(q *dns.Msg) {
		q.SetEdns0(size, false)
		for _, edit := range edits {
			edit(q.IsEdns0())
		}
	}
}

func option(code uint16, data ...byte) func(*dns.OPT) {
	return func(o *dns.OPT) { o.Option = append(o.Option, &dns.EDNS0_LOCAL{Code: code, Data: data}) }
}

// expectation is what the header and the section sizes of a reply must be.
type expectation struct {
	Rcode             string
	AA, TC, RA, Z, AD bool
	Answer, SOAs      int
	OPT               bool
}

func expect(want expectation) func(*testing.T, []byte, *dns.Msg, []byte) {
	return func(t *testing.T, query []byte, r *dns.Msg, raw []byte) {
		t.Helper()
		got := expectation{
			Rcode: rcodeLabel(r.Rcode), AA: r.Authoritative, TC: r.Truncated, RA: r.RecursionAvailable,
			Z: r.Zero, AD: r.AuthenticatedData, Answer: len(r.Answer), OPT: r.IsEdns0() != nil,
		}
		for _, rr := range r.Ns {
			if _, ok := rr.(*dns.SOA); ok {
				got.SOAs++
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

var (
	isAnswer    = expect(expectation{Rcode: "NOERROR", AA: true, Answer: 1})
	isAnswerOPT = expect(expectation{Rcode: "NOERROR", AA: true, Answer: 1, OPT: true})
	isNoData    = expect(expectation{Rcode: "NOERROR", AA: true, SOAs: 1})
	isNXDomain  = expect(expectation{Rcode: "NXDOMAIN", AA: true, SOAs: 1})
	isRefused   = expect(expectation{Rcode: "REFUSED"})
	isFormErr   = expect(expectation{Rcode: "FORMERR"})
	isNotImp    = expect(expectation{Rcode: "NOTIMP"})
	isBadVers   = expect(expectation{Rcode: "BADVERS", OPT: true})
	isSilence   = func(t *testing.T, _ []byte, _ *dns.Msg, raw []byte) {
		t.Helper()
		if raw != nil {
			t.Errorf("got %x", raw)
		}
	}
)

// all runs several conditions.
func all(wants ...func(*testing.T, []byte, *dns.Msg, []byte)) func(*testing.T, []byte, *dns.Msg, []byte) {
	return func(t *testing.T, query []byte, r *dns.Msg, raw []byte) {
		t.Helper()
		for _, w := range wants {
			w(t, query, r, raw)
		}
	}
}

// echoes checks that the question comes back byte for byte.
func echoes(t *testing.T, query []byte, _ *dns.Msg, raw []byte) {
	t.Helper()
	end := headerSize
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 1 + 4
	if len(raw) < end || !bytes.Equal(raw[headerSize:end], query[headerSize:end]) {
		t.Errorf("question %x came back as %x", query[headerSize:end], raw[headerSize:])
	}
}

func setByte(packet []byte, at int, v byte) []byte {
	out := slices.Clone(packet)
	out[at] = v
	return out
}

// rawQuery returns a query for the name given in wire form.
func rawQuery(name []byte, rrtype uint16) []byte {
	p := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	p = append(p, name...)
	p = binary.BigEndian.AppendUint16(p, rrtype)
	return binary.BigEndian.AppendUint16(p, dns.ClassINET)
}

func wireName(labels ...string) []byte {
	var out []byte
	for _, l := range labels {
		out = append(append(out, byte(len(l))), l...)
	}
	return append(out, 0)
}

// withOPT appends an OPT record of the given data to a query.
func withOPT(query []byte, rdata ...byte) []byte {
	out := slices.Clone(query)
	out[11]++
	out = append(out, 0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, byte(len(rdata)>>8), byte(len(rdata)))
	return append(out, rdata...)
}

func messageChecks(t *testing.T) []check {
	plain := pack(t, ask(nameA, dns.TypeA))
	var checks []check
	add := func(name string, query any, want func(*testing.T, []byte, *dns.Msg, []byte)) {
		checks = append(checks, check{name: name, query: query, want: want})
	}
	add("an address is answered with authority and without OPT", plain, all(isAnswer, echoes, func(t *testing.T, _ []byte, r *dns.Msg, _ []byte) {
		if a, ok := r.Answer[0].(*dns.A); !ok || a.String() != nameA+"\t60\tIN\tA\t9.0.1.6" {
			t.Errorf("got %v", r.Answer[0])
		}
	}))
	for _, id := range []uint16{0, 65535} {
		add(fmt.Sprint("message id ", id), ask(nameA, dns.TypeA, func(q *dns.Msg) { q.Id = id }), isAnswer)
	}
	add("letter case does not matter and comes back", ask("MemCached.MARATHON.mesoS.", dns.TypeA), all(isAnswer, echoes))
	add("letter case of a missing name comes back", ask("MISSING.mesos.", dns.TypeA), all(isNXDomain, echoes))
	add("RD clear stays clear", ask(nameA, dns.TypeA, func(q *dns.Msg) { q.RecursionDesired = false }), isAnswer)
	add("the reserved bit is not copied", ask(nameA, dns.TypeA, func(q *dns.Msg) { q.Zero = true }), isAnswer)
	add("AD and CD change nothing", ask(nameA, dns.TypeA, func(q *dns.Msg) { q.AuthenticatedData, q.CheckingDisabled = true, true }), isAnswer)
	add("AA and TC in a query are ignored", ask(nameA, dns.TypeA, func(q *dns.Msg) { q.Authoritative, q.Truncated = true, true }), isAnswer)
	add("another type of an existing name is NODATA", ask(nameA, dns.TypeAAAA), isNoData)
	add("a missing name is NXDOMAIN", ask(nameNX, dns.TypeA), isNXDomain)
	add("a missing service is NXDOMAIN", ask("_x._tcp.marathon.mesos.", dns.TypeSRV), isNXDomain)
	add("the apex has no address", ask("mesos.", dns.TypeA), isNoData)
	add("an empty non-terminal is NODATA", ask(nameENT, dns.TypeA), isNoData)
	add("below a leaf is NXDOMAIN", ask("below."+nameA, dns.TypeA), isNXDomain)
	for _, rrtype := range []uint16{65280, 65, 97, 16705, 24929, dns.TypeDS, 65535, 0} {
		add(fmt.Sprint("type ", rrtype, " is NODATA"), ask(nameA, rrtype), all(isNoData, echoes))
	}
	add("the end of the domain is a label's end", ask("xmesos.", dns.TypeA), isRefused)
	add("an escaped dot is no label's end", rawQuery(wireName("x.mesos"), dns.TypeA), all(isRefused, echoes))
	add("outside the domains", ask("example.org.", dns.TypeA), isRefused)
	add("the root", ask(".", dns.TypeNS), isRefused)
	for _, class := range []uint16{dns.ClassCHAOS, dns.ClassHESIOD, dns.ClassANY, dns.ClassNONE} {
		add("class "+dns.ClassToString[class], ask(nameA, dns.TypeTXT, func(q *dns.Msg) { q.Question[0].Qclass = class }), all(isRefused, echoes))
	}
	add("the longest name", rawQuery(wireName(strings.Repeat("a", 63), strings.Repeat("b", 63), strings.Repeat("c", 63), strings.Repeat("d", 55), "mesos"), dns.TypeA),
		all(isNXDomain, echoes))
	add("odd bytes in a label", rawQuery(wireName("\x00. \xff\xc9\xe9\\A", "mesos"), dns.TypeA), all(isNXDomain, echoes))
	add("a service over any transport", ask(nameSRV, dns.TypeSRV), isAnswer)
	add("AXFR", ask("mesos.", dns.TypeAXFR), isRefused)
	add("IXFR", ask("mesos.", dns.TypeIXFR, func(q *dns.Msg) { q.Ns = []dns.RR{&dns.SOA{Hdr: header("mesos.", dns.TypeSOA, 0), Ns: ".", Mbox: "."}} }), isRefused)
	add("ANY", ask(nameA, dns.TypeANY), isAnswer)
	add("ANY of much is one small record, or all over TCP", ask(nameBig, dns.TypeANY), func(t *testing.T, _ []byte, r *dns.Msg, raw []byte) {
		if _, ok := r.Answer[0].(*dns.HINFO); len(r.Answer) != 200 && (!ok || len(raw) > 512) {
			t.Errorf("%d octets: %v", len(raw), r.Answer)
		}
	})
	add("ANY of an empty non-terminal", ask(nameENT, dns.TypeANY), isNoData)

	add("QR set: silence", setByte(plain, 2, 0x81), isSilence)
	for _, opcode := range []byte{1, 2, 3, 4, 5, 6, 15} {
		add(fmt.Sprint("opcode ", opcode), setByte(plain, 2, opcode<<3|1), isNotImp)
	}
	add("no question", setByte(plain, 5, 0), isFormErr)
	add("two questions", append(setByte(plain, 5, 2), plain[headerSize:]...), isFormErr)
	add("a question that is not there", setByte(plain[:headerSize], 5, 1), isFormErr)
	for i, section := range []string{"answer", "authority", "additional"} {
		add("an "+section+" record that is not there", setByte(plain, 7+2*i, 1), isFormErr)
	}
	add("a name that is a pointer to itself", rawQuery([]byte{0xc0, 12}, dns.TypeA), isFormErr)
	add("a name that points forward", append(rawQuery([]byte{0xc0, 18}, dns.TypeA), wireName("memcached", "marathon", "mesos")...), isFormErr)
	add("a name that ends in a pointer", rawQuery([]byte{1, 'a', 0xc0, 12}, dns.TypeA), isFormErr)
	for _, kind := range []byte{0x40, 0x80} {
		add(fmt.Sprintf("label type %#x", kind), rawQuery([]byte{kind | 1, 'a', 0}, dns.TypeA), isFormErr)
	}
	add("a name of 256 octets", rawQuery(wireName(strings.Repeat("a", 63), strings.Repeat("b", 63), strings.Repeat("c", 63), strings.Repeat("d", 56), "mesos"), dns.TypeA), isFormErr)
	return checks
}

func ednsChecks(t *testing.T) []check {
	var checks []check
	add := func(name string, query any, want func(*testing.T, []byte, *dns.Msg, []byte)) {
		checks = append(checks, check{name: name, query: query, want: want})
	}
	flags := func(want uint32) func(*testing.T, []byte, *dns.Msg, []byte) {
		return func(t *testing.T, _ []byte, r *dns.Msg, _ []byte) {
			o := r.IsEdns0()
			if o.Hdr.Ttl != want || o.Hdr.Name != "." || o.UDPSize() != maxUDP || len(o.Option) != 0 {
				t.Errorf("OPT is %v, flags %#x", o, o.Hdr.Ttl)
			}
		}
	}
	plain := pack(t, ask(nameA, dns.TypeA))
	add("OPT is answered with one of our size", ask(nameA, dns.TypeA, edns(4096)), all(isAnswerOPT, flags(0)))
	add("OPT in a negative answer", ask(nameNX, dns.TypeA, edns(4096)), all(expect(expectation{Rcode: "NXDOMAIN", AA: true, SOAs: 1, OPT: true}), flags(0)))
	add("OPT in a refusal", ask("example.org.", dns.TypeA, edns(4096)), expect(expectation{Rcode: "REFUSED", OPT: true}))
	add("DO is copied", ask(nameA, dns.TypeA, edns(4096, func(o *dns.OPT) { o.SetDo() })), all(isAnswerOPT, flags(0x8000)))
	add("other flags are not", ask(nameA, dns.TypeA, edns(4096, func(o *dns.OPT) { o.Hdr.Ttl |= 0x7fff })), all(isAnswerOPT, flags(0)))
	add("version 1 is BADVERS", ask(nameA, dns.TypeA, edns(4096, func(o *dns.OPT) { o.SetVersion(1) })), all(isBadVers, func(t *testing.T, _ []byte, r *dns.Msg, _ []byte) {
		if v := r.IsEdns0().Version(); v != 0 {
			t.Errorf("version %d", v)
		}
	}))
	add("version 1 with an option", ask(nameA, dns.TypeA, edns(4096, func(o *dns.OPT) { o.SetVersion(255) }, option(65001, 1, 2))), isBadVers)
	add("an unknown option is not echoed", ask(nameA, dns.TypeA, edns(4096, option(65001, 'a', 'b'))), all(isAnswerOPT, flags(0)))
	for _, size := range []uint16{0, 1, 511, 512, 65535} {
		add(fmt.Sprint("a size of ", size), ask(nameA, dns.TypeA, edns(size)), all(isAnswerOPT, flags(0)))
	}
	add("OPT need not come last", ask(nameA, dns.TypeA, edns(4096), func(q *dns.Msg) {
		q.Extra = append(q.Extra, &dns.A{Hdr: header("x.", dns.TypeA, 0), A: []byte{1, 2, 3, 4}})
	}), all(isAnswerOPT, flags(0)))
	add("two OPTs", withOPT(withOPT(plain)), isFormErr)
	add("an option that runs past the data", withOPT(plain, 0xfd, 0xe9, 0, 9, 1), isFormErr)
	add("an option that is cut", withOPT(plain, 0xfd, 0xe9, 0), isFormErr)
	add("NSID, client subnet and padding", withOPT(plain, 0, 3, 0, 0, 0, 8, 0, 7, 0, 1, 24, 0, 1, 2, 3, 0, 12, 0, 2, 0, 0), all(isAnswerOPT, flags(0)))
	return checks
}

func runChecks(t *testing.T, to netip.AddrPort, checks []check) {
	for _, c := range checks {
		for _, proto := range []string{protoUDP, protoTCP} {
			t.Run(proto+"/"+c.name, func(t *testing.T) {
				query, ok := c.query.([]byte)
				if !ok {
					query = pack(t, c.query.(*dns.Msg))
				}
				raw := exchange(t, proto, to, query)
				r := new(dns.Msg)
				if raw != nil {
					r = unpack(t, raw)
					sent := binary.BigEndian.Uint16(query)
					if r.Id != sent || !r.Response || r.Opcode != int(query[2]>>3&15) || r.RecursionDesired != (query[2]&1 == 1) {
						t.Errorf("header is %v, for %x", r.MsgHdr, query[:headerSize])
					}
				}
				c.want(t, query, r, raw)
			})
		}
	}
}

func TestChecksOfMessages(t *testing.T) {
	z := testZone()
	for _, loop := range []Loop{LoopRaw, LoopPlain} {
		cfg := oneReader()
		cfg.Loop = loop
		s := serve(t, cfg, func() *Zone { return z }, nil)
		runChecks(t, s.Addrs()[0], messageChecks(t))
		runChecks(t, s.Addrs()[0], ednsChecks(t))
	}
}

func TestSOAAndNSAtTheApex(t *testing.T) {
	z := testZone()
	to := serve(t, oneReader(), func() *Zone { return z }, nil).Addrs()[0]
	for _, z := range []struct{ apex, ttl, negative, nsTTL, server, soa string }{
		{"mesos.", "60", "60", "60", "ns1.mesos.", "ns1.mesos. root.ns1.mesos. 1 60 600 86400 60"},
		{"dcos.thisdcos.directory.", "5", "1", "3600", "ns.spartan.", "ns.spartan. support.mesosphere.com. 1 60 180 86400 1"},
	} {
		apex, serverTTL := z.apex, map[string]string{"ns1.mesos.": "60", "ns.spartan.": "5"}[z.server]
		soa := func(ttl string) string { return apex + "\t" + ttl + "\tIN\tSOA\t" + z.soa }
		for _, proto := range []string{protoUDP, protoTCP} {
			r := unpack(t, exchange(t, proto, to, pack(t, ask(apex, dns.TypeSOA))))
			if len(r.Answer) != 1 || len(r.Ns) != 0 || r.Answer[0].String() != soa(z.ttl) || !r.Authoritative {
				t.Errorf("SOA of %s: %v", apex, r)
			}
			r = unpack(t, exchange(t, proto, to, pack(t, ask(apex, dns.TypeNS))))
			if len(r.Answer) != 1 || r.Answer[0].String() != apex+"\t"+z.nsTTL+"\tIN\tNS\t"+z.server ||
				len(r.Extra) != 1 || r.Extra[0].String() != z.server+"\t"+serverTTL+"\tIN\tA\t198.51.100.1" {
				t.Errorf("NS of %s: %v", apex, r)
			}
			for _, name := range []string{"missing." + apex, "MISSING." + strings.ToUpper(apex)} {
				r = unpack(t, exchange(t, proto, to, pack(t, ask(name, dns.TypeA))))
				if len(r.Ns) != 1 || !strings.EqualFold(r.Ns[0].String(), soa(z.negative)) {
					t.Errorf("negative answer for %s: %v", name, r)
				}
			}
			r = unpack(t, exchange(t, proto, to, pack(t, ask("missing."+apex, dns.TypeSOA))))
			if len(r.Answer) != 0 || len(r.Ns) != 1 || r.Rcode != dns.RcodeNameError {
				t.Errorf("SOA below %s: %v", apex, r)
			}
		}
	}
}

func TestNegativeAnswersLiveNoLongerThanTheMinimum(t *testing.T) {
	cfg := DefaultConfig()
	cfg.SOAMinimum = 2e9
	z := Build(nil, world(), nil, cfg)
	r := reply(z, pack(t, ask(nameNX, dns.TypeA)), false, 0)
	if soa := r.Ns[0].(*dns.SOA); soa.Hdr.Ttl != 2 || soa.Minttl != 2 {
		t.Errorf("got %v", soa)
	}
	r = reply(z, pack(t, ask("mesos.", dns.TypeSOA)), false, 0)
	if soa := r.Answer[0].(*dns.SOA); soa.Hdr.Ttl != 60 || soa.Minttl != 2 {
		t.Errorf("got %v", soa)
	}
}

func TestServicesComeWithAddresses(t *testing.T) {
	z := testZone()
	to := serve(t, oneReader(), func() *Zone { return z }, nil).Addrs()[0]
	raw := exchange(t, protoUDP, to, pack(t, ask(nameSRV, dns.TypeSRV)))
	r := unpack(t, raw)
	srv := r.Answer[0].(*dns.SRV)
	target := "memcached-" + shortHash("memcached.1") + "-s0.marathon.mesos."
	if srv.Target != target || srv.Priority != 0 || srv.Weight != 1 || srv.Port != 11211 || srv.Hdr.Name != nameSRV {
		t.Errorf("got %v", srv)
	}
	if len(r.Extra) != 1 || r.Extra[0].String() != target+"\t60\tIN\tA\t9.0.1.6" {
		t.Errorf("additional: %v", r.Extra)
	}
	if !bytes.Contains(raw, wireName(strings.Split(strings.TrimSuffix(target, "."), ".")...)) {
		t.Error("the target is compressed, which RFC 2782 forbids")
	}
}

func TestLargeAnswers(t *testing.T) {
	z := testZone()
	to := serve(t, oneReader(), func() *Zone { return z }, nil).Addrs()[0]
	for _, c := range []struct {
		name, qname, proto string
		rrtype             uint16
		edit               func(*dns.Msg)
		limit              int
		whole              bool
	}{
		{"addresses over UDP without EDNS", nameBig, protoUDP, dns.TypeA, nil, 512, false},
		{"addresses over UDP, 1232", nameBig, protoUDP, dns.TypeA, edns(1232), 1232, false},
		{"addresses over UDP, 4096", nameBig, protoUDP, dns.TypeA, edns(4096), 1232, false},
		{"addresses over UDP, 100", nameBig, protoUDP, dns.TypeA, edns(100), 512, false},
		{"addresses over TCP", nameBig, protoTCP, dns.TypeA, nil, 65535, true},
		{"addresses over TCP, a small UDP size", nameBig, protoTCP, dns.TypeA, edns(512), 65535, true},
		{"services over UDP", "_big._tcp.marathon.mesos.", protoUDP, dns.TypeSRV, nil, 512, false},
		{"services over TCP", "_big._tcp.marathon.mesos.", protoTCP, dns.TypeSRV, nil, 65535, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := ask(c.qname, c.rrtype)
			if c.edit != nil {
				c.edit(q)
			}
			raw := exchange(t, c.proto, to, pack(t, q))
			r := unpack(t, raw)
			if len(raw) > c.limit || r.Truncated == c.whole || (len(r.Answer) == 200) != c.whole || !r.Authoritative {
				t.Errorf("%d octets, TC %v, AA %v, %d records", len(raw), r.Truncated, r.Authoritative, len(r.Answer))
			}
			if (r.IsEdns0() != nil) != (q.IsEdns0() != nil) {
				t.Errorf("OPT asked %v, got %v", q.IsEdns0(), r.IsEdns0())
			}
			if !c.whole && len(raw) < c.limit-60 {
				t.Errorf("%d octets leave room for another record", len(raw))
			}
			seen := map[string]bool{}
			for _, rr := range r.Answer {
				if seen[rr.String()] {
					t.Errorf("%v twice", rr)
				}
				seen[rr.String()] = true
			}
		})
	}
}

func TestAdditionalRecordsThatDoNotFitAreNotMissed(t *testing.T) {
	var services []value
	l := newLayout(DefaultConfig())
	for i := range 9 {
		services = append(services, value{target: fmt.Sprintf("t%d.marathon.mesos.", i), port: 80})
	}
	b := l.builder(wire.NewIndex(l.domainsAt(1)))
	b.note(1, func(add addFunc) {
		for i, s := range services {
			add(nameSRV, s)
			addAddrs(add, s.target, netip.AddrFrom4([4]byte{9, 0, 0, byte(i)}))
		}
	})
	z := &Zone{layout: l}
	z.index, _ = b.edit.Index()
	r := reply(z, pack(t, ask(nameSRV, dns.TypeSRV)), false, 0)
	if r.Truncated || len(r.Answer) != 9 || len(r.Extra) == 0 || len(r.Extra) >= 9 {
		t.Errorf("TC %v, %d answers, %d additional", r.Truncated, len(r.Answer), len(r.Extra))
	}
	if packed := pack(t, r); len(packed) > minUDP {
		t.Errorf("%d octets", len(packed))
	}
}

func TestEveryRecordComesFirstEquallyOften(t *testing.T) {
	z := testZone()
	for _, c := range []struct {
		qname  string
		rrtype uint16
	}{{nameBig, dns.TypeA}, {"_big._tcp.marathon.mesos.", dns.TypeSRV}} {
		first := map[string]int{}
		for turn := range uint32(600) {
			r := reply(z, pack(t, ask(c.qname, c.rrtype)), false, turn)
			first[r.Answer[0].String()]++
		}
		for rr, n := range first {
			if n != 3 {
				t.Errorf("%s came first %d times", rr, n)
			}
		}
		if len(first) != 200 {
			t.Errorf("%d records came first", len(first))
		}
	}
}

func TestCutAndShortPackets(t *testing.T) {
	z := testZone()
	to := serve(t, oneReader(), func() *Zone { return z }, nil).Addrs()[0]
	whole := pack(t, ask(nameA, dns.TypeA, edns(1232, option(65001, 1, 2))))
	for n := range len(whole) {
		raw := exchange(t, protoUDP, to, whole[:n])
		if n < headerSize {
			if raw != nil {
				t.Errorf("%d octets are answered", n)
			}
			continue
		}
		if r := unpack(t, raw); r.Rcode != dns.RcodeFormatError || len(r.Answer) > 0 {
			t.Errorf("cut to %d octets: %v", n, r)
		}
	}
}

// FuzzAnswer puts any bytes to a Zone.
func FuzzAnswer(f *testing.F) {
	z := testZone()
	var seeds [][]byte
	for _, q := range []*dns.Msg{
		ask(nameA, dns.TypeA), ask(nameSRV, dns.TypeSRV, edns(4096)), ask(nameBig, dns.TypeA, edns(512)), ask("mesos.", dns.TypeNS),
		ask(nameNX, dns.TypeANY), ask("web.marathon.l4lb.thisdcos.directory.", dns.TypeAAAA),
	} {
		packet, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, packet, append([]byte{}, packet[:len(packet)-1]...))
	}
	seeds = append(seeds, nil, make([]byte, headerSize), withOPT(withOPT(seeds[0])), rawQuery([]byte{0xc0, 12}, 1))
	for _, s := range seeds {
		f.Add(s, uint32(7), true)
		f.Add(s, uint32(0), false)
	}
	f.Fuzz(func(t *testing.T, packet []byte, turn uint32, tcp bool) {
		r := reply(z, packet, tcp, turn)
		if r == nil {
			if len(packet) >= headerSize && packet[2]&0x80 == 0 {
				t.Errorf("no reply to %x", packet)
			}
			return
		}
		out := pack(t, r)
		again := unpack(t, out)
		if again.Id != binary.BigEndian.Uint16(packet) || !again.Response {
			t.Errorf("%x is answered %v", packet, again.MsgHdr)
		}
		if !tcp && len(out) > maxUDP {
			t.Errorf("%d octets over UDP", len(out))
		}
		if !holds(again, out) {
			t.Errorf("reply %x lies about its sections", out)
		}
	})
}

func TestMutatedPacketsDoNotHurt(t *testing.T) {
	z := testZone()
	to := serve(t, DefaultServerConfig(), func() *Zone { return z }, nil).Addrs()[0]
	rng := rand.New(rand.NewPCG(3, 4))
	conn := dial(t, protoUDP, to)
	good := pack(t, ask(nameA, dns.TypeA, edns(1232)))
	for range 2000 {
		bad := slices.Clone(good)
		for range 1 + rng.IntN(4) {
			bad[rng.IntN(len(bad))] = byte(rng.Uint32())
		}
		if _, err := conn.Write(bad); err != nil {
			t.Fatal(err)
		}
	}
	// The flood may have filled the socket, so that the first tries are lost.
	c := &dns.Client{Timeout: patience / 20}
	for deadline := time.Now().Add(patience); ; {
		r, _, err := c.Exchange(question(nameA, dns.TypeA), to.String())
		if err == nil && len(r.Answer) == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("afterwards: %v, %v", r, err)
		}
	}
}
