package lb

import (
	"net/netip"
	"time"
)

// BackendStats is what a Dataplane has counted of one backend of one service
// since the backend joined it.
type BackendStats struct {
	Addr        netip.AddrPort
	Connections uint64        // sent to it; for UDP, sockets
	Active      uint32        // sockets open now, where the service is LeastActive
	Failures    uint32        // connects that failed, where they are watched
	Latency     time.Duration // of connects, averaged over about the last eight, where they are watched
}
