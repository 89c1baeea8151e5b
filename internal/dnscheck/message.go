package dnscheck

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Header bits.
const (
	qr = 0x8000
	aa = 0x0400
	tc = 0x0200
	rd = 0x0100
	ra = 0x0080
	z  = 0x0040
	ad = 0x0020
	cd = 0x0010
)

// Types and classes.
const (
	typeA     = 1
	typeNS    = 2
	typeSOA   = 6
	typePTR   = 12
	typeTXT   = 16
	typeAAAA  = 28
	typeSRV   = 33
	typeOPT   = 41
	typeDS    = 43
	typeHTTPS = 65
	typeIXFR  = 251
	typeAXFR  = 252
	typeANY   = 255
	classIN   = 1
)

// Rcodes, those beyond 15 with the upper bits from the OPT record.
const (
	noError   = 0
	formErr   = 1
	servFail  = 2
	nxDomain  = 3
	notImp    = 4
	refused   = 5
	notAuth   = 9
	badVers   = 16
	badCookie = 23
)

const headerSize = 12

// Question is what a message asks.
type Question struct {
	Name        []byte // wire form, as it was spelled
	Type, Class uint16
}

// Record is one resource record.
type Record struct {
	Owner       []byte // wire form, without compression
	Type, Class uint16
	TTL         uint32
	Data        []byte
	at          int // of Data in the message
}

// Message is a DNS message taken apart.
type Message struct {
	ID, Flags                     uint16
	Question                      []Question
	Answer, Authority, Additional []Record
	Raw                           []byte
}

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }

var errCut = errors.New("message ends too early")

// Parse takes a message apart. Anything that RFC 1035 does not allow is an
// error, octets behind the last record too.
func Parse(raw []byte) (*Message, error) {
	if len(raw) < headerSize {
		return nil, errCut
	}
	m := &Message{ID: be16(raw), Flags: be16(raw[2:]), Raw: raw}
	at := headerSize
	for range be16(raw[4:]) {
		name, next, err := readName(raw, at)
		if err != nil {
			return nil, err
		}
		if next+4 > len(raw) {
			return nil, errCut
		}
		m.Question = append(m.Question, Question{name, be16(raw[next:]), be16(raw[next+2:])})
		at = next + 4
	}
	for i, section := range []*[]Record{&m.Answer, &m.Authority, &m.Additional} {
		for range be16(raw[6+2*i:]) {
			r, next, err := readRecord(raw, at)
			if err != nil {
				return nil, err
			}
			*section = append(*section, r)
			at = next
		}
	}
	if at != len(raw) {
		return nil, fmt.Errorf("%d octets follow the message", len(raw)-at)
	}
	return m, nil
}

func readRecord(raw []byte, at int) (Record, int, error) {
	owner, at, err := readName(raw, at)
	if err != nil {
		return Record{}, 0, err
	}
	if at+10 > len(raw) {
		return Record{}, 0, errCut
	}
	r := Record{Owner: owner, Type: be16(raw[at:]), Class: be16(raw[at+2:]), TTL: binary.BigEndian.Uint32(raw[at+4:]), at: at + 10}
	end := r.at + int(be16(raw[at+8:]))
	if end > len(raw) {
		return Record{}, 0, errCut
	}
	r.Data = raw[r.at:end]
	return r, end, nil
}

// readName returns the name at an offset, spelled out, and what follows it.
func readName(raw []byte, at int) (name []byte, next int, err error) {
	jumped := false
	for limit := at; ; {
		if at >= len(raw) {
			return nil, 0, errCut
		}
		n := int(raw[at])
		switch {
		case n == 0:
			if !jumped {
				next = at + 1
			}
			return append(name, 0), next, nil
		case n < 64:
			if at+1+n > len(raw) {
				return nil, 0, errCut
			}
			name = append(name, raw[at:at+1+n]...)
			at += 1 + n
		case n >= 192:
			if at+2 > len(raw) {
				return nil, 0, errCut
			}
			to := int(be16(raw[at:]) & 0x3fff)
			if !jumped {
				next, jumped = at+2, true
			}
			if to >= limit {
				return nil, 0, errors.New("a pointer that does not point back")
			}
			at, limit = to, to
		default:
			return nil, 0, fmt.Errorf("label type %#x", n)
		}
		if len(name) > 254 {
			return nil, 0, errors.New("a name of more than 255 octets")
		}
	}
}

// wire returns a name without escapes in wire form.
func wire(name string) []byte {
	var labels []string
	if name != "." {
		labels = strings.Split(strings.TrimSuffix(name, "."), ".")
	}
	return wireLabels(labels...)
}

func wireLabels(labels ...string) []byte {
	var out []byte
	for _, l := range labels {
		out = append(append(out, byte(len(l))), l...)
	}
	return append(out, 0)
}

// text writes a wire name for people.
func text(name []byte) string {
	var out strings.Builder
	for len(name) > 1 {
		n := int(name[0])
		out.Write(name[1 : 1+n])
		out.WriteByte('.')
		name = name[1+n:]
	}
	return out.String()
}

// sameName compares wire names as RFC 4343 says.
func sameName(a, b []byte) bool { return bytes.Equal(lower(a), lower(b)) }

// lower folds A to Z only; the lengths of labels are below 64 and stay.
func lower(name []byte) []byte {
	out := bytes.Clone(name)
	for i, c := range out {
		if 'A' <= c && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return out
}

// within reports whether name is zone or below it.
func within(name, zone []byte) bool {
	for len(name) > len(zone) {
		name = name[1+int(name[0]):]
	}
	return sameName(name, zone)
}

// opt returns the OPT records of the additional section.
func (m *Message) opt() []Record {
	var out []Record
	for _, r := range m.Additional {
		if r.Type == typeOPT {
			out = append(out, r)
		}
	}
	return out
}

// rcode returns the whole rcode.
func (m *Message) rcode() int {
	code := int(m.Flags & 15)
	for _, o := range m.opt() {
		code |= int(o.TTL>>24) << 4
	}
	return code
}

// option returns the data of an EDNS option in the reply.
func (m *Message) option(code uint16) (data []byte, ok bool) {
	for _, o := range m.opt() {
		for d := o.Data; len(d) >= 4; {
			n := int(be16(d[2:]))
			if len(d) < 4+n {
				break
			}
			if be16(d) == code {
				return d[4 : 4+n], true
			}
			d = d[4+n:]
		}
	}
	return nil, false
}
