package main

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"waggle/api"
)

// TestAWatchGoesOnWithTheNextDaemon has the daemon killed under it.
func TestAWatchGoesOnWithTheNextDaemon(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(n.state, "services.yaml")
	one, two := backendOf{"a", "/web:80", netip.MustParseAddrPort("10.0.0.1:80"), ""}, backendOf{"b", "/web:80", netip.MustParseAddrPort("10.0.0.2:80"), ""}
	rewrite(t, file, one)
	run := append(n.verb("run", "--file.paths", file), "--lb.backend", "none")
	daemon := n.start(t, run...)
	n.serves(t, n.client)
	watch := n.start(t, "vips", "--watch", "-o", "json", "--socket", n.socket())
	shows := func(backends int) {
		t.Helper()
		eventually(t, "the watch shows the VIPs as they are", func() bool {
			said := strings.Split(strings.TrimSpace(watch.out.String()), "\n")
			var list []api.VIP
			return json.Unmarshal([]byte(said[len(said)-1]), &list) == nil && len(list) > 0 && len(list[0].Backends) == backends
		})
	}
	shows(1)
	rewrite(t, file, one, two)
	shows(2)
	daemon.stop(t, syscall.SIGKILL)
	eventually(t, "it says that it waits", func() bool { return strings.Count(watch.out.String(), "; waiting for it\n") > 0 })
	rewrite(t, file, two)
	n.start(t, run...)
	eventually(t, "it says that the daemon is back", func() bool { return strings.Contains(watch.out.String(), "waggle: the daemon is back\n") })
	shows(1)
	rewrite(t, file, backendOf{"c", "/other:80", netip.MustParseAddrPort("10.0.0.3:80"), ""}, one, two)
	eventually(t, "it shows another VIP", func() bool { return strings.Contains(watch.out.String(), "other.static.l4lb") })
	rewrite(t, file, one, two)
	shows(2)
	if code, _, errs := verb(t, "vips", "--watch", "--socket", filepath.Join(n.state, "none")); code != exitFailed || !strings.Contains(errs, "does it run?") {
		t.Errorf("with nobody to watch: exit %d, %s", code, errs)
	}
}
