package feature

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"waggle/lb"
	"waggle/lb/lbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// update is the environment variable with which `make generate` has the table
// written.
const update = "WAGGLE_UPDATE"

//go:generate env WAGGLE_UPDATE=1 go test -count=1 -run TestTheTableInTheDocsIsThisOne .

func TestTheTableInTheDocsIsThisOne(t *testing.T) {
	const path, begin, end = "../../docs/balancers.md", "<!-- begin: made by lb/feature -->\n", "<!-- end -->"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", path)
	}
	want := before + begin + table() + end + after
	if os.Getenv(update) != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Errorf("%s is stale, make generate (-want +got): %s", path, d)
	}
}

// TestWithoutABalancerNothingWorks shows that the proofs prove something.
func TestWithoutABalancerNothingWorks(t *testing.T) {
	Prove(t, Nothing, func(testing.TB, Setting) Bed {
		return Bed{Open: func(testing.TB) lb.Dataplane { return lbtest.New() }}
	})
}
