package transport

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
)

// maxFile bounds what is read of a file.
const maxFile = 1 << 20

// fileError says which setting's file cannot be used, and not what is in it.
type fileError struct {
	setting, path string
	err           error
}

// Error names the setting, the file and what is wrong.
func (e *fileError) Error() string { return e.setting + " " + e.unwrapped().Error() }

// Unwrap returns what is wrong with the file.
func (e *fileError) Unwrap() error { return e.err }

func (e *fileError) unwrapped() error { return fmt.Errorf("%s: %w", e.path, e.err) }

// setting is a configured file.
type setting struct{ name, path string }

func (s setting) wrong(err error) error { return &fileError{s.name, s.path, err} }

// value is what some files say, read anew each time and made into a T only when
// they have changed. Once they were good, what they said stands until they are
// good again: a certificate is replaced before its key is. It is safe for
// concurrent use.
type value[T any] struct {
	files []setting
	parse func(texts [][]byte) (T, error) // errors do not quote the texts
	stale func(error)                     // called when the last good value is used, once for each reason

	mu   sync.Mutex // guards the following
	made bool
	sum  [sha256.Size]byte // of what good was made of
	good T
	told string
}

// get returns what the files say, or said last.
func (v *value[T]) get() (T, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.readLocked()
	switch {
	case err == nil:
		v.told = ""
	case v.made:
		if text := err.Error(); text != v.told && v.stale != nil {
			v.told = text
			v.stale(err)
		}
		return v.good, nil
	}
	return v.good, err
}

func (v *value[T]) readLocked() error {
	var texts [][]byte
	hash := sha256.New()
	for _, f := range v.files {
		text, err := readFile(f.path)
		if err != nil {
			return f.wrong(err)
		}
		texts = append(texts, text)
		fmt.Fprintf(hash, "%d:%s", len(text), text)
	}
	sum := [sha256.Size]byte(hash.Sum(nil))
	if v.made && sum == v.sum {
		return nil
	}
	good, err := v.parse(texts)
	if err != nil {
		if _, ok := errors.AsType[*fileError](err); !ok {
			err = v.files[0].wrong(err)
		}
		return err
	}
	v.made, v.sum, v.good = true, sum, good
	return nil
}

// readFile reads a regular file; anything else might be waited for forever.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(text) > maxFile {
		return nil, fmt.Errorf("is larger than %d bytes", maxFile)
	}
	return text, withoutPath(err)
}

func withoutPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// warnMode warns of a secret that all users of the machine may read.
func warnMode(s setting, warn func(setting string, err error)) {
	if info, err := os.Stat(s.path); err == nil && info.Mode()&0o004 != 0 {
		warn(s.name, fmt.Errorf("%s: can be read by others: its mode is %04o", s.path, info.Mode().Perm()))
	}
}
