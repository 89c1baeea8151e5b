package dns

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"waggle/dns/wire"
)

// Kernel gives answers that were given here before, in the kernel, to processes
// of this machine. Its methods are safe for concurrent use and wait for nothing.
type Kernel interface {
	// Generation is another number whenever something has changed that an answer
	// may depend on; 0 says that none is wanted now.
	Generation() uint32
	// Keep has an answer given by the kernel from now on, if it can, for as long
	// as its Generation lasts. Nothing of it is used after the call.
	Keep(*Kept)
	// Counts returns how many answers the kernel has given, by their Counter.
	Counts() []uint64
}

// Kept is an answer that may be given to everybody on Client's address who sends
// Query to Server, but for its id and the letter case of its name.
type Kept struct {
	Generation     uint32 // from before the answer was looked for
	Client         netip.Addr
	Server         netip.AddrPort
	Query, Reply   []byte // the usual kind of query, with one question, and all of the reply
	Name           []byte // that Query asks for, in wire format and lower case
	Counter        int    // by which to count it, below KernelCounters
	For            time.Duration
	Turns, TurnLen int   // of how many records behind the question any may come first, and how long each is
	TTLs           []int // where in Reply TTLs are that go down from now on
}

// KernelCounters is how many Counters there are.
const KernelCounters = maxZones * len(countedTypes) * len(countedRcodes)

// ownFor is for how long answers about names of ours are kept if nothing changes.
// Those about names of others are for nine tenths of their time: in the last
// tenth who asks has them asked for anew.
const ownFor = time.Minute

// hotAfter is how often a question is asked before the kernel is given its
// answer, which costs as much as an answer. One that is asked for again here all
// the same, since it does not fit, say, is tried again after twice as many.
const hotAfter = 4

// hotBuckets times four is how many questions one reader tells apart.
const hotBuckets = 4096

// Where more is asked for often than the Kernel has room for, what it is given
// drives out what it was given, at a cost and for nothing. So nothing more is given
// in a generation once mostAgain, and half as many as for the first time, have been
// given again.
const mostAgain = 1000

// keeper finds the answers of one reader that the Kernel should give. A nil one
// finds none.
type keeper struct {
	kernel     Kernel
	gate       *gate
	listen     netip.AddrPort
	seed       maphash.Seed
	generation uint32 // from before the batch was looked at
	asked      [hotBuckets][4]frequency
	kept       []Kept // of this batch
	given      int    // in this generation, for the first time
	again      int
}

// frequency is how often a question was asked in a generation.
type frequency struct{ tag, generation, times uint32 }

// newKeeper returns the keeper of a reader of the socket on listen, nil where
// every query must be seen here.
func newKeeper(s *Server, listen netip.AddrPort) *keeper {
	if s.cfg.Kernel == nil || s.queries.on() {
		return nil
	}
	return &keeper{kernel: s.cfg.Kernel, gate: s.gate, listen: listen, seed: maphash.MakeSeed()}
}

// begin is called before a batch is looked at.
func (k *keeper) begin() {
	if k == nil {
		return
	}
	if now := k.kernel.Generation(); now != k.generation {
		k.generation, k.given, k.again = now, 0, 0
	}
	k.kept = k.kept[:0]
}

// answered takes note of packet i of the batch, client's, which r has just answered.
// reply stays as it is until flush.
func (k *keeper) answered(sock *wire.Socket, i int, client netip.Addr, r *responder, reply []byte) {
	if k == nil || k.generation == 0 || r.outcome.Verdict != wire.Answered {
		return
	}
	server := sock.Destination(i)
	if !server.IsValid() {
		server = k.listen.Addr()
	}
	server = server.Unmap()
	// Only so is it sure to have come through lo, and back to where it was sent.
	if client != server && !(client.IsLoopback() && server.IsLoopback()) || !k.gate.free(client) {
		return
	}
	packet := sock.Packet(i)
	times := k.count(r.query, packet)
	if times < hotAfter || times&(times-1) != 0 {
		return
	}
	kept, ok := newKept(packet, reply, r.outcome, r.query)
	if !ok || !k.gives(times) {
		return
	}
	kept.Generation, kept.Client, kept.Server = k.generation, client, netip.AddrPortFrom(server, k.listen.Port())
	k.kept = append(k.kept, kept)
}

// gives counts an answer to a question that was asked so often, and reports whether
// it is to be given.
func (k *keeper) gives(times uint32) bool {
	if times == hotAfter {
		k.given++
	} else {
		k.again++
	}
	return k.again < max(mostAgain, k.given/2)
}

// flush is called when the batch's answers are sent.
func (k *keeper) flush() {
	if k != nil {
		for i := range k.kept {
			k.kernel.Keep(&k.kept[i])
		}
	}
}

// count returns how often a question has been asked in this generation.
func (k *keeper) count(q *wire.Query, packet []byte) (times uint32) {
	const odd = 0x9e3779b97f4a7c15
	hash := (maphash.Bytes(k.seed, q.Name()) ^ uint64(q.Type)<<16 ^ uint64(binary.BigEndian.Uint16(packet[2:]))) * odd
	bucket, tag := &k.asked[hash>>32%hotBuckets], uint32(hash)
	at := &bucket[0] // the one that gives way
	for i := range bucket {
		f := &bucket[i]
		if f.generation != k.generation {
			*f = frequency{generation: k.generation}
		}
		if f.tag == tag {
			at = f
			break
		}
		if f.times < at.times {
			at = f
		}
	}
	if at.tag != tag {
		*at = frequency{tag, k.generation, 0}
	}
	at.times++
	return at.times
}

// newKept reads reply, the answer to packet that outcome tells of. Those whose
// records take turns in ways that the Kernel cannot repeat are not kept.
func newKept(packet, reply []byte, outcome wire.Outcome, q *wire.Query) (k Kept, ok bool) {
	if outcome.Rcode != dns.RcodeSuccess && outcome.Rcode != dns.RcodeNameError || reply[2]&flagTC != 0 {
		return k, false
	}
	zone := min(1+int(outcome.Domain), maxZones-1)
	k = Kept{
		Query: packet, Reply: reply, Name: q.Name(), For: ownFor,
		Counter: (zone*len(countedTypes)+typeIndex(q.Type))*len(countedRcodes) + rcodeIndex(int(outcome.Rcode)),
	}
	s, ok := survey(reply, headerSize+len(k.Name)+4)
	switch answers := int(binary.BigEndian.Uint16(reply[6:])); {
	case !ok:
		return k, false
	case outcome.Domain < 0:
		k.TTLs, k.For = s.ttls, time.Duration(s.shortest)*time.Second*9/10
		return k, s.shortest > 1
	case answers > 1:
		k.Turns, k.TurnLen = answers, s.each
		return k, s.each > 0
	}
	return k, s.additional <= 1
}

const flagTC = 0x02

// surveyed is what newKept must know of a reply's records, but for OPT.
type surveyed struct {
	ttls       []int
	shortest   uint32 // TTL, 0 for a reply without any
	each       int    // octets of each record in the answer section, 0 if they differ or something follows
	additional int
}

func survey(reply []byte, at int) (s surveyed, ok bool) {
	const root = 1
	answers := int(binary.BigEndian.Uint16(reply[6:]))
	before := answers + int(binary.BigEndian.Uint16(reply[8:]))
	for i := range before + int(binary.BigEndian.Uint16(reply[10:])) {
		fixed, end, ok := skipRecord(reply, at)
		if !ok {
			return s, false
		}
		rrtype, ttl, size := binary.BigEndian.Uint16(reply[fixed:]), binary.BigEndian.Uint32(reply[fixed+4:]), end-at
		if rrtype != dns.TypeOPT || fixed != at+root {
			if s.ttls = append(s.ttls, fixed+4); len(s.ttls) == 1 {
				s.shortest, s.each = ttl, size
			}
			s.shortest = min(s.shortest, ttl)
			// A pointer to the question and an address: nothing points into it.
			if rrtype != dns.TypeA && rrtype != dns.TypeAAAA || fixed != at+2 || size != s.each || i >= answers {
				s.each = 0
			}
			if i >= before {
				s.additional++
			}
		}
		at = end
	}
	return s, at == len(reply)
}
