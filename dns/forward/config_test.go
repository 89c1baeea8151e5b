package forward

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUpstreamsAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1":                        "192.0.2.1:53",
		"192.0.2.1:5353":                   "192.0.2.1:5353",
		"2001:db8::1":                      "[2001:db8::1]:53",
		"[2001:db8::1]":                    "[2001:db8::1]:53",
		"[2001:db8::1]:5353":               "[2001:db8::1]:5353",
		"::ffff:192.0.2.1":                 "192.0.2.1:53",
		"tls://192.0.2.1#dns.example":      "tls://192.0.2.1:853#dns.example",
		"tls://[2001:db8::1]:85#d.example": "tls://[2001:db8::1]:85#d.example",
	} {
		u, err := ParseUpstream(text)
		if err != nil || u.String() != want {
			t.Errorf("%s: %s, %v", text, u, err)
		}
		if again, err := ParseUpstream(want); err != nil || again != u {
			t.Errorf("%s is not read back: %v, %v", want, again, err)
		}
	}
	for text, want := range map[string]string{
		"": "not an address", "dns.example": "not an address", "192.0.2.1:0": "not an address", "192.0.2.1:x": "not an address",
		"0.0.0.0": "one server", "[::]:53": "one server", "224.0.0.1": "one server", "tls://192.0.2.1": "#name",
	} {
		if _, err := ParseUpstream(text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCheckSaysEverythingThatIsWrong(t *testing.T) {
	if err := DefaultConfig().Check(); err != nil {
		t.Error(err)
	}
	cfg := DefaultConfig()
	cfg.Zones = map[string][]Upstream{"a..b": nil}
	cfg.Local = []string{strings.Repeat("x", 64)}
	cfg.Timeout, cfg.MaxHedge, cfg.Sockets, cfg.InFlight, cfg.MaxUDP = 0, 0, 100, 0, 100
	err := cfg.Check()
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	got := strings.Split(err.Error(), "\n")
	want := []string{
		`zone "a..b": "a..b" has a label of 0 characters`,
		`zone "a..b": no upstream to ask`,
		`local name "` + strings.Repeat("x", 64) + `": "` + strings.Repeat("x", 64) + `" has a label of 64 characters`,
		"timeout 0s is not above zero",
		"longest hedge 0s is shorter than the shortest, 10ms",
		"100 sockets to an upstream are not within 1 to 64",
		"0 questions in flight are not at least 1",
		"longest answer over UDP of 100 octets is not within 512 to 4096",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
