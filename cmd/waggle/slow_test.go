package main

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"waggle/internal/testnet"
)

// losing has the first packet of each connection to port lost, so that it takes
// the second that TCP waits before it sends another.
func (n *node) losing(t *testing.T, port uint16) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		testnet.Skip(t, err.Error())
	}
	cmd := exec.Command("nft", "-f", "-")
	var said strings.Builder
	cmd.Stderr = &said
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`add table inet losing
add set inet losing seen { type inet_service; flags dynamic; }
add chain inet losing in { type filter hook input priority 0; }
add rule inet losing in tcp dport %d tcp flags syn / syn,ack tcp sport != @seen add @seen { tcp sport } drop
`, port))
	n.Must(t, cmd.Start)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft: %v: %s", err, said.String())
	}
}

// A backend that connections reach only at their second try is left out, and
// whoever asks is told that it is slow.
func TestABackendThatIsSlowIsEjected(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.state, "services.yaml")
	var list []backendOf
	for _, app := range []string{"slow", "a", "b"} {
		list = append(list, backendOf{app, "/web:80", n.Echo(t, netip.AddrPortFrom(n.addr, 0)), ""})
	}
	slow := list[0].at
	n.losing(t, slow.Port())
	rewrite(t, path, list...)
	n.start(t, n.verb("run", "--file.paths", path,
		"--lb.eject.every", "200ms", "--lb.eject.slow", "4", "--lb.eject.samples", "3", "--lb.eject.hold", "10m")...)
	at := n.up(t, "web.static", 3)
	eventually(t, "one is ejected", func() bool {
		var all sync.WaitGroup
		for range 12 {
			all.Go(func() {
				if c, err := n.dial(t.Context(), "tcp", at.String()); err == nil {
					c.Close()
				}
			})
		}
		all.Wait()
		return len(n.status(t).Balancer.Ejected) > 0
	})
	got := n.status(t).Balancer.Ejected
	if len(got) != 1 || got[0].Backend != slow.String() || got[0].Failed != 0 || got[0].Usual == 0 || got[0].Latency <= 4*got[0].Usual {
		t.Errorf("status shows as ejected: %+v", got)
	}
	if got := n.tally(t, at, 60); got[slow] != 0 {
		t.Errorf("the slow one still gets connections: %v", got)
	}
	if text, want := n.metrics(t), `waggle_backends_ejected{reason="latency"} 1`; !strings.Contains(text, want) {
		t.Errorf("the metrics lack %s:\n%s", want, text)
	}
	for _, verb := range []string{"vips", "status", "explain"} {
		args := []string{verb, "--socket", n.socket()}
		if verb == "explain" {
			args = append(args, at.String())
		}
		out, err := exec.Command(binary(t), args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "connects take ") {
			t.Errorf("waggle %s does not say why: %v\n%s", verb, err, out)
		}
	}
}
