package lb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"time"

	"waggle/model"
	"waggle/vip"
)

// Backend is one destination of a Service.
type Backend struct {
	Addr   netip.AddrPort // the family of the service's frontend
	Weight uint16         // share of new connections, at least 1
	// Inner is where Addr, a port of this machine, leads; zero for elsewhere.
	// See Config.Inner.
	Inner netip.AddrPort
}

// Service says where new connections to one frontend go. It is immutable; a
// Service without backends refuses connections at once.
type Service struct {
	Frontend vip.Frontend
	Backends []Backend // those that take new connections, sorted by Addr
	// Peername makes getpeername(2) on a connected client socket show the
	// frontend instead of the backend, for about 2 µs a connection.
	Peername bool
	// Choice is how a backend is chosen for a new connection.
	Choice Choice
	// Affinity sends a client to the backend it had before.
	Affinity Affinity
	// Allow are the clients that may connect; others fail with EPERM. Empty
	// means everyone.
	Allow []Client
	// Remember has sockets remember which service they went to, where their far
	// end does not tell and a drain is to end them; about 2 µs a connection.
	Remember bool
	// Retired is when the service left the Table; zero while it is in it. A
	// retired service stays, without backends, until names that still sit in
	// caches have expired.
	Retired time.Time
}

// What a service may ask for is what labels may say.
type (
	// Choice is how a backend is chosen for a new connection.
	Choice = vip.Choice
	// By says what a client is, for Affinity.
	By = vip.By
	// Affinity says that a client keeps its backend.
	Affinity = vip.Affinity
	// Client says who may connect.
	Client = vip.Client
)

// The Choices, and what may be a client.
const (
	Random      = vip.Random
	LeastActive = vip.LeastActive

	ByNothing   = vip.ByNothing
	ByNamespace = vip.ByNamespace
	ByCgroup    = vip.ByCgroup
	BySource    = vip.BySource
)

// Plan is what the kernel should hold. It is immutable, and a Service that did
// not change is the same pointer in the next Plan.
type Plan struct {
	Services model.Groups[vip.Frontend, *Service]
	// Partial says that the kernel may know better: what it holds and the Plan
	// lacks stays as it is. The first Plan that is not partial settles that.
	Partial bool

	// Exclude are the clients that are left alone: what they connect or send to is
	// not rewritten, VIP or not. Sorted; who is not there yet is so when it comes.
	Exclude []Client

	// Ended are the drains that ended with this Plan: whoever is still connected
	// is to be told.
	Ended []Drain

	rows    model.Groups[vip.Frontend, *vip.Service] // what it was built from
	retired []retirement                             // oldest first
	drains  []Drain
	grace   time.Duration
	inner   func(vip.Backend) netip.AddrPort // Config.inner
	near    *Neighbours
	ejected *Ejections
}

// Excluded returns Exclude for people, "" where nobody is. A nil Plan excludes none.
func (p *Plan) Excluded() string {
	if p == nil {
		return ""
	}
	var list []string
	for _, c := range p.Exclude {
		list = append(list, c.String())
	}
	return strings.Join(list, ", ")
}

// Ejected returns the backends of a service that are out in this Plan, nil
// where none is. One that takes connections all the same, since others would be
// too few, is not out. A nil Plan has none.
func (p *Plan) Ejected(f vip.Frontend) map[netip.AddrPort]Ejection {
	if p == nil {
		return nil
	}
	row, ok := p.rows.Get(f)
	if !ok || p.ejected.count(row) == 0 {
		return nil
	}
	takes := map[netip.AddrPort]bool{}
	if s, ok := p.Services.Get(f); ok {
		for _, b := range s.Backends {
			takes[b.Addr] = true
		}
	}
	out := map[netip.AddrPort]Ejection{}
	for _, b := range row.Backends {
		if e, ok := p.ejected.of(f)[b.Addr]; ok && !takes[b.Addr] {
			out[b.Addr] = e
		}
	}
	return out
}

// AllEjected yields the services that have backends that are out, and those.
func (p *Plan) AllEjected() iter.Seq2[vip.Frontend, map[netip.AddrPort]Ejection] {
	return func(yield func(vip.Frontend, map[netip.AddrPort]Ejection) bool) {
		if p == nil {
			return
		}
		for f := range p.ejected.All() {
			if out := p.Ejected(f); len(out) > 0 && !yield(f, out) {
				return
			}
		}
	}
}

// ErrUnsupported is what the error of a service matches that this dataplane can
// never balance, so that trying again is no use.
var ErrUnsupported = errors.New("not supported by this balancer")

// ServiceError says that one service of a Plan could not be programmed.
type ServiceError struct {
	Frontend vip.Frontend
	Err      error
}

// Error names the frontend.
func (e *ServiceError) Error() string {
	return fmt.Sprintf("program service %s/%s: %v", e.Frontend.Addr, e.Frontend.Proto, e.Err)
}

// Unwrap returns the cause.
func (e *ServiceError) Unwrap() error { return e.Err }

// Dataplane makes Plans true in a kernel.
//
// Apply brings the kernel to p and returns once new connections follow it. It
// works out the difference from what the kernel really holds, so it also
// repairs and adopts. A service that cannot be programmed (a full map, say) is
// left as it was while the others are applied; the error then joins one
// *ServiceError for each, that of a service it can never balance matching
// ErrUnsupported. Any other error means that nothing can be said of
// what the kernel holds. Close lets go of the kernel without changing what it
// does. Both are for one goroutine.
type Dataplane interface {
	Apply(ctx context.Context, p *Plan) error
	Close() error
}
