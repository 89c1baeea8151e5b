package mesos

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestScannerHandsOutValuesAsTheyAre(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, `""`, `0`, `-1.5e3`, `true`, `false`, `null`,
		`{"a":{"b":[1,2,{"c":"}]"}]}}`, `"\"\\"`, `"\\"`, `["\\\""]`, `"ä\u00e4"`,
	} {
		for name, r := range map[string]io.Reader{
			"at once":         strings.NewReader(" \n" + text + " \t"),
			"byte by byte":    iotest.OneByteReader(strings.NewReader(text)),
			"with its end":    iotest.DataErrReader(strings.NewReader(text)),
			"in a list":       strings.NewReader("," + text + ",x"),
			"before an ender": strings.NewReader(text + "]"),
		} {
			s := newScanner()
			s.reset(r)
			if name == "in a list" {
				if _, err := s.take(","); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := s.next(); err != nil || string(got) != text {
				t.Errorf("%s %s: got %q, %v", text, name, got, err)
			}
		}
	}
}

func TestScannerNamesWhatIsNoJSON(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"an empty document", ``, `unexpected EOF`},
		{"a cut string", `{"a":"b`, `unexpected EOF`},
		{"a cut object", `{"a":1`, `unexpected EOF`},
		{"a missing value", `{"a":}`, `no value where one should be`},
		{"a missing key", `{1:2}`, `'1' where a key should be`},
		{"a missing colon", `{"a" 1}`, `'1' where one of ":" should be`},
		{"a missing comma", `{"a":1 "b":2}`, `'"' where one of ",}" should be`},
		{"a trailing comma", `{"a":1,}`, `'}' where a key should be`},
		{"no object", `[1]`, `'[' where one of "{" should be`},
		{"a key that is no string", `{"\x":1}`, `invalid character 'x' in string escape code`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScanner()
			s.reset(strings.NewReader(tt.text))
			err := s.members(func([]byte) error { return s.skip() })
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestScannerSkipsALargeValueAndGoesOn(t *testing.T) {
	s := newScanner()
	s.max = 100
	s.reset(strings.NewReader(`["` + strings.Repeat("x", 99) + `","` + strings.Repeat("x", 98) + `",7]`))
	var got []int
	err := s.elements(func() error {
		raw, err := s.next()
		if err == errObjectSize {
			got = append(got, -1)
			return nil
		}
		got = append(got, len(raw))
		return err
	})
	if d := cmp.Diff([]int{-1, 100, 1}, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}

func TestScannerGivesUpOnAReaderThatNeverReads(t *testing.T) {
	s := newScanner()
	s.reset(iotest.ErrReader(nil))
	if _, err := s.next(); err != io.ErrNoProgress {
		t.Errorf("got %v", err)
	}
}

// FuzzScanner holds the scanner against encoding/json: of whatever that takes
// as valid, both find the same members and elements, however it arrives.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[true,null],"c":{"d":"e\"}"}}`, `[1,"x",{}]`, `{"\u0061":1}`, `{`, `[1,]`, `"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text))} {
			s := newScanner()
			s.reset(r)
			compare(t, s, text)
		}
	})
}

func compare(t *testing.T, s *scanner, text string) {
	valid := json.Valid([]byte(text))
	trimmed := strings.TrimLeft(text, " \t\r\n")
	switch {
	case strings.HasPrefix(trimmed, "{"):
		got := map[string]string{}
		err := s.members(func(key []byte) error {
			k := string(key)
			raw, err := s.next()
			got[k] = string(raw)
			return err
		})
		if !valid {
			return // it may not notice, but must not panic or hang
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		same := map[string]string{}
		for k, v := range want {
			same[k] = string(v)
		}
		if d := cmp.Diff(same, got); err != nil || d != "" && validKeys(text) {
			t.Fatalf("members of %q: %v %s", text, err, d)
		}
	case strings.HasPrefix(trimmed, "["):
		var got []json.RawMessage
		err := s.elements(func() error {
			raw, err := s.next()
			got = append(got, bytes.Clone(raw))
			return err
		})
		var want []json.RawMessage
		if valid && (json.Unmarshal([]byte(text), &want) != nil || err != nil || !slicesEqual(want, got)) {
			t.Fatalf("elements of %q: %q, %v", text, got, err)
		}
	default:
		got, err := s.next()
		if valid && (err != nil || string(got) != strings.TrimSpace(trimmed)) {
			t.Fatalf("value of %q: %q, %v", text, got, err)
		}
	}
}

// validKeys says that text is UTF-8: encoding/json mends keys that are not.
func validKeys(text string) bool { return strings.ToValidUTF8(text, "") == text }

func slicesEqual(a, b []json.RawMessage) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}
