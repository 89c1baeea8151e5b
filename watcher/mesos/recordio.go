package mesos

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	// maxHeader is the longest decimal number of 64 bits.
	maxHeader = 20
	// readBuffer holds many ordinary events (0.7 to 2 kB each), so that a storm
	// is read in few system calls and taken in gulps.
	readBuffer = 64 << 10
)

// ErrRecordIO is what errors of a stream that is not RecordIO match.
var ErrRecordIO = errors.New("not RecordIO")

// ErrRecordSize is what errors of a record larger than allowed match.
var ErrRecordSize = errors.New("record too large")

// recordReader splits a stream into records: a decimal length, a line feed,
// that many bytes, and nothing between records.
type recordReader struct {
	r      *bufio.Reader
	n      int64 // records begun
	offset int64 // bytes of complete records and headers so far
	rest   int64 // bytes of the current record not read yet
}

func newRecordReader(r io.Reader) *recordReader {
	return &recordReader{r: bufio.NewReaderSize(r, readBuffer)}
}

// next begins the next record, which may have limit bytes; Read then reads it
// to its end. It skips what is left of the current one, and returns io.EOF where
// the stream ends between records.
func (r *recordReader) next(limit int64) (length int64, err error) {
	if r.rest > 0 {
		if _, err := io.CopyN(io.Discard, r, r.rest); err != nil {
			return 0, fmt.Errorf("skip rest of record %d: %w", r.n, noEOF(err))
		}
	}
	header, err := r.header()
	if err != nil {
		return 0, err
	}
	length, err = strconv.ParseInt(string(header), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: record %d at byte %d has length %q", ErrRecordIO, r.n+1, r.offset, header)
	}
	r.n++
	if length > limit {
		return 0, fmt.Errorf("%w: record %d at byte %d has %d bytes, limit %d", ErrRecordSize, r.n, r.offset, length, limit)
	}
	r.offset += int64(len(header)) + 1
	r.rest = length
	return length, nil
}

// header reads digits up to the line feed.
func (r *recordReader) header() ([]byte, error) {
	var header []byte
	for {
		c, err := r.r.ReadByte()
		if err == io.EOF && len(header) == 0 {
			return nil, io.EOF
		}
		if err != nil {
			return nil, fmt.Errorf("read length of record %d at byte %d: %w", r.n+1, r.offset, noEOF(err))
		}
		if c == '\n' && len(header) > 0 {
			return header, nil
		}
		header = append(header, c)
		if c < '0' || c > '9' || len(header) > maxHeader {
			return nil, fmt.Errorf("%w: record %d at byte %d has length %q", ErrRecordIO, r.n+1, r.offset, header)
		}
	}
}

// Read reads from the current record and returns io.EOF at its end.
func (r *recordReader) Read(p []byte) (int, error) {
	if r.rest == 0 {
		return 0, io.EOF
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.rest)])
	r.rest -= int64(n)
	r.offset += int64(n)
	if err != nil && r.rest > 0 {
		return n, fmt.Errorf("read record %d, %d bytes short: %w", r.n, r.rest, noEOF(err))
	}
	return n, nil // an error after the last byte is the next record's
}

// ready reports whether a complete further record is buffered, so that next
// will not wait.
func (r *recordReader) ready() bool {
	if r.rest > 0 {
		return false
	}
	b, _ := r.r.Peek(r.r.Buffered())
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return false
	}
	n, err := strconv.ParseInt(string(b[:i]), 10, 64)
	return err == nil && n <= int64(len(b)-i-1)
}

// noEOF makes an end where none may be an error of its own.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
