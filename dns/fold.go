package dns

import (
	"crypto/sha1"
	"strings"
)

// The most octets that RFC 1035 section 2.3.4 allows: in a label, and in a name
// as written here, in lower case with the final dot.
const (
	maxLabel = 63
	maxName  = 254
)

// labeler turns any text into one label of a host name, or into nothing. It
// must give what mesos-dns gives, whose names users have written down.
type labeler struct {
	max  int
	left string // what a label may not start with
}

func newLabeler(enforceRFC952 bool) labeler {
	if enforceRFC952 {
		return labeler{max: 24, left: "-0123456789"}
	}
	return labeler{max: maxLabel, left: "-"}
}

// label folds s. Text that is too long is cut, without a mark: two long names
// may become one.
func (l labeler) label(s string) string {
	s = l.folded(s)
	size := min(len(s), l.max)
	head := strings.TrimRight(s[:size], "-")
	if len(head) == size {
		return head
	}
	// The room that trailing dashes leave is filled with what was cut off.
	tail := strings.TrimLeft(s[size:], "-")
	return head + tail[:min(len(tail), size-len(head))]
}

func (l labeler) folded(s string) string {
	return strings.TrimLeft(strings.Map(foldRune, s), l.left)
}

// whole folds s and does not cut it.
func (l labeler) whole(s string) string { return strings.TrimRight(l.folded(s), "-") }

// fullLabel folds s to a label. Where that is too long, a hash stands for the end.
func fullLabel(s string) string {
	return shorten(newLabeler(false).whole(s), maxLabel)
}

// shorten returns name if it has at most max octets, else what there is room for
// beside a hash of all of it. Its labels stay within what a label may have.
func shorten(name string, max int) string {
	if len(name) <= max {
		return name
	}
	suffix := "-" + shortHash(name)
	head := strings.TrimRight(name[:max-len(suffix)], "-.")
	last := head[strings.LastIndexByte(head, '.')+1:]
	if over := len(last) + len(suffix) - maxLabel; over > 0 {
		head = strings.TrimRight(head[:len(head)-over], "-")
	}
	return head + suffix
}

// fragment folds each part of s between dots and leaves empty ones out.
func (l labeler) fragment(s string) string {
	var parts []string
	for part := range strings.SplitSeq(s, ".") {
		if p := l.label(part); p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ".")
}

func foldRune(r rune) rune {
	switch {
	case 'A' <= r && r <= 'Z':
		return r + 'a' - 'A'
	case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
		return r
	case r == '-', r == '.', r == '_':
		return '-'
	}
	return -1
}

// shortHash tells tasks of one name apart: five characters of z-base-32 over
// the SHA-1 of a task id.
func shortHash(id string) string {
	const alphabet = "ybndrfg8ejkmcpqxot1uwisza345h769"
	sum := sha1.Sum([]byte(id))
	bits := uint64(sum[0])<<32 | uint64(sum[1])<<24 | uint64(sum[2])<<16 | uint64(sum[3])<<8 | uint64(sum[4])
	var out [5]byte
	for i := range out {
		out[i] = alphabet[bits>>(35-5*i)&31]
	}
	return string(out[:])
}

// canonical returns the name of one task among those that share name. Its last
// label is cut where it would be too long to ask for; the hash keeps it unique.
func canonical(name, taskID, agentID string) string {
	return withSuffix(name, taskSuffix(taskID, agentID))
}

// taskSuffix is what tells a task from others of its name.
func taskSuffix(taskID, agentID string) string {
	return "-" + shortHash(taskID) + "-" + agentTail(agentID)
}

func withSuffix(name, suffix string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	over := max(0, len(last)+len(suffix)-maxLabel)
	return name[:len(name)-over] + suffix
}

// agentTail returns what follows the last dash of an agent id, which Mesos
// makes unique within a cluster, or a hash where that does not fit a label.
func agentTail(id string) string {
	tail := strings.ToLower(id[strings.LastIndexByte(id, '-')+1:])
	if len(tail) > 20 || !askable(tail+".") || strings.Contains(tail, ".") {
		return shortHash(id)
	}
	return tail
}

// askable reports whether name, with its final dot, can be in a query and is
// then spelled as it is here: labels of 1 to 63 octets, 255 in all, in lower
// case, without the characters that are escaped in a name's text form.
func askable(name string) bool {
	if len(name) < 2 || len(name) > maxName {
		return false
	}
	start := 0
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if i == start || i-start > maxLabel {
				return false
			}
			start = i + 1
		case c <= ' ', c > '~', 'A' <= c && c <= 'Z':
			return false
		case c == '\'', c == '@', c == ';', c == '(', c == ')', c == '"', c == '\\':
			return false
		}
	}
	return start == len(name)
}

// fqdn returns name in lower case with one final dot.
func fqdn(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, ".")) + "."
}
