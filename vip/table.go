package vip

import (
	"net/netip"

	"waggle/model"
)

// Frontend is where a service is reached.
type Frontend struct {
	Addr  netip.AddrPort // unmapped
	Proto model.Proto
}

// State says how a backend may be used.
type State uint8

// Up backends take connections. Draining ones (their task is being killed) and
// Unhealthy ones keep those they have and take new ones only if no backend of
// the service is up.
const (
	Up State = iota
	Draining
	Unhealthy
)

// String returns the lower-case name.
func (s State) String() string { return [...]string{"up", "draining", "unhealthy"}[s%3] }

// Backend is one place a service's connections may go. Weight is relative; of
// 0 it takes new connections only if no backend of the service has any weight.
type Backend struct {
	Addr   netip.AddrPort
	Weight uint16
	State  State
	Agent  netip.Addr // zero when unknown
	// Inner is where Addr, a port of the agent, leads on the agent itself; zero
	// where Addr is the task's own or that is not known.
	Inner netip.AddrPort
	// Shared says that the labels of the task's port ask for another service as
	// well, so that the far end of a connection does not tell which it was to.
	Shared bool
	Task   model.TaskKey
}

// Service is one row of a Table. It is immutable.
type Service struct {
	Frontend  Frontend
	Name      string    // folded "name.framework"; empty for a VIP given by address
	Label     string    // left side of the label as written, the lowest where spellings differ; empty likewise
	Framework string    // framework name, the lowest where they fold alike; empty likewise
	Backends  []Backend // sorted by Addr, one per address; may be empty for a VIP given by address
	Options   Options
}

// Table holds which services exist, at which address, with which backends. It
// is immutable, and a Service that did not change is the same pointer in the
// next Table. The zero value is the Table of an empty world.
type Table struct {
	Services model.Groups[Frontend, *Service]

	apps     model.Groups[model.AppKey, *model.App] // what it was built from
	entries  model.Groups[target, *entry]
	v4, v6   layout
	problems model.Groups[cause, *[]model.Problem]
	sorted   func() []model.Problem // nil where there are none
}

// Problems returns what was wrong with labels, sorted and without repeats. The
// first call for a Table with other problems than the one before costs a sort;
// the caller must not change the result. It is safe for concurrent use.
func (t *Table) Problems() []model.Problem {
	if t.sorted == nil {
		return nil
	}
	return t.sorted()
}
