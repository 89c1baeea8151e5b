package zk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestURLsAreReadAsMesosReadsThem(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       Location
	}{
		{"one server", "zk://10.0.0.1:2181/mesos", Location{Servers: []string{"10.0.0.1:2181"}, Path: "/mesos"}},
		{"several, with blanks around", " zk://a:2181,b:2182, c:1/mesos\n", Location{Servers: []string{"a:2181", "b:2182", "c:1"}, Path: "/mesos"}},
		{"a port that is left out", "zk://a,b:99,[::1]/mesos", Location{Servers: []string{"a:2181", "b:99", "[::1]:2181"}, Path: "/mesos"}},
		{"a deep path", "zk://a:1/x/y.z/mesos", Location{Servers: []string{"a:1"}, Path: "/x/y.z/mesos"}},
		{"a slash at the end", "zk://a:1/mesos/", Location{Servers: []string{"a:1"}, Path: "/mesos"}},
		{"credentials", "zk://u:p@a:1,b:2/mesos", Location{Servers: []string{"a:1", "b:2"}, Path: "/mesos", Auth: "u:p"}},
		{"a password with @ and :", "zk://u:p@ss:w@a:1/mesos", Location{Servers: []string{"a:1"}, Path: "/mesos", Auth: "u:p@ss:w"}},
		{"an IPv6 address", "zk://[2001:db8::1]:2181/mesos", Location{Servers: []string{"[2001:db8::1]:2181"}, Path: "/mesos"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if text := got.String(); got.Auth != "" && strings.Contains(text, got.Auth) {
				t.Errorf("%s shows the password", text)
			}
		})
	}
}

func TestURLsThatAreNoneSayWhy(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "begin with zk://",
		"http://a:2181/mesos":             "begin with zk://",
		"zk://a:2181":                     "no path",
		"zk://a:2181/":                    "only the root",
		"zk://a:2181//":                   "only the root",
		"zk:///mesos":                     `server ""`,
		"zk://a:1,,b:1/mesos":             `server ""`,
		"zk://a:x/mesos":                  `port "x"`,
		"zk://a:0/mesos":                  `port "0"`,
		"zk://a:70000/mesos":              `port "70000"`,
		"zk://2001:db8::1/mesos":          "brackets",
		"zk://secret@a:1/mesos":           "user:password",
		"zk://:secret@a:1/mesos":          "user:password",
		"zk://a:1/x//y":                   `segment ""`,
		"zk://a:1/../mesos":               `segment ".."`,
		"zk://a:1/me\x01sos":              "character",
		"zk://a b:1/mesos":                "host:port",
		"file:///nowhere/at/all/zk":       "no such file",
		"zk://secret:secret@a:1,b:x/path": `server "b:x"`,
	} {
		_, err := Read(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the password: %v", text, err)
		}
	}
}

func TestAURLMayBeInAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "zk")
	if err := os.WriteFile(name, []byte("zk://a:1/mesos\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Read("file://" + name)
	if err != nil || got.String() != "zk://a:1/mesos" {
		t.Errorf("got %v, %v", got, err)
	}
}

// FuzzParse: what is accepted can be written and read again, and has what the
// client needs.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"zk://a:1/mesos", "zk://u:p@a,b:2/x/y/", "zk://[::1]:1/m", "zk://", "zk://@/", "zk://a:1/m\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse(text)
		if err != nil {
			return
		}
		if len(l.Servers) == 0 || len(l.Path) < 2 || l.Path[0] != '/' || strings.HasSuffix(l.Path, "/") {
			t.Fatalf("%q: %+v", text, l)
		}
		auth := ""
		if l.Auth != "" {
			auth = l.Auth + "@"
		}
		again, err := Parse("zk://" + auth + strings.Join(l.Servers, ",") + l.Path)
		if err != nil {
			t.Fatalf("%q: %+v: %v", text, l, err)
		}
		if d := cmp.Diff(l, again); d != "" {
			t.Fatalf("%q: %s", text, d)
		}
	})
}
