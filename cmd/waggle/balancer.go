package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"waggle/ebpf"
	"waggle/lb"
	"waggle/lb/ipvs"
)

// balancer is what programs the kernel, and why it is that.
type balancer struct {
	plane  lb.Dataplane // nil without balancing
	kind   string       // ebpf, ipvs or none
	chosen string       // why that, for people
	noLB   error        // why plane is nil
}

// runner is what a Dataplane may be besides: one that follows something.
type runner interface {
	Run(ctx context.Context) error
}

// openBalancer opens what cfg asks for; of "auto" the best that works, found
// out by trying. Then a kernel that cannot balance at all is no failure.
func openBalancer(cfg fileConfig, log *zap.Logger, reg prometheus.Registerer) (balancer, error) {
	kinds := []string{cfg.LB.Backend}
	switch cfg.LB.Backend {
	case "none":
		return balancer{kind: "none", chosen: "lb.backend is none", noLB: errors.New("turned off by lb.backend: none")}.shown(reg), nil
	case "auto":
		kinds = []string{"ebpf", "ipvs"}
	}
	var tried []error
	for _, kind := range kinds {
		plane, err := openKind(kind, cfg, log, reg)
		if err != nil {
			tried = append(tried, fmt.Errorf("%s: %w", kind, err))
			continue
		}
		b := balancer{plane: plane, kind: kind, chosen: "lb.backend is " + kind}
		if cfg.LB.Backend == "auto" {
			b.chosen = "the best that works here"
		}
		if err := inOneLine(tried); err != nil {
			b.chosen += "; " + err.Error()
			log.Warn("not the best balancer", zap.String("using", kind), zap.Error(err))
		}
		return b.shown(reg), nil
	}
	err := inOneLine(tried)
	if cfg.LB.Backend != "auto" {
		return balancer{}, fmt.Errorf("open balancer: %w", err)
	}
	log.Warn("no balancing here, DNS only", zap.Error(err))
	return balancer{kind: "none", chosen: "nothing else works here", noLB: err}.shown(reg), nil
}

// inOneLine joins errors for where one line is shown; of none it is nil.
func inOneLine(errs []error) (err error) {
	for _, e := range errs {
		if err == nil {
			err = e
		} else {
			err = fmt.Errorf("%w; %w", err, e)
		}
	}
	return err
}

func openKind(kind string, cfg fileConfig, log *zap.Logger, reg prometheus.Registerer) (lb.Dataplane, error) {
	if kind == "ipvs" {
		// Assigned apart, or a nil pointer would be a Dataplane that is not nil.
		p, err := ipvs.Open(cfg.ipvs(), log, reg)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	p, err := ebpf.Open(cfg.plane(), log, reg)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// shown makes b a metric.
func (b balancer) shown(reg prometheus.Registerer) balancer {
	promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{
		Name: "waggle_balancer_info", Help: "What balances: 1 for the kind in use.",
	}, []string{"kind"}).WithLabelValues(b.kind).Set(1)
	return b
}
