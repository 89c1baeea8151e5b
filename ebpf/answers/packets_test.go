package answers

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	mdns "github.com/miekg/dns"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"waggle/dns"
	"waggle/internal/testnet"
)

// What the program may say of a packet.
const (
	next = math.MaxUint32 // TCX_NEXT
	drop = 2              // TCX_DROP
)

const (
	ethernet  = 14
	ip4Header = 20
	udpHeader = 8
	message   = ethernet + ip4Header + udpHeader // where it starts
)

// packet is an Ethernet frame with a UDP packet from 127.0.0.1:4000.
func packet(to netip.AddrPort, payload []byte) []byte {
	p := make([]byte, message, message+len(payload))
	p[12] = 8 // IPv4
	ip := p[ethernet:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(ip4Header+udpHeader+len(payload)))
	copy(ip[12:], []byte{127, 0, 0, 1})
	copy(ip[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip[:ip4Header]))
	udp := ip[ip4Header:]
	binary.BigEndian.PutUint16(udp, 4000)
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeader+len(payload)))
	return append(p, payload...)
}

// sum is the checksum of RFC 1071, not yet inverted.
func sum(b []byte) uint16 {
	var s uint32
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	for s > math.MaxUint16 {
		s = s>>16 + s&math.MaxUint16
	}
	return uint16(s)
}

// loaded is the program with one answer, that to query on the way to server.
func loaded(t *testing.T, server netip.AddrPort, query, reply *mdns.Msg) *Answers {
	t.Helper()
	testnet.NeedRoot(t)
	a, objs := New(DefaultConfig(), zap.NewNop(), nil), &bpfObjects{}
	if err := a.load(objs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := objs.Close(); err != nil {
			t.Error(err)
		}
	})
	a.use(objs)
	a.live()
	q, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	r, err := reply.Pack()
	if err != nil {
		t.Fatal(err)
	}
	a.Keep(&dns.Kept{
		Generation: a.generation, Client: netip.MustParseAddr("127.0.0.1"), Server: server, Query: q, Reply: r,
		Name: q[headerSize : headerSize+len(query.Question[0].Name)+1], For: time.Hour,
	})
	return a
}

// feed gives the program a packet and returns what it makes of it.
func feed(t *testing.T, a *Answers, p []byte) (verdict uint32, out []byte) {
	t.Helper()
	run := ebpf.RunOptions{Data: p, DataOut: make([]byte, 4096)}
	verdict, err := a.objs.AnswerQuery.Run(&run)
	if errors.Is(err, unix.EINVAL) && len(p) < ethernet+40 {
		return next, p // the kernel feeds no packet that is shorter than its header
	}
	if err != nil {
		t.Fatalf("%v: % x", err, p)
	}
	return verdict, run.DataOut
}

func TestAPacketBecomesItsAnswer(t *testing.T) {
	server := netip.MustParseAddrPort("127.0.0.53:53")
	query := question("web.marathon.mesos.", mdns.TypeA)
	reply := new(mdns.Msg).SetReply(query)
	reply.Answer = append(reply.Answer, &mdns.A{
		Hdr: mdns.RR_Header{Name: query.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 60}, A: []byte{9, 0, 0, 1}})
	reply.Compress = true
	a := loaded(t, server, query, reply)
	asked := question("WEB.Marathon.mesos.", mdns.TypeA)
	asked.Id = 4711
	payload, err := asked.Pack()
	if err != nil {
		t.Fatal(err)
	}
	whole := packet(server, payload)
	verdict, out := feed(t, a, whole)
	if verdict != next {
		t.Fatalf("verdict %d", int32(verdict))
	}
	check(t, whole, out)
	got := new(mdns.Msg)
	if err := got.Unpack(out[message:]); err != nil {
		t.Fatal(err)
	}
	if got.Id != 4711 || got.Question[0].Name != "WEB.Marathon.mesos." || len(got.Answer) != 1 || !got.Response {
		t.Errorf("%s", got)
	}

	// Without a daemon it is a packet like any other.
	if err := a.objs.AliveUntil.Set(uint64(monotonic())); err != nil {
		t.Fatal(err)
	}
	if verdict, out := feed(t, a, whole); verdict != next || !bytes.Equal(out, whole) {
		t.Errorf("the kernel answers for a daemon that is silent: verdict %d, % x", int32(verdict), out)
	}
	if err := a.objs.AliveUntil.Set(uint64(monotonic() + time.Hour)); err != nil {
		t.Fatal(err)
	}

	// Whatever else comes goes on as it is, or is answered with what was asked.
	rng := rand.New(rand.NewPCG(1, 2))
	answered := 0
	for range 20_000 {
		p := mutated(rng, whole)
		verdict, out := feed(t, a, p)
		if bytes.Equal(out, p) && verdict == next {
			continue
		}
		answered++
		check(t, p, out)
		// Id, the letters' case, the port and some of IP are all that may differ.
		if verdict != next || len(out) != len(whole)+16 || !bytes.EqualFold(out[message+12:message+12+len("web.marathon.mesos.")+1], payload[12:12+len("web.marathon.mesos.")+1]) {
			t.Fatalf("verdict %d\n% x\n% x", int32(verdict), p, out)
		}
	}
	t.Logf("%d of 20000 were answered", answered)
	if answered == 0 {
		t.Error("none was answered")
	}
}

// mutated is p with some octets changed, or cut, or longer.
func mutated(rng *rand.Rand, p []byte) []byte {
	p = append([]byte{}, p...)
	for range 1 + rng.IntN(2) {
		p[12+rng.IntN(len(p)-12)] ^= 1 << rng.IntN(8)
	}
	switch rng.IntN(8) {
	case 0:
		p = p[:ethernet+1+rng.IntN(len(p)-ethernet)]
	case 1:
		p = append(p, make([]byte, rng.IntN(40))...)
	case 2: // of a consistent length
		p = packet(netip.MustParseAddrPort("127.0.0.53:53"), p[message:len(p)-rng.IntN(8)])
	}
	return p
}

// check sees that out goes back to where in came from, and is whole.
func check(t *testing.T, in, out []byte) {
	t.Helper()
	from := in[ethernet:]
	udp := out[ethernet+ip4Header:]
	if int(binary.BigEndian.Uint16(out[ethernet+2:])) != len(out)-ethernet || int(binary.BigEndian.Uint16(udp[4:])) != len(udp) || binary.BigEndian.Uint16(udp[6:]) != 0 {
		t.Errorf("lengths: % x", out)
	}
	if !bytes.Equal(from[12:16], out[ethernet+16:ethernet+20]) || !bytes.Equal(from[16:20], out[ethernet+12:ethernet+16]) ||
		!bytes.Equal(udp[:2], from[22:24]) || !bytes.Equal(udp[2:4], from[20:22]) {
		t.Errorf("ends: % x\n% x", in, out)
	}
	// A packet with a wrong sum stays wrong, and is dropped behind us.
	if was, is := sum(from[:ip4Header]), sum(out[ethernet:ethernet+ip4Header]); was == math.MaxUint16 && is != math.MaxUint16 {
		t.Errorf("checksum: % x\n% x", in, out)
	}
}
