package hostnet

import (
	"net/netip"
	"testing"
)

func FuzzSocketAddr(f *testing.F) {
	f.Add("0100007F:0035")
	f.Add("00000000000000000000000001000000:0035")
	f.Add("0100007F:")
	f.Add("01:0035")
	f.Fuzz(func(t *testing.T, text string) {
		if a, ok := parseSocketAddr(text); ok && !a.Addr().IsValid() {
			t.Errorf("%q is %v", text, a)
		}
	})
}

func TestSocketAddr(t *testing.T) {
	for text, want := range map[string]string{
		"0100007F:0035": "127.0.0.1:53", "00000000000000000000000001000000:14E9": "[::1]:5353", "00000000:0000": "0.0.0.0:0",
	} {
		if got, ok := parseSocketAddr(text); !ok || got != netip.MustParseAddrPort(want) {
			t.Errorf("%s is %v, %v", text, got, ok)
		}
	}
}
