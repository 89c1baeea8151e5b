package mesos

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxObject bounds one task, agent or framework, in bytes: what a picture of
// any size makes us hold at once.
const maxObject = 64 << 20

var errObjectSize = errors.New("value is too large to be read")

// scanner reads JSON from a stream and holds one value of it at a time. It
// finds where values begin and end, nothing more: a value it hands out is
// checked by whoever decodes it, one it skips is not checked at all.
type scanner struct {
	r        io.Reader
	buf      []byte
	pos, end int    // buf[pos:end] is read but not taken
	value    []byte // the last value handed out
	max      int    // its largest size
}

func newScanner() *scanner { return &scanner{buf: make([]byte, 32<<10), max: maxObject} }

// reset begins a new document.
func (s *scanner) reset(r io.Reader) { s.r, s.pos, s.end = r, 0, 0 }

// fill reads more once everything is taken. It returns io.EOF at the end.
func (s *scanner) fill() error {
	for range 100 {
		n, err := s.r.Read(s.buf)
		s.pos, s.end = 0, n
		if n > 0 {
			return nil // an error comes again with the next call
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// peek returns the next byte that is no blank, without taking it.
func (s *scanner) peek() (byte, error) {
	for {
		for ; s.pos < s.end; s.pos++ {
			switch c := s.buf[s.pos]; c {
			case ' ', '\t', '\r', '\n':
			default:
				return c, nil
			}
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// take takes the next byte that is no blank, which must be one of want.
func (s *scanner) take(want string) (byte, error) {
	c, err := s.peek()
	if err != nil {
		return 0, noEOF(err)
	}
	if strings.IndexByte(want, c) < 0 {
		return 0, fmt.Errorf("%q where one of %q should be", c, want)
	}
	s.pos++
	return c, nil
}

// skip takes the next value and holds none of it.
func (s *scanner) skip() error { return s.scan(false) }

// next takes the next value and returns it, valid until the next call. It
// returns errObjectSize if that was too large, and may go on then.
func (s *scanner) next() ([]byte, error) {
	err := s.scan(true)
	return s.value, err
}

func (s *scanner) scan(keep bool) error {
	if _, err := s.peek(); err != nil {
		return noEOF(err)
	}
	var v valueEnd
	var large error
	s.value = s.value[:0]
	for {
		n, done, err := v.find(s.buf[s.pos:s.end])
		if keep && len(s.value)+n > s.max {
			s.value, keep, large = nil, false, errObjectSize
		}
		if keep {
			s.value = append(s.value, s.buf[s.pos:s.pos+n]...)
		}
		s.pos += n
		if done || err != nil {
			return cmp.Or(err, large)
		}
		switch err := s.fill(); {
		case err == io.EOF && v.scalar && v.depth == 0: // a number may end the document
			return large
		case err != nil:
			return noEOF(err)
		}
	}
}

// valueEnd finds the end of a value that comes in pieces.
type valueEnd struct {
	depth           int
	quoted, escaped bool
	scalar          bool // a number, true, false or null
}

var errNoValue = errors.New("no value where one should be")

// find returns how many bytes of b belong to the value, and whether it ends
// there.
func (v *valueEnd) find(b []byte) (n int, done bool, err error) {
	for i, c := range b {
		switch {
		case v.escaped:
			v.escaped = false
		case v.quoted:
			switch c {
			case '\\':
				v.escaped = true
			case '"':
				v.quoted = false
				if v.depth == 0 {
					return i + 1, true, nil
				}
			}
		case c == '"' && !v.scalar:
			v.quoted = true
		case (c == '{' || c == '[') && !v.scalar:
			v.depth++
		case c == '}' || c == ']':
			if v.scalar {
				return i, true, nil
			}
			if v.depth == 0 {
				return i, true, errNoValue
			}
			if v.depth--; v.depth == 0 {
				return i + 1, true, nil
			}
		case v.depth > 0:
		case c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n':
			if !v.scalar {
				return i, true, errNoValue
			}
			return i, true, nil
		default:
			v.scalar = true
		}
	}
	return len(b), false, nil
}

// members calls f for the key of every member of the object that begins here;
// f takes the value. The key is valid until then.
func (s *scanner) members(f func(key []byte) error) error {
	return s.list('{', '}', func() error {
		if c, err := s.peek(); err != nil || c != '"' {
			return cmp.Or(noEOF(err), fmt.Errorf("%q where a key should be", c))
		}
		quoted, err := s.next()
		if err != nil {
			return err
		}
		key := quoted[1 : len(quoted)-1]
		if bytes.IndexByte(key, '\\') >= 0 {
			var text string
			if err := json.Unmarshal(quoted, &text); err != nil {
				return err
			}
			key = []byte(text)
		}
		if _, err := s.take(":"); err != nil {
			return err
		}
		return f(key)
	})
}

// elements calls f for every element of the array that begins here; f takes it.
func (s *scanner) elements(f func() error) error { return s.list('[', ']', f) }

func (s *scanner) list(open, end byte, f func() error) error {
	if _, err := s.take(string(open)); err != nil {
		return err
	}
	if c, err := s.peek(); err == nil && c == end {
		s.pos++
		return nil
	}
	for {
		if err := f(); err != nil {
			return err
		}
		c, err := s.take("," + string(end))
		if err != nil {
			return err
		}
		if c == end {
			return nil
		}
	}
}
