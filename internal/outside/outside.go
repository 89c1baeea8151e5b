// Package outside finds the recordings and expectations of other programs that
// tests read in place: the folder "shared" beside the project. They are not the
// project's, are never copied into it, and may be absent where it is built.
package outside

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Path returns the path of a file or folder of outside data. It skips the test,
// with the reason, only where there is no outside data at all.
func Path(tb testing.TB, elem ...string) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			tb.Fatal("there is no go.mod above the test's folder")
		}
		dir = filepath.Dir(dir)
	}
	shared := filepath.Join(dir, "..", "shared")
	if _, err := os.Stat(shared); err != nil {
		tb.Skipf("no outside data beside the project: %v", err)
	}
	return filepath.Join(append([]string{shared}, elem...)...)
}

// Read returns the content of a file of outside data.
func Read(tb testing.TB, elem ...string) []byte {
	tb.Helper()
	text, err := os.ReadFile(Path(tb, elem...))
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// JSON decodes a file of outside data into v.
func JSON(tb testing.TB, v any, elem ...string) {
	tb.Helper()
	if err := json.Unmarshal(Read(tb, elem...), v); err != nil {
		tb.Fatalf("%s: %v", filepath.Join(elem...), err)
	}
}
