package vip

import (
	"regexp"
	"strings"
	"testing"
)

func TestNamesFoldAsInDCOS(t *testing.T) {
	for _, c := range dcosCases(t, "name-mangling") {
		t.Run(c.Name, func(t *testing.T) {
			var in struct{ Function, Text string }
			var want struct{ Label, Fragment *string }
			c.decode(t, &in, &want)
			got, expect := FoldLabel(in.Text), want.Label
			if expect == nil {
				got, expect = FoldName(in.Text), want.Fragment
			}
			if c.Quirk { // DC/OS leaves an empty label, which no query can ask for
				*expect = strings.ReplaceAll(*expect, "..", ".")
			}
			if got != *expect {
				t.Errorf("%q folds to %q, want %q", in.Text, got, *expect)
			}
		})
	}
}

func FuzzFold(f *testing.F) {
	for _, s := range []string{
		"", "web", "/a/b", "-a-", "été", "A_b.c", ".", "a._.b", "..a", "\xff\x00",
		strings.Repeat("a-", 60), strings.Repeat("a", 62) + "--b", strings.Repeat("a.", 200),
	} {
		f.Add(s)
	}
	ldh := regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	f.Fuzz(func(t *testing.T, s string) {
		l := FoldLabel(s)
		if l != "" && !ldh.MatchString(l) {
			t.Errorf("%q folds to %q, which is no label", s, l)
		}
		if again := FoldLabel(l); again != l {
			t.Errorf("%q folds to %q, which folds to %q", s, l, again)
		}
		n := FoldName(s)
		for piece := range strings.SplitSeq(n, ".") {
			if n != "" && !ldh.MatchString(piece) {
				t.Errorf("%q folds to %q, which is no name", s, n)
			}
		}
		if again := FoldName(n); again != n {
			t.Errorf("%q folds to %q, which folds to %q", s, n, again)
		}
	})
}
