package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"waggle/ebpf"
	"waggle/internal/hostnet"
	"waggle/lb/ipvs"
)

// local are the prefixes of named VIPs, or none where they are not to be local
// to this machine: pings would be answered for VIPs that nobody balances.
func (d *daemon) local() []netip.Prefix {
	if _, ok := d.plane.(*ebpf.Dataplane); !ok || !d.cfg.VIP.Route {
		return nil
	}
	list := hostnet.Prefixes(d.cfg.VIP.First4, d.cfg.VIP.Last4)
	if d.cfg.VIP.IPv6 {
		list = slices.Concat(list, hostnet.Prefixes(d.cfg.VIP.First6, d.cfg.VIP.Last6))
	}
	return list
}

// keepLocal sees that the addresses of named VIPs are local until ctx ends, and
// stay so: like the balancing they outlive the daemon.
func (d *daemon) keepLocal(ctx context.Context) error {
	if _, ok := d.plane.(*ebpf.Dataplane); !ok {
		return nil
	}
	var last string
	again := time.NewTicker(d.cfg.agent().RepairEvery)
	defer again.Stop()
	for {
		changed, err := hostnet.SetLocal(d.local())
		switch {
		case err != nil && err.Error() != last:
			d.log.Warn("VIPs do not answer pings", zap.Error(err))
			last = err.Error()
		case err == nil && changed > 0:
			d.log.Info("routes of VIPs set", zap.Int("changed", changed), zap.Bool("local", d.cfg.VIP.Route))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		}
	}
}

// unload removes all kernel state, and says what there was.
func unload(cfg fileConfig) ([]string, error) {
	removed, err := ebpf.Unload(cfg.plane())
	more, ipvsErr := ipvs.Unload(cfg.ipvs())
	removed = append(removed, more...)
	routes, routeErr := hostnet.SetLocal(nil)
	if routes > 0 {
		removed = append(removed, fmt.Sprintf("%d routes of VIPs", routes))
	}
	return removed, errors.Join(err, ipvsErr, routeErr)
}
