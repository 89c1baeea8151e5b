package vip

import (
	"encoding/json"
	"testing"

	"waggle/internal/outside"
)

// dcosCase is one case of what DC/OS' own daemon does.
type dcosCase struct {
	Name, Group   string
	Quirk         bool // what it does and we do better
	Input, Expect json.RawMessage
}

// dcosCases returns the cases of some groups, and skips where there is no
// outside data beside the project.
func dcosCases(tb testing.TB, groups ...string) []dcosCase {
	tb.Helper()
	var all, out []dcosCase
	outside.JSON(tb, &all, "conformance", "dcos-net.json")
	for _, g := range groups {
		before := len(out)
		for _, c := range all {
			if c.Group == g {
				out = append(out, c)
			}
		}
		if len(out) == before {
			tb.Fatalf("there is no case of group %s", g)
		}
	}
	return out
}

func (c dcosCase) decode(tb testing.TB, input, expect any) {
	tb.Helper()
	if err := json.Unmarshal(c.Input, input); err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(c.Expect, expect); err != nil {
		tb.Fatal(err)
	}
}
