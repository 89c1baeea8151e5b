package agent

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"waggle/model"
)

func TestServicesAreCountedByStateOfTheirBackends(t *testing.T) {
	v := newSeen(t)
	snap := world(map[string]int{"web": 2})
	for _, app := range snap.Apps.All() {
		app.Tasks[0].Health = model.Unhealthy
	}
	v.take(snap)
	var addr string
	for f := range v.agent.State().Applied.Services.All() {
		addr = f.Addr.String()
	}
	want := strings.ReplaceAll(`
# HELP waggle_backends Backends of all VIPs by state.
# TYPE waggle_backends gauge
waggle_backends{state="draining"} 0
waggle_backends{state="unhealthy"} 1
waggle_backends{state="up"} 1
# HELP waggle_service_backends Backends of a VIP by state: up, draining, unhealthy.
# TYPE waggle_service_backends gauge
waggle_service_backends{protocol="tcp",state="draining",vip="ADDR"} 0
waggle_service_backends{protocol="tcp",state="unhealthy",vip="ADDR"} 1
waggle_service_backends{protocol="tcp",state="up",vip="ADDR"} 1
# HELP waggle_service_info The name of a VIP, 1: joins with counters by vip and protocol.
# TYPE waggle_service_info gauge
waggle_service_info{protocol="tcp",service="web.marathon",vip="ADDR"} 1
# HELP waggle_services_without_backends VIPs of which no backend is up.
# TYPE waggle_services_without_backends gauge
waggle_services_without_backends 0
`, "ADDR", addr)
	if err := testutil.CollectAndCompare(newServices(v.agent.State), strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
