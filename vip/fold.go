package vip

import "strings"

// maxLabel is the most bytes of a DNS label: RFC 1035 section 2.3.4.
const maxLabel = 63

// FoldLabel makes one DNS label of text, as DC/OS does for task and framework
// names: letters become lower case, dash, underscore and dot become a dash, and
// everything else goes, a slash too. The result is a label of RFC 1123 section
// 2.1 (letters, digits, inner dashes, at most 63 bytes), or empty if text has no
// ASCII letter or digit. Text that is too long is cut without a mark, so two
// long names may become one.
func FoldLabel(text string) string {
	out := make([]byte, 0, min(len(text), maxLabel))
	full := false // seen 63 bytes: dashes at the end made room for letters only
	for i := 0; i < len(text) && len(out) < maxLabel; i++ {
		c := foldByte(text[i])
		if c == 0 || c == '-' && (full || len(out) == 0) {
			continue
		}
		out = append(out, c)
		if len(out) == maxLabel {
			full = true
			out = trimDashes(out)
		}
	}
	return string(trimDashes(out))
}

// FoldName folds each piece of text between dots as FoldLabel does and drops
// those that nothing is left of. It is the folding of VIP names, in which dots
// keep their meaning.
func FoldName(text string) string {
	var labels []string
	for piece := range strings.SplitSeq(text, ".") {
		if l := FoldLabel(piece); l != "" {
			labels = append(labels, l)
		}
	}
	return strings.Join(labels, ".")
}

// foldByte returns what c becomes in a label, or 0.
func foldByte(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '-', c == '_', c == '.':
		return '-'
	}
	return 0
}

func trimDashes(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == '-' {
		b = b[:len(b)-1]
	}
	return b
}
