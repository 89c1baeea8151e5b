package main

import (
	"os/exec"
	"strings"
	"testing"

	"waggle/internal/testnet"
)

// TestThePlainWayToAskWaggleAndBack runs the printed script, and the way back,
// over an /etc of its own.
func TestThePlainWayToAskWaggleAndBack(t *testing.T) {
	testnet.New(t) // it needs the same privileges
	script := `set -e
mount -t tmpfs tmpfs /etc
printf 'search corp\nnameserver 10.0.0.2\nnameserver 127.0.0.1\n' >/etc/resolv.conf
"$0" resolv-conf --dns.listen 127.0.0.1:53 | sh -e
cat /etc/resolv.conf
"$0" resolv-conf --undo | sh -e
echo --
cat /etc/resolv.conf
ls /etc`
	out, err := exec.Command("unshare", "--mount", "sh", "-c", script, binary(t)).CombinedOutput()
	want := "nameserver 127.0.0.1\nsearch corp\nnameserver 10.0.0.2\n--\nsearch corp\nnameserver 10.0.0.2\nnameserver 127.0.0.1\nresolv.conf\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
}

func TestWhoManagesResolvConf(t *testing.T) {
	for _, tt := range []struct {
		link       string
		openresolv bool
		do, undo   string
	}{
		{"../run/systemd/resolve/stub-resolv.conf", true, "resolved.conf.d/waggle.conf", "rm -f /etc/systemd/resolved.conf.d/waggle.conf"},
		{"../run/resolvconf/resolv.conf", true, "resolv.conf.d/head\nresolvconf -u", "/d' /etc/resolvconf/resolv.conf.d/head"},
		{"", true, "resolv_conf_local_only=NO", "/d' /etc/resolvconf.conf"},
		{"/run/NetworkManager/resolv.conf", true, "", ""},
		{"", false, "before-waggle", "mv /etc/resolv.conf.before-waggle"},
	} {
		m := whoManages(tt.link, tt.openresolv)
		if !strings.Contains(m.do, tt.do) || !strings.Contains(m.undo, tt.undo) || (tt.do == "") != (m.do == "") {
			t.Errorf("%s: %+v", tt.link, m)
		}
	}
	if code, _, errs := verb(t, "resolv-conf", "--dns.listen", "127.0.0.1:8053"); code != exitUsage || !strings.Contains(errs, "port 53 only") {
		t.Errorf("on another port: exit %d, %s", code, errs)
	}
}
