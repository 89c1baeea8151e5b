package forward

import (
	"fmt"
	"time"
	"unsafe"

	"github.com/maypok86/otter/v2"
)

// cache remembers entries, answers and negatives apart, each within its bytes.
// What is rarely asked for gives way to what is often: a flood of names that
// are asked for once displaces nothing that is used. It is safe for concurrent
// use.
type cache struct {
	answers, negatives *otter.Cache[string, *entry]
}

func newCache(cfg Config) (*cache, error) {
	c := &cache{}
	for _, part := range []struct {
		name  string
		to    **otter.Cache[string, *entry]
		bytes int
	}{
		{"answers", &c.answers, cfg.AnswerBytes}, {"negative answers", &c.negatives, cfg.NegativeBytes},
	} {
		if part.bytes <= 0 {
			continue // remembers nothing
		}
		var err error
		*part.to, err = otter.New(&otter.Options[string, *entry]{
			MaximumWeight: uint64(part.bytes),
			Weigher:       func(key string, e *entry) uint32 { return e.weight(key) },
			// What is to be done now and then is short, and waking a thread for it
			// costs more.
			Executor: func(do func()) { do() },
		})
		if err != nil {
			return nil, fmt.Errorf("make cache of %s: %w", part.name, err)
		}
	}
	return c, nil
}

// get returns what is remembered under key, if only to be served stale. It
// allocates nothing and keeps nothing of key.
func (c *cache) get(key []byte, now time.Time) *entry {
	// The cache copies no key on reads and keeps none, so it may look at ours.
	k := unsafe.String(unsafe.SliceData(key), len(key))
	var found *entry
	for _, part := range []*otter.Cache[string, *entry]{c.answers, c.negatives} {
		if part == nil {
			continue
		}
		e, ok := part.GetIfPresent(k)
		if !ok || e.dead(now) {
			continue
		}
		if e.fresh(now) {
			return e
		}
		if found == nil {
			found = e
		}
	}
	return found
}

// put remembers e. A negative answer that an upstream gave replaces an answer;
// a failure replaces nothing, so that the answer can be served stale.
func (c *cache) put(key string, e *entry, failed bool) {
	switch {
	case e.negative && c.negatives != nil:
		c.negatives.Set(key, e)
		if !failed && c.answers != nil {
			c.answers.Invalidate(key)
		}
	case !e.negative && c.answers != nil:
		c.answers.Set(key, e)
		if c.negatives != nil {
			if _, ok := c.negatives.GetEntryQuietly(key); ok {
				c.negatives.Invalidate(key)
			}
		}
	}
}

// close ends what the cache runs.
func (c *cache) close() {
	for _, part := range []*otter.Cache[string, *entry]{c.answers, c.negatives} {
		if part != nil {
			part.StopAllGoroutines()
		}
	}
}

// size returns the entries and bytes of one part.
func size(part *otter.Cache[string, *entry]) (entries int, bytes uint64) {
	if part == nil {
		return 0, 0
	}
	return part.EstimatedSize(), part.WeightedSize()
}
