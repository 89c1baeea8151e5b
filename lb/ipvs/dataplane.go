package ipvs

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"waggle/lb"
)

// Dataplane balances by IPVS. Its methods are safe for concurrent use.
type Dataplane struct {
	cfg Config
	log *zap.Logger

	metrics *collector

	// mu guards what follows.
	mu         sync.Mutex
	host       *space // nil once closed
	containers map[string]*space
	plan       *lb.Plan // the last one applied, wholly or not
}

var _ lb.Dataplane = (*Dataplane)(nil)

// Open opens IPVS in the machine's network namespace, or rather the calling
// process'. It changes nothing there yet but settings of IPVS itself. It returns
// ErrNotSupported where there is no IPVS or no right to it. reg may be nil. The
// caller runs Run, if containers are to be followed, and closes the Dataplane.
func Open(cfg Config, log *zap.Logger, reg prometheus.Registerer) (*Dataplane, error) {
	host, err := openSpace("host", "", cfg, log)
	if err != nil {
		return nil, err
	}
	d := &Dataplane{cfg: cfg, log: log, host: host, containers: map[string]*space{}}
	if d.metrics, err = newMetrics(reg, d); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	log.Info("balancing by IPVS", zap.Int("adopted", len(host.held)), zap.Int("of others", len(host.foreign)))
	return d, nil
}

// Apply implements lb.Dataplane. Its cost grows with what differs from the Plan
// before. What fails in a container is logged and made good by Repair; the
// errors returned are those of the machine's own namespace.
func (d *Dataplane) Apply(ctx context.Context, p *lb.Plan) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host == nil {
		return errors.New("apply plan: the dataplane is closed")
	}
	d.plan = p
	return d.applyLocked(ctx)
}

func (d *Dataplane) applyLocked(ctx context.Context) error {
	for _, s := range d.containers {
		d.inContainer(ctx, s)
	}
	failed, err := d.host.apply(ctx, d.plan, d.cfg.TakeOver)
	if err != nil {
		return fmt.Errorf("apply plan: %w", err)
	}
	var errs []error
	for _, e := range failed {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// inContainer applies the plan in one container, which may be ending.
func (d *Dataplane) inContainer(ctx context.Context, s *space) {
	failed, err := s.apply(ctx, d.plan, d.cfg.TakeOver)
	for _, e := range failed {
		err = errors.Join(err, e)
	}
	if err != nil && ctx.Err() == nil {
		s.known = false
		d.log.Warn("container not up to date", zap.String("container", s.name), zap.Error(err))
	}
}

// Repair reads all that the kernel holds and brings it to the last Plan that
// was applied, in case somebody else has changed it: an ipvsadm -C, say. Its
// errors are those of Apply.
func (d *Dataplane) Repair(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host == nil {
		return errors.New("repair: the dataplane is closed")
	}
	if d.plan == nil {
		return nil
	}
	d.host.known = false
	for _, s := range d.containers {
		s.known = false
	}
	return d.applyLocked(ctx)
}

// Close implements lb.Dataplane: the kernel goes on balancing as it does.
func (d *Dataplane) Close() error {
	d.metrics.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host != nil {
		d.host.close()
	}
	for _, s := range d.containers {
		s.close()
	}
	d.host, d.containers = nil, map[string]*space{}
	return nil
}

// Unload removes all that a Dataplane put into the kernel, in the machine's
// namespace and in the containers that cfg names, and returns what that was.
// What others put there stays.
func Unload(cfg Config) ([]string, error) {
	var removed []string
	var errs []error
	if _, err := netlink.GenlFamilyGet("IPVS"); err != nil {
		return nil, nil // it is not loaded, so there can be nothing
	}
	host, err := openSpace("host", "", cfg, zap.NewNop())
	if err != nil {
		return nil, err
	}
	spaces := []*space{host}
	for name, path := range listContainers(cfg.Containers) {
		if s, err := openSpace(name, path, cfg, zap.NewNop()); err == nil { // one that ends takes all with it
			spaces = append(spaces, s)
		}
	}
	for _, s := range spaces {
		gone, err := s.clear()
		removed, errs = append(removed, gone...), append(errs, err)
		s.close()
	}
	if found, err := removeGuard(); found || err != nil {
		removed, errs = append(removed, "nftables table "+tableName), append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// clear removes all that is ours in the namespace.
func (s *space) clear() (removed []string, err error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	var errs []error
	for f := range s.held {
		if err := s.set(change{frontend: f}, nil, false); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, fmt.Sprintf("IPVS service %s/%s in %s", f.Addr, f.Proto, s.name))
	}
	return removed, errors.Join(errs...)
}
