package forward

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
)

// TestUpstreamsAreChosenAsDCOSChoosesThem compares whom a group asks first, once
// its upstreams have failed as often as the recorded case says and answered
// before, with whom DC/OS asks.
func TestUpstreamsAreChosenAsDCOSChoosesThem(t *testing.T) {
	var all []struct {
		Name, Group   string
		Input, Expect json.RawMessage
	}
	outside.JSON(t, &all, "conformance", "dcos-net.json")
	cases := 0
	for _, c := range all {
		if c.Group != "dns-forward" {
			continue
		}
		cases++
		var in struct {
			Upstreams []netip.AddrPort
			Failures  map[string]int
		}
		var expect struct {
			Asked json.RawMessage `json:"asked_in_parallel"`
		}
		if err := errors.Join(json.Unmarshal(c.Input, &in), json.Unmarshal(c.Expect, &expect)); err != nil {
			t.Fatal(err)
		}
		cfg, now := DefaultConfig(), time.Now()
		g := &group{}
		for _, a := range in.Upstreams {
			u := &upstream{Upstream: Upstream{Addr: a}, config: func() *Config { return &cfg }}
			if len(in.Failures) > 0 {
				u.ok(now, time.Millisecond)
			}
			for range in.Failures[a.Addr().String()] {
				u.fail(now, errTimeout)
			}
			g.upstreams = append(g.upstreams, u)
		}
		list, n := g.order(now)
		var got, want []string
		for _, u := range list[:n] {
			got = append(got, u.Addr.Addr().String())
		}
		if err := json.Unmarshal(expect.Asked, &want); err != nil { // "both"
			for _, a := range in.Upstreams {
				want = append(want, a.Addr().String())
			}
		}
		slices.SortFunc(got, strings.Compare)
		slices.SortFunc(want, strings.Compare)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", c.Name, d)
		}
	}
	if cases != 2 {
		t.Errorf("%d cases", cases)
	}
}
