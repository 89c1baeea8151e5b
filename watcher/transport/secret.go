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
// encoded. It is behind a pointer, since fmt prints the fields of others' structs
// without asking their methods. The zero value is empty.
type secret struct{ text *string }

func hide(text string) secret { return secret{&text} }

func (s secret) reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

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
	list []secret   // the longest first, so that none hides in another's rest
	age  []secret   // the same, the oldest first
}

// add remembers a secret.
func (s *secrets) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == "" || slices.ContainsFunc(s.age, func(old secret) bool { return old.reveal() == text }) {
		return
	}
	s.age = append(s.age, hide(text))
	s.age = slices.Clone(s.age[max(0, len(s.age)-keptSecrets):])
	s.list = slices.Clone(s.age)
	slices.SortStableFunc(s.list, func(a, b secret) int { return len(b.reveal()) - len(a.reveal()) })
}

// forms are how a secret is often written.
func forms(text string) [4]string {
	return [...]string{text, url.QueryEscape(text), url.PathEscape(text), base64.StdEncoding.EncodeToString([]byte(text))}
}

// longest is the length of the longest form of any secret, in bytes.
func (s *secrets) longest() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.list {
		for _, form := range forms(one.reveal()) {
			n = max(n, len(form))
		}
	}
	return n
}

// strike returns text without the secrets in it, as they are and as they are
// often written.
func (s *secrets) strike(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.list {
		for _, form := range forms(one.reveal()) {
			text = strings.ReplaceAll(text, form, hidden)
		}
	}
	return text
}
