package main

import (
	"context"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"waggle/internal/hostnet"
	"waggle/watcher"
	"waggle/watcher/file"
	"waggle/watcher/marathon"
	"waggle/watcher/mesos"
	"waggle/watcher/zk"
)

// openSources opens what tells of tasks. Of what two of them know the first
// counts; Marathon beside Mesos adds to it.
func (d *daemon) openSources(r *hostnet.Resolver, reg prometheus.Registerer) error {
	var all []watcher.Source
	if d.cfg.Mesos.configured() {
		if err := d.openMesos(r, reg); err != nil {
			return err
		}
		all = append(all, d.source)
	}
	if len(d.cfg.Marathon.Hosts) > 0 {
		var err error
		if d.marathon, err = marathon.New(d.cfg.Marathon.source(d.lookup(r)), d.log.Named("marathon"), reg); err != nil {
			return err
		}
		if d.source != nil {
			all = append(all, watcher.Supplement{Source: d.marathon})
		} else {
			all = append(all, d.marathon)
		}
	}
	if paths := d.cfg.File.Paths; len(paths) > 0 {
		cfg := file.DefaultConfig()
		cfg.Paths = paths
		d.files = file.New(cfg, d.log.Named("file"), reg)
		all = append(all, d.files)
	}
	d.merged = watcher.NewMerge(watcher.DefaultPatience, all...)
	return nil
}

// openMesos opens the masters, and where they are elected.
func (d *daemon) openMesos(r *hostnet.Resolver, reg prometheus.Registerer) error {
	var election mesos.Election
	cfg, ok, err := d.cfg.Mesos.detector(r)
	if err != nil {
		return err
	}
	if ok {
		d.zk = zk.New(cfg, d.log.Named("zookeeper"), reg)
		election = d.zk
	}
	d.source, err = mesos.New(d.cfg.Mesos.source(d.lookup(r), election), d.log.Named("mesos"), reg)
	return err
}

// lookup returns what looks names up for sources: past ourselves, but for the
// masters' names in the domain, which nobody else may know. A service account's
// login_endpoint often has one.
func (d *daemon) lookup(r *hostnet.Resolver) watcher.Lookup {
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		name, ok := strings.CutSuffix(strings.TrimSuffix(strings.ToLower(host), "."), "."+d.cfg.DNS.Domain)
		if d.source == nil || !ok || name != "leader" && name != "master" {
			return r.Lookup(ctx, host)
		}
		var addrs []netip.Addr
		for _, m := range d.source.Masters() {
			addrs = append(addrs, m.Addr())
		}
		if len(addrs) == 0 {
			return r.Lookup(ctx, host)
		}
		return addrs, nil
	}
}
