package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"waggle/model"
)

// content is what is known of one file.
type content struct {
	path string
	text []byte  // as last read
	good *parsed // what the last text that made sense says; nil before
	err  error   // why good is not what the file says now
}

func (c *content) problems() []model.Problem {
	var out []model.Problem
	if c.err != nil {
		out = append(out, model.Problem{Field: c.path, Error: strings.ReplaceAll(c.err.Error(), "\n", "; ")})
	}
	if c.good != nil {
		out = append(out, c.good.problems...)
	}
	return out
}

// read returns the file's content now. What cannot be read or understood leaves
// what was known before, and says why.
func (c *content) read(max int64) (next *content, gone bool) {
	text, err := readAll(c.path, max)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, true
	case err != nil:
		return c.failed(err), false
	case c.text != nil && bytes.Equal(text, c.text):
		return c, false
	}
	next = &content{path: c.path, text: text, good: c.good}
	if good, err := parse(c.path, text); err != nil {
		next.err = err
	} else {
		next.good = good
	}
	return next, false
}

// failed returns c with err for its error, or c itself if that is what it says.
// The text is forgotten, so that the next read looks at it again.
func (c *content) failed(err error) *content {
	if c.err != nil && c.err.Error() == err.Error() {
		return c
	}
	return &content{path: c.path, good: c.good, err: err}
}

func sameError(a, b *content) bool { return a.path == b.path && a.err.Error() == b.err.Error() }

func readAll(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(text)) > max {
		err = fmt.Errorf("larger than %d bytes", max)
	}
	return text, err
}

// list returns the files that path means: itself, or those in the folder it
// is.
func list(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		if st, statErr := os.Stat(path); statErr == nil && !st.IsDir() {
			return []string{path}, nil
		}
		return nil, err
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		ext := strings.ToLower(filepath.Ext(name))
		if !strings.HasPrefix(name, ".") && !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			out = append(out, filepath.Join(path, name))
		}
	}
	return out, nil
}
