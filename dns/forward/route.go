package forward

import (
	"fmt"
	"slices"
)

// router says who is asked for a name.
type router struct {
	zones map[string]*group // wire names in lower case; a nil group asks nobody
}

func newRouter(cfg Config, groups map[string]*group) (*router, error) {
	r := &router{zones: map[string]*group{}}
	for _, name := range cfg.Local {
		w, err := wireName(name)
		if err != nil {
			return nil, fmt.Errorf("local name %q: %w", name, err)
		}
		r.zones[string(w)] = nil
	}
	for name, g := range groups {
		w, err := wireName(name)
		if err != nil {
			return nil, fmt.Errorf("zone %q: %w", name, err)
		}
		r.zones[string(w)] = g
	}
	return r, nil
}

// route is where a question goes.
type route struct {
	group *group // nil asks nobody
	local bool   // since the name does not exist outside
	apex  int    // where in the name what decided this starts
}

// find returns the route of a name in lower case wire form. The longest suffix
// of whole labels counts. A name of one label is nobody's but ours: outside it
// could only be asked of the root servers.
func (r *router) find(name []byte) route {
	for off := 0; ; off += 1 + int(name[off]) {
		if g, ok := r.zones[string(name[off:])]; ok && (name[off] != 0 || !oneLabel(name)) {
			return route{group: g, local: g == nil, apex: off}
		}
		if name[off] == 0 {
			return route{local: oneLabel(name), apex: off}
		}
	}
}

func oneLabel(name []byte) bool { return name[0] != 0 && int(name[0])+2 == len(name) }

// appendNoSuchName appends the answer that a name does not exist in a zone that
// is kept from leaking: with a SOA record, so that it can be remembered.
func appendNoSuchName(dst []byte, q *question, apex, maxUDP int) []byte {
	counts := [3]uint16{0, 1, 0}
	if q.edns {
		counts[2] = 1
	}
	dst = append(appendHeader(dst, q, rcodeNXDomain, counts), q.raw...)
	at := headerSize + apex
	dst = append(dst, 0xc0|byte(at>>8), byte(at), 0, typeSOA, 0, 1)
	dst = append(dst, 0, 0, 0, localTTL) // owner's TTL
	soa := slices.Concat(localhost, nobody, []byte{
		0, 0, 0, 1, // serial
		0, 0, 0x0e, 0x10, 0, 0, 0x04, 0xb0, 0, 0x09, 0x3a, 0x80, // refresh, retry, expire as in RFC 6303
		0, 0, 0, localTTL,
	})
	dst = append(append(dst, 0, byte(len(soa))), soa...)
	if q.edns {
		dst = appendOPT(dst, maxUDP, q.do, edeNone)
	}
	return dst
}

// localTTL is how long, in seconds, clients may remember that a local name does
// not exist.
const localTTL = 60

// The names of the SOA record of RFC 6303 section 3.
var (
	localhost = []byte("\x09localhost\x00")
	nobody    = []byte("\x06nobody\x07invalid\x00")
)
