package dns

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
)

type folded struct {
	Label1123 string `json:"rfc1123"`
	Label952  string `json:"rfc952"`
	Frag1123  string `json:"frag1123"`
	Frag952   string `json:"frag952"`
}

func foldAll(s string) folded {
	return folded{
		Label1123: newLabeler(false).label(s), Label952: newLabeler(true).label(s),
		Frag1123: newLabeler(false).fragment(s), Frag952: newLabeler(true).fragment(s),
	}
}

func TestLabelsAreThoseOfMesosDNS(t *testing.T) {
	var rows []struct {
		In string `json:"in"`
		folded
	}
	outside.JSON(t, &rows, "conformance", "mesos-dns", "labels.json")
	if len(rows) < 400 {
		t.Fatalf("only %d rows", len(rows))
	}
	for _, row := range rows {
		if diff := cmp.Diff(row.folded, foldAll(row.In)); diff != "" {
			t.Errorf("%q:\n%s", row.In, diff)
		}
	}
}

func TestHashesAreThoseOfMesosDNS(t *testing.T) {
	var rows map[string]string
	outside.JSON(t, &rows, "conformance", "mesos-dns", "task_id_hash.json")
	if len(rows) == 0 {
		t.Fatal("no rows")
	}
	for id, want := range rows {
		if got := shortHash(id); got != want {
			t.Errorf("hash of %q is %s, want %s", id, got, want)
		}
	}
}

func TestFolding(t *testing.T) {
	dashes := strings.Repeat("-", 58)
	for _, c := range []struct {
		name, in string
		want     folded
	}{
		{"nothing stays nothing", "", folded{}},
		{"only dashes become nothing", "---", folded{}},
		{"dots of a name become dashes", "server.temp.test", folded{"server-temp-test", "server-temp-test", "server.temp.test", "server.temp.test"}},
		{"empty parts of a fragment are dropped", ".a..b.", folded{"a--b", "a--b", "a.b", "a.b"}},
		{"slashes and what is not ASCII are dropped", "/a/b/föö", folded{"abf", "abf", "abf", "abf"}},
		{"digits may not lead in RFC 952", "9lives", folded{"9lives", "lives", "9lives", "lives"}},
		{"what was cut fills the room of dashes at the cut", "hello" + dashes + "f", folded{"hellof", "hellof", "hellof", "hellof"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, foldAll(c.in)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCanonicalNamesCanAlwaysBeAskedFor(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range []struct{ name, task, agent, want string }{
		{"a plain name", "web", "20140827-000744-3041283216-5050-2116-0", "web-5eh48-0"},
		{"an agent id with capitals", "web", "AAAA-S12", "web-5eh48-s12"},
		{"an agent id without a dash", "web", "nodash", "web-5eh48-nodash"},
		{"a name that leaves no room", long, "A-S1", long[:54] + "-5eh48-s1"},
		{"a dotted name whose last label leaves no room", "x." + long, "A-S1", "x." + long[:54] + "-5eh48-s1"},
		{"an agent id that is no label", "web", "a b", "web-5eh48-" + shortHash("a b")},
		{"an agent id with a dot", "web", "a.b", "web-5eh48-" + shortHash("a.b")},
		{"an agent id that is too long", "web", long, "web-5eh48-" + shortHash(long)},
		{"no agent id", "web", "", "web-5eh48-" + shortHash("")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := canonical(c.task, "", c.agent)
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if !askable(got + ".") {
				t.Errorf("%s cannot be asked for", got)
			}
		})
	}
}

func TestAskable(t *testing.T) {
	l63 := strings.Repeat("a", 63)
	for _, c := range []struct {
		name, in string
		want     bool
	}{
		{"a name", "a.b.", true},
		{"service labels", "_http._tcp.a.", true},
		{"a slash", "/a/b.", true},
		{"nothing", "", false},
		{"the root", ".", false},
		{"no final dot", "a.b", false},
		{"an empty label first", ".a.", false},
		{"an empty label within", "a..b.", false},
		{"a capital", "A.", false},
		{"a space", "a b.", false},
		{"an escape", `a\.b.`, false},
		{"a byte that is not ASCII", "f\xf6.", false},
		{"the longest label", l63 + ".", true},
		{"a label too long", l63 + "a.", false},
		{"the longest name", strings.Repeat(l63+".", 3) + l63[:61] + ".", true},
		{"a name too long", strings.Repeat(l63+".", 3) + l63[:62] + ".", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := askable(c.in); got != c.want {
				t.Errorf("askable(%q) = %v", c.in, got)
			}
		})
	}
}

func FuzzFold(f *testing.F) {
	for _, s := range []string{"", "-", "web", "a.b..c", "MiXed_Case", "9lives", "föö", "\xff", strings.Repeat("a-", 40), strings.Repeat("-", 70) + "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, enforce := range []bool{false, true} {
			l := newLabeler(enforce)
			label := l.label(s)
			if label != "" && (!askable(label+".") || strings.Contains(label, ".")) {
				t.Errorf("label of %q is %q", s, label)
			}
			if len(label) > l.max || strings.TrimLeft(label, l.left) != label {
				t.Errorf("label of %q is %q, with a limit of %d", s, label, l.max)
			}
			if frag := l.fragment(s); strings.HasPrefix(frag, ".") || strings.HasSuffix(frag, ".") || strings.Contains(frag, "..") {
				t.Errorf("fragment of %q is %q", s, frag)
			}
			if c := canonical(label, s, s); len(c) > maxLabel || !askable(c+".") {
				t.Errorf("canonical name of %q is %q", s, c)
			}
		}
	})
}
