//go:build !vmtest

package ipvs

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
)

// TestEditsAreThoseOfDCOS holds the steps against the cases of DC/OS' manager
// that are about the difference of two lists of backends.
func TestEditsAreThoseOfDCOS(t *testing.T) {
	var cases []struct {
		Name          string
		Input, Expect json.RawMessage
	}
	outside.JSON(t, &cases, "conformance", "dcos-net.json")
	n := 0
	for _, c := range cases {
		if c.Name != "manager/diff-backends" && c.Name != "manager/diff-weight" {
			continue // the others are about lists of plain numbers
		}
		n++
		var input struct{ Old, New map[string][]string }
		var expect struct {
			Mod map[string]struct {
				Add, Del     []string
				WeightChange []string `json:"weight_change"`
			}
		}
		if err := errors.Join(json.Unmarshal(c.Input, &input), json.Unmarshal(c.Expect, &expect)); err != nil {
			t.Fatal(err)
		}
		for f := range input.New {
			var add, del, set []string
			for _, e := range edits(&service{dests: dests(input.Old[f]...)}, &service{dests: dests(input.New[f]...)}) {
				switch e.kind {
				case addDest:
					add = append(add, e.dest.String())
				case delDest:
					del = append(del, e.dest.String())
				case setDest:
					set = append(set, fmt.Sprintf("%s -> %d", e.dest, e.weight))
				default:
					t.Errorf("%s: the service itself is touched: %v", c.Name, e)
				}
			}
			want := expect.Mod[f]
			for _, d := range []string{cmp.Diff(fill(want.Add), fill(add)), cmp.Diff(fill(want.Del), fill(del)), cmp.Diff(fill(want.WeightChange), fill(set))} {
				if d != "" {
					t.Errorf("%s: %s (-want +got): %s", c.Name, f, d)
				}
			}
		}
	}
	if n != 2 {
		t.Errorf("%d cases, want 2", n)
	}
}

func fill(list []string) []string { return append([]string{}, list...) }
