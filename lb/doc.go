// Package lb decides how connections spread over backends and says so in a
// Plan, which a Dataplane makes true in some kernel. It knows services and
// weights, and neither DNS nor how a kernel balances.
package lb
