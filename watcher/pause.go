package watcher

import (
	"context"
	"math/rand/v2"
	"time"
)

// Spread returns half of d to d, at random: all nodes must not come at once.
func Spread(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// Pause waits for half of d to d, or for news, which may be nil.
func Pause(ctx context.Context, d time.Duration, news <-chan struct{}) error {
	wait := time.NewTimer(Spread(d))
	defer wait.Stop()
	select {
	case <-ctx.Done():
	case <-news:
	case <-wait.C:
	}
	return ctx.Err()
}
