package main

import (
	"strings"
	"testing"

	"waggle/api"
)

func TestWhatIsWrongWithHTTPIsSaidByKey(t *testing.T) {
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--http.listen", "here"}, []string{"http.listen: "}},
		{[]string{"--http.listen", "0.0.0.0:8123"}, []string{"http.listen: 0.0.0.0:8123 is not loopback, so it needs http.tls.cert", "needs http.token_file or http.tls.client_ca"}},
		{[]string{"--http.dcos", "192.0.2.1:62080", "--http.token_file", "/nowhere"}, []string{"http.dcos: 192.0.2.1:62080 is not loopback", "http.token_file: "}},
		{[]string{"--http.listen", ":80", "--http.tls.cert", "/nowhere", "--http.tls.key", "/nowhere", "--http.tls.client_ca", "/nowhere"}, []string{"http.tls.cert: ", "http.tls.client_ca: "}},
	} {
		code, _, errs := verb(t, append([]string{"check-config"}, c.args...)...)
		if code != exitFailed {
			t.Errorf("%v: exit %d", c.args, code)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%v: nothing of %q in %s", c.args, want, errs)
			}
		}
	}
	if code, _, errs := verb(t, "check-config", "--http.listen", "[::1]:8123", "--http.dcos", "localhost:62080"); code != exitOK {
		t.Errorf("loopback: %s", errs)
	}
	// mesos-dns listens everywhere by default, open to all.
	config := writeFile(t, "config.json", `{"masters": ["127.0.0.1:5050"], "httpport": 8124}`)
	if code, out, errs := verb(t, "check-config", "--config", config); code != exitOK || !strings.Contains(out, "127.0.0.1:8124") {
		t.Errorf("mesos-dns' default: %s %s", errs, out)
	}
}

func TestTheHTTPServerIsConfigured(t *testing.T) {
	cfg := defaultFileConfig()
	cfg.HTTP = httpConfig{
		Socket: "/s", Listen: "0.0.0.0:1", DCOS: "127.0.0.1:2", Enumerate: true, TokenFile: "/t",
		TLS: httpTLSConfig{Cert: "/c", Key: "/k", ClientCA: "/a"},
	}
	got := cfg.http()
	if want := (api.Access{Cert: "/c", Key: "/k", ClientCA: "/a", TokenFile: "/t"}); got.Access != want {
		t.Errorf("access: %+v", got.Access)
	}
	if got.Socket != "/s" || got.Listen != "0.0.0.0:1" || got.DCOS != "127.0.0.1:2" || !got.MesosDNS.EnumerationOn ||
		got.VIPZone != "l4lb.thisdcos.directory" || got.MesosDNS.HTTPListener != "0.0.0.0" || got.MesosDNS.HttpPort != 1 {
		t.Errorf("got %+v", got)
	}
}
