package transport

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
)

func TestCallersAtOnceShareALoginThatFails(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	f := &files{account: &value[*account]{parse: func([][]byte) (*account, error) {
		return &account{"me", key, &url.URL{Scheme: "http", Host: "iam.example", Path: "/"}}, nil
	}}}
	synctest.Test(t, func(t *testing.T) {
		answer, asked, told := make(chan error), 0, 0
		l := newLogin(f, roundTripper(func(*http.Request) (*http.Response, error) {
			asked++ // by one at a time
			return nil, <-answer
		}), func(error) { told++ })
		for round := 1; round <= 2; round++ {
			var g sync.WaitGroup
			for range 10 {
				g.Go(func() {
					if header, err := l.get(t.Context(), secret{}); err == nil || header.reveal() != "" {
						t.Errorf("header %v, error %v", header, err)
					}
				})
			}
			synctest.Wait() // one asks, nine wait for it
			answer <- http.ErrHandlerTimeout
			g.Wait()
			if asked != round || told != round {
				t.Errorf("asked %d times, told %d times, after %d rounds", asked, told, round)
			}
		}
	})
}
