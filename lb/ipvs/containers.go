package ipvs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
)

// lookEvery is how often the folder of containers is looked at even if nothing
// is heard of it: it may not exist yet, and file systems do forget.
const lookEvery = time.Second

// Run follows the containers that are to be balanced until ctx ends, and then
// returns ctx's error. A container that comes has all services at once.
func (d *Dataplane) Run(ctx context.Context) error {
	if d.cfg.Containers == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		d.follow(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// follow opens containers that have come and lets go of those that have gone.
// Where a namespace ends its services do too.
func (d *Dataplane) follow(ctx context.Context) {
	named := listContainers(d.cfg.Containers)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host == nil {
		return
	}
	for name, s := range d.containers {
		if _, ok := named[name]; !ok {
			s.close()
			delete(d.containers, name)
			d.log.Info("container gone", zap.String("container", name))
		}
	}
	for name, path := range named {
		if d.containers[name] != nil {
			continue
		}
		s, err := openSpace(name, path, d.cfg, d.log)
		if err != nil {
			d.log.Debug("container cannot be balanced", zap.String("container", name), zap.String("netns", path), zap.Error(err))
			continue // tried again at the next look
		}
		d.containers[name] = s
		d.log.Info("container balanced", zap.String("container", name), zap.String("netns", path))
		if d.plan != nil {
			d.inContainer(ctx, s)
		}
	}
}

// listContainers returns the network namespaces that the files in dir name, by
// the files' names. A folder that does not exist names none, and neither does a
// file that is not written yet.
func listContainers(dir string) map[string]string {
	out := map[string]string{}
	if dir == "" {
		return out
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return out
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if path := strings.TrimSpace(string(text)); err == nil && filepath.IsAbs(path) {
			out[f.Name()] = path
		}
	}
	return out
}
