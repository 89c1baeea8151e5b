package marathon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"waggle/model"
	"waggle/watcher"
)

// Decode reads one recorded document: the answer to /v2/apps?embed=apps.tasks, to
// /v2/groups with its apps and their tasks embedded, to /v2/pods/::status, or to
// what is asked for one app or one pod's status.
// What cannot be read costs only itself and is among the Problems; the error is
// for a document that ends too early or holds no app or pod. Hosts are looked up
// before Decode returns.
func Decode(ctx context.Context, r io.Reader, lookup watcher.Lookup) (*model.Snapshot, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	var all collection
	if isPod(text) {
		all.take(text, true)
	} else if err := documents(bytes.NewReader(text), all.take); err != nil {
		return nil, fmt.Errorf("read as marathon: %w", err)
	}
	if len(all.specs)+len(all.lost) == 0 {
		return nil, errors.New("read as marathon: neither apps nor pods in it")
	}
	w := newWorld(unknownFramework())
	w.replace(&all)
	hosts := map[string]string{}
	for host := range w.wants {
		hosts[host] = host
	}
	w.resolved(watcher.LookupAll(ctx, lookup, hosts))
	return w.snapshot(), nil
}
