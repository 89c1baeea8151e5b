package agent

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"waggle/lb/lbtest"
	"waggle/vip"
)

// After a reconfiguration everything is as if the agent had been started so.
func TestAReconfiguredPipelineEqualsOneStartedSo(t *testing.T) {
	snap := world(map[string]int{"web": 2, "db": 1})
	changed := DefaultConfig()
	changed.DNS.TTL, changed.DNS.SRVWeight = 7*time.Second, 9
	changed.DNS.Records = []string{"extra.mesos. A 10.9.9.9"}
	if err := changed.VIP.Options.Set("drain", "90s"); err != nil {
		t.Fatal(err)
	}
	turn := func(a *Agent) *State {
		s := a.turn(context.Background(), &publication{snap, time.Now()})
		a.state.Store(s)
		return s
	}
	old := New(DefaultConfig(), nil, lbtest.New(), zap.NewNop(), nil)
	turn(old)
	old.Reconfigure(changed)
	select {
	case <-old.dirty:
	default:
		t.Error("nothing turns the pipeline")
	}
	got, want := turn(old), turn(New(changed, nil, lbtest.New(), zap.NewNop(), nil))
	if d := cmp.Diff(want.Zone.Records(), got.Zone.Records()); d != "" {
		t.Errorf("records (-started so +reconfigured):\n%s", d)
	}
	options := func(s *State) map[string]vip.Options {
		out := map[string]vip.Options{}
		for f, row := range s.Applied.Services.All() {
			out[f.Addr.String()] = row.Options
		}
		return out
	}
	if d := cmp.Diff(options(want), options(got), cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
		t.Errorf("options (-started so +reconfigured):\n%s", d)
	}
	if d := cmp.Diff(live(want.Plan), live(got.Plan)); d != "" {
		t.Errorf("Plan (-started so +reconfigured):\n%s", d)
	}
	again := turn(old)
	for f, row := range again.Table.Services.All() {
		if was, _ := got.Table.Services.Get(f); was != row {
			t.Errorf("the turn after that began anew: %s", f.Addr)
		}
	}
}
