package main

import (
	"strings"
	"testing"

	"waggle/dns/guard"
	"waggle/internal/dnspeer"
)

func TestWhatIsWrongWithTheDNSServerIsSaidByKey(t *testing.T) {
	short := writeFile(t, "secrets", "00112233")
	code, _, errs := verb(t, "check-config", "--dns.allow", "10.0.0.0/33", "--dns.transfer", "nowhere", "--dns.limit.exempt", "x",
		"--dns.tcp.connections", "0", "--dns.tcp.idle", "0s", "--dns.cookie_secrets", short, "--dns.listen", "here")
	if code != exitFailed {
		t.Errorf("exit %d", code)
	}
	for _, key := range []string{"dns.allow", "dns.transfer", "dns.limit.exempt", "dns.tcp.connections", "dns.tcp.idle", "dns.cookie_secrets", "dns.listen"} {
		if !strings.Contains(errs, key+": ") {
			t.Errorf("nothing about %s in %s", key, errs)
		}
	}
	if strings.Contains(errs, "00112233") {
		t.Error("a secret is shown")
	}
}

func TestWhatIsWrongWithForwardingIsSaidByKey(t *testing.T) {
	good, _ := dnspeer.Certificate(t, "dns.example")
	for _, c := range []struct{ key, value, want string }{
		{"ca_file", "/nowhere/ca.pem", "no such file"},
		{"ca_file", writeFile(t, "ca.pem", "hello"), "no certificate"},
		{"ca_file", good, ""},
		{"upstreams", "tls://192.0.2.1", "needs #name"},
		{"upstreams", "127.0.0.1:53", "is this server itself"},
		{"zones", "corp.example", "is not zone=upstream"},
	} {
		code, _, errs := verb(t, "check-config", "--mesos.masters", "127.0.0.1:5050", "--dns.forward."+c.key, c.value)
		if c.want == "" && (code != 0 || errs != "") || c.want != "" && (code != exitFailed || !strings.Contains(errs, "dns.forward."+c.key+": ") || !strings.Contains(errs, c.want)) {
			t.Errorf("%s %s: exit %d: %s", c.key, c.value, code, errs)
		}
	}
}

func TestTheDNSServerIsConfigured(t *testing.T) {
	secrets := writeFile(t, "secrets", "00112233445566778899aabbccddeeff\n0123456789abcdef0123456789abcdef\n")
	d := defaultFileConfig().DNS
	d.Allow, d.CookieSecrets = []string{"192.0.2.0/24"}, secrets
	d.Limit.Rate, d.TCP.PerClient, d.Log.Sample = 7, 3, 100
	s := d.server(func(key, format string, args ...any) { t.Errorf(key+": "+format, args...) })
	if len(s.Allow) != 1 || s.Limit.Rate != 7 || s.ConnectionsEach != 3 || s.Log.Sample != 100 ||
		len(s.CookieSecrets) != 2 || s.CookieSecrets[0] != (guard.Secret{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}) {
		t.Errorf("got %+v", s)
	}
}
