package dns

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"go.uber.org/zap"

	"waggle/dns/wire"
	"waggle/model"
)

// canonical says all of a reply that must be the same whoever made it: all but
// the order of records.
func canonicalReply(m *dns.Msg) map[string]any {
	sorted := func(rrs []dns.RR) (out []string) {
		for _, rr := range rrs {
			out = append(out, rr.String())
		}
		slices.Sort(out)
		return out
	}
	h := m.MsgHdr
	return map[string]any{
		"header": fmt.Sprintf("%+v", h), "question": fmt.Sprint(m.Question),
		"answer": sorted(m.Answer), "authority": sorted(m.Ns), "additional": sorted(m.Extra),
	}
}

// quickly returns the reply that only copying makes, nil if it takes more.
func quickly(z *Zone, packet []byte, tcp bool, turn uint32) []byte {
	var q wire.Query
	if !q.Parse(packet) {
		return nil
	}
	limit := q.Size
	if tcp {
		limit = dns.MaxMsgSize
	}
	reply, outcome := z.index.Answer(nil, packet, &q, limit, turn)
	switch outcome.Verdict {
	case wire.Foreign:
		return q.Refuse(nil, packet, dns.RcodeRefused)
	case wire.Slow:
		return nil
	}
	return reply
}

// compare fails t if the two ways to answer packet differ, and reports whether
// there are two.
func compare(t *testing.T, z *Zone, packet []byte, tcp bool, turn uint32) bool {
	t.Helper()
	raw := quickly(z, packet, tcp, turn)
	if raw == nil {
		return false
	}
	quick := unpack(t, raw)
	slow := reply(z, packet, tcp, turn)
	if slow == nil {
		t.Fatalf("%x: no reply but\n%v", packet, quick)
	}
	slow = unpack(t, pack(t, slow))
	if !tcp {
		limit := minUDP
		if opt := slow.IsEdns0(); opt != nil {
			limit = maxUDP
		}
		if len(raw) > limit {
			t.Fatalf("%x: %d octets over UDP", packet, len(raw))
		}
	}
	// What does not fit may be cut one record earlier or later: names are
	// compressed in different ways.
	full := unpack(t, pack(t, reply(z, packet, true, turn)))
	cut := quick.Truncated || len(quick.Extra) != len(full.Extra)
	if cut {
		for _, part := range [][2][]dns.RR{{quick.Answer, full.Answer}, {quick.Extra, full.Extra}} {
			have := map[string]bool{}
			for _, rr := range part[1] {
				have[rr.String()] = true
			}
			for _, rr := range part[0] {
				if !have[rr.String()] {
					t.Fatalf("%x: %v is not in\n%v", packet, rr, full)
				}
				delete(have, rr.String())
			}
		}
		quick.Answer, quick.Extra, slow.Answer, slow.Extra = nil, nil, nil, nil
	}
	if diff := cmp.Diff(canonicalReply(slow), canonicalReply(quick)); diff != "" {
		t.Fatalf("%x (TCP %v): slow and quick differ:\n%s", packet, tcp, diff)
	}
	return true
}

// asker makes queries about what is in a Zone, beside it and near it.
type asker struct {
	rng   *rand.Rand
	names []string
}

func newAsker(rng *rand.Rand, z *Zone) *asker {
	a := &asker{rng: rng, names: []string{".", "mesos.", "thisdcos.directory.", "org.", "xmesos.", "a.xmesos.", "ns1.mesos."}}
	for n := range z.index.All() {
		a.names = append(a.names, wire.Text(n.Name()))
	}
	slices.Sort(a.names)
	return a
}

func (a *asker) query() []byte {
	name := a.names[a.rng.IntN(len(a.names))]
	switch a.rng.IntN(6) {
	case 0:
		name = "x." + strings.TrimPrefix(name, ".")
	case 1:
		_, name, _ = strings.Cut(name, ".")
		if name == "" {
			name = "."
		}
	}
	upper := []byte(name)
	for i := range upper {
		if a.rng.IntN(4) == 0 {
			upper[i] = strings.ToUpper(name)[i]
		}
	}
	types := []uint16{dns.TypeA, dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSRV, dns.TypeSOA, dns.TypeNS, dns.TypeTXT, dns.TypePTR,
		dns.TypeCNAME, dns.TypeANY, dns.TypeHTTPS, 16705, dns.TypeAXFR, dns.TypeOPT}
	m := new(dns.Msg).SetQuestion(string(upper), types[a.rng.IntN(len(types))])
	m.Id = uint16(a.rng.Uint32())
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = a.rng.IntN(2) == 0, a.rng.IntN(4) == 0, a.rng.IntN(4) == 0
	m.Zero, m.Truncated, m.Authoritative = a.rng.IntN(8) == 0, a.rng.IntN(8) == 0, a.rng.IntN(8) == 0
	if a.rng.IntN(2) == 0 {
		m.SetEdns0([]uint16{0, 511, 512, 700, 1232, 65535}[a.rng.IntN(6)], a.rng.IntN(2) == 0)
	}
	packet, err := m.Pack()
	if err != nil {
		panic(err)
	}
	if a.rng.IntN(4) == 0 {
		packet[a.rng.IntN(len(packet))] = byte(a.rng.Uint32())
	}
	return packet
}

func TestQuickAndSlowAnswersAreTheSame(t *testing.T) {
	both, all := 0, 0
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 7))
		w := &walk{rng: rng, snap: &model.Snapshot{}}
		cfg := DefaultConfig()
		cfg.NSAddrs = []netip.Addr{agentIP, ownIP6}
		z := testZone()
		if seed > 0 {
			z = nil
		}
		for range 20 {
			if seed > 0 {
				w.step()
				z = Build(z, w.snap, w.table, cfg)
			}
			a := newAsker(rng, z)
			for range 400 {
				all++
				if compare(t, z, a.query(), rng.IntN(3) == 0, rng.Uint32()) {
					both++
				}
			}
		}
	}
	if both < all/2 {
		t.Errorf("only %d of %d queries were answered quickly", both, all)
	}
}

func FuzzQuickAndSlowAnswersAreTheSame(f *testing.F) {
	z := testZone()
	a := newAsker(rand.New(rand.NewPCG(1, 1)), z)
	for range 100 {
		f.Add(a.query(), false, uint32(7))
	}
	f.Fuzz(func(t *testing.T, packet []byte, tcp bool, turn uint32) { compare(t, z, packet, tcp, turn) })
}

func TestQuickAnswersAllocateNothing(t *testing.T) {
	z := testZone()
	cfg := DefaultServerConfig()
	cfg.Limit.Burst = 1 << 15
	s := NewServer(cfg, func() *Zone { return z }, zap.NewNop(), nil)
	r := newResponder(s, s.metrics.newTally(protoUDP), 1)
	room := make([]byte, 0, wire.MaxUDP)
	client := netip.MustParseAddrPort("192.0.2.1:1000") // whose rate is counted
	for _, q := range []*dns.Msg{
		ask(nameA, dns.TypeA), ask(nameSRV, dns.TypeSRV), ask(nameA, dns.TypeAAAA), ask(nameNX, dns.TypeA),
		ask(nameBig, dns.TypeA), ask("_big._tcp.marathon.mesos.", dns.TypeSRV), ask("mesos.", dns.TypeSOA), ask("example.org.", dns.TypeA),
	} {
		for _, edns := range []bool{false, true} {
			if edns {
				q.SetEdns0(maxUDP, true)
			}
			packet := pack(t, q)
			var reply []byte
			var by wire.Verdict
			answer := func() { reply, by = r.answerNow(room, packet, client) }
			if got := testing.AllocsPerRun(100, answer); got != 0 {
				t.Errorf("%v: %v allocations", q.Question[0], got)
			}
			if by != wire.Answered || bytes.Equal(reply, nil) {
				t.Errorf("%v: not answered at once", q.Question[0])
			}
		}
	}
}
