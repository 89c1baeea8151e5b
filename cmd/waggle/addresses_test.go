package main

import (
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"waggle/internal/hostnet"
)

// loopbackAddrs returns what is on lo in the node's namespace, but for its own.
func (n *node) loopbackAddrs(t *testing.T) string {
	t.Helper()
	var out []string
	n.Must(t, func() error {
		list, err := hostnet.LinkAddrs("lo")
		for _, a := range list {
			if !a.IsLoopback() {
				out = append(out, a.String())
			}
		}
		return err
	})
	slices.Sort(out)
	return strings.Join(out, " ")
}

// answers waits until a DNS server of the node says anything.
func (n *node) answers(t *testing.T, at string) {
	t.Helper()
	eventually(t, "a reply from "+at, func() bool {
		ok := false
		n.Must(t, func() error {
			_, _, err := (&mdns.Client{Timeout: time.Second}).Exchange(new(mdns.Msg).SetQuestion("leader.mesos.", mdns.TypeA), at)
			ok = err == nil
			return nil
		})
		return ok
	})
}

func TestAddressesAreThereWhileTheDaemonRunsAndNotAfterwards(t *testing.T) {
	n := newNode(t)
	args := func(addrs string) []string {
		return n.verb("run", "--lb.backend", "none", "--mesos.masters", "127.0.0.1:1", "--dns.addresses", addrs)
	}
	p := n.start(t, args("198.51.100.1,198.51.100.2,2001:db8::53")...)
	for _, at := range []string{"198.51.100.1:53", "198.51.100.2:53", "[2001:db8::53]:53", n.addr.String() + ":53"} {
		n.answers(t, at)
	}
	n.DelAddr(t, "lo", netip.MustParsePrefix("198.51.100.2/32"))
	n.answers(t, "198.51.100.2:53") // it is added again
	p.stop(t, syscall.SIGKILL)
	if got := n.loopbackAddrs(t); got != "198.51.100.1 198.51.100.2 2001:db8::53" {
		t.Errorf("after a kill: %s", got)
	}

	p = n.start(t, args("198.51.100.1")...)
	n.answers(t, "198.51.100.1:53")
	if got := n.loopbackAddrs(t); got != "198.51.100.1" {
		t.Errorf("with one address: %s", got)
	}
	p.stop(t, syscall.SIGTERM)
	if got := n.loopbackAddrs(t); got != "" {
		t.Errorf("after the end: %s", got)
	}
}

func TestListenKeys(t *testing.T) {
	for text, want := range map[string]string{"127.0.0.1:53": "127.0.0.1:53", "[::1]:5353": "[::1]:5353", "lo:54": "127.0.0.1:54"} {
		got, err := parseListen(text)
		if err != nil || len(got) == 0 || got[0].String() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "53", "127.0.0.1", "127.0.0.1:x", ":53", "nothere0:53", "lo:70000"} {
		if got, err := parseListen(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
