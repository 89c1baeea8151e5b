package transport

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// hidden is shown in place of a secret.
const hidden = "***"

// secret is a text that is shown to nobody by accident, however it is printed or
// encoded. string(s) is the text.
type secret string

// String returns stars.
func (secret) String() string { return hidden }

// GoString returns stars.
func (secret) GoString() string { return hidden }

// Format writes stars, for any verb.
func (secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText returns stars, for JSON and YAML too.
func (secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// keptSecrets is how many secrets are remembered: those of today and those
// before, for a server may quote an old one.
const keptSecrets = 32

// secrets are texts to strike out of what others say. It is safe for concurrent
// use.
type secrets struct {
	mu   sync.Mutex // guards the following
	list []string   // the longest first, so that none hides in another's rest
	age  []string   // the same, the oldest first
}

// add remembers a secret.
func (s *secrets) add(text secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == "" || slices.Contains(s.list, string(text)) {
		return
	}
	s.age = append(s.age, string(text))
	s.age = s.age[max(0, len(s.age)-keptSecrets):]
	s.list = slices.Clone(s.age)
	slices.SortStableFunc(s.list, func(a, b string) int { return len(b) - len(a) })
}

// strike returns text without the secrets in it, as they are and as they are
// often written.
func (s *secrets) strike(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.list {
		for _, form := range []string{
			one, url.QueryEscape(one), url.PathEscape(one), base64.StdEncoding.EncodeToString([]byte(one)),
		} {
			text = strings.ReplaceAll(text, form, hidden)
		}
	}
	return text
}
