package transport

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"testing"
)

// walk takes steps at random, the same in each run.
func walk(t *testing.T, steps int, step func(pick func(n int) int)) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for range steps {
		step(r.IntN)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
