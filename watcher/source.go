// Package watcher is the contract between the daemon and the schedulers it
// follows: a Source publishes whole Snapshots and never forgets what runs
// because a scheduler could not be reached. It speaks no scheduler's API.
package watcher

import (
	"context"

	"waggle/model"
)

// Source follows one scheduler.
//
// Run publishes a Snapshot each time what the scheduler says has changed,
// starting with the first complete one, until ctx ends; it then returns
// ctx.Err(). It returns another error only for a configuration it can never
// work with: losing the scheduler is not an error but a state that it retries,
// and the last Snapshot stands meanwhile. publish must return quickly and is
// called from one goroutine at a time.
type Source interface {
	Run(ctx context.Context, publish func(*model.Snapshot)) error
}
