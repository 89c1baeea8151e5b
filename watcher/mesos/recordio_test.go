package mesos

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

const anySize = 1 << 40

// records reads everything r has.
func records(r *recordReader, limit int64) ([]string, error) {
	var out []string
	for {
		if _, err := r.next(limit); err != nil {
			return out, err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return out, err
		}
		out = append(out, string(b))
	}
}

func TestRecordsAreReadHoweverTheyArrive(t *testing.T) {
	long := strings.Repeat("x", 3*readBuffer)
	text := "5\nhello0\n3\n\n\n\n010\n0123456789" + fmt.Sprint(len(long), "\n", long)
	want := []string{"hello", "", "\n\n\n", "0123456789", long}
	for name, r := range map[string]io.Reader{
		"at once":           strings.NewReader(text),
		"byte by byte":      iotest.OneByteReader(strings.NewReader(text)),
		"in halves":         iotest.HalfReader(strings.NewReader(text)),
		"last with its end": iotest.DataErrReader(strings.NewReader(text)),
	} {
		got, err := records(newRecordReader(r), anySize)
		if err != io.EOF {
			t.Errorf("%s: ends with %v, want io.EOF", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestBadFramingIsNamedByRecordAndByte(t *testing.T) {
	for _, tt := range []struct {
		name, text, want string
		is               error
	}{
		{"no digits", "2\n{}abc", `not RecordIO: record 2 at byte 4 has length "a"`, ErrRecordIO},
		{"an empty length", "\nabc", `not RecordIO: record 1 at byte 0 has length "\n"`, ErrRecordIO},
		{"a negative length", "-1\n", `not RecordIO: record 1 at byte 0 has length "-"`, ErrRecordIO},
		{"a length of 21 digits", strings.Repeat("1", 21), `not RecordIO: record 1 at byte 0 has length "111111111111111111111"`, ErrRecordIO},
		{"a length beyond 63 bits", "18446744073709551615\n", `not RecordIO: record 1 at byte 0 has length "18446744073709551615"`, ErrRecordIO},
		{"a record beyond the limit", "2\n{}101\n", `record too large: record 2 at byte 4 has 101 bytes, limit 100`, ErrRecordSize},
		{"a cut length", "2\n{}12", `read length of record 2 at byte 4: unexpected EOF`, io.ErrUnexpectedEOF},
		{"a cut record", "2\n{}10\nabc", `read record 2, 7 bytes short: unexpected EOF`, io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := records(newRecordReader(strings.NewReader(tt.text)), 100)
			if !errors.Is(err, tt.is) || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestTheRestOfARecordIsSkipped(t *testing.T) {
	r := newRecordReader(strings.NewReader("5\nhello2\nyo"))
	for _, want := range []string{"h", "y"} {
		if _, err := r.next(anySize); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
			t.Errorf("got %q, %v", b, err)
		}
	}
	if _, err := r.next(anySize); err != io.EOF {
		t.Errorf("ends with %v", err)
	}
	cut := newRecordReader(strings.NewReader("5\nhel"))
	if _, err := cut.next(anySize); err != nil {
		t.Fatal(err)
	}
	if _, err := cut.next(anySize); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("skipping a cut record gives %v", err)
	}
}

func TestReadyMeansThatACompleteRecordIsHere(t *testing.T) {
	for _, tt := range []struct {
		rest string
		want bool
	}{
		{"2\nyo", true}, {"2\ny", false}, {"2\n", false}, {"2", false}, {"", false}, {"0\n", true}, {"x\n", false},
	} {
		r := newRecordReader(strings.NewReader("5\nhello" + tt.rest))
		if _, err := r.next(anySize); err != nil {
			t.Fatal(err)
		}
		if r.ready() {
			t.Error("ready within a record")
		}
		if _, err := io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		if got := r.ready(); got != tt.want {
			t.Errorf("before %q: %v", tt.rest, got)
		}
	}
}

// FuzzRecordIO: what is framed comes out as it went in, and any other input
// ends with an error, at the same record however it arrives.
func FuzzRecordIO(f *testing.F) {
	f.Add([]byte("5\nhello0\n"), []byte("abc"))
	f.Add([]byte("99999999999999999999\n"), []byte(""))
	f.Add([]byte("2\n{}x"), []byte("\n\n"))
	f.Fuzz(func(t *testing.T, text, payload []byte) {
		all, err := records(newRecordReader(bytes.NewReader(text)), 1<<20)
		if err == nil {
			t.Fatal("reading ended without an error")
		}
		again, err2 := records(newRecordReader(iotest.OneByteReader(bytes.NewReader(text))), 1<<20)
		if d := cmp.Diff(all, again); d != "" || err.Error() != err2.Error() {
			t.Fatalf("byte by byte: %v, not %v: %s", err2, err, d)
		}
		framed := fmt.Appendf(nil, "%d\n%s", len(payload), payload)
		got, err := records(newRecordReader(bytes.NewReader(append(framed, framed...))), 1<<20)
		if d := cmp.Diff([]string{string(payload), string(payload)}, got); d != "" || err != io.EOF {
			t.Fatalf("%v: %s", err, d)
		}
	})
}
