package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"waggle/api"
	"waggle/dns"
	"waggle/ebpf"
	"waggle/internal/agent"
	"waggle/internal/hostnet"
	"waggle/lb"
	"waggle/watcher/archive"
	"waggle/watcher/mesos"
	"waggle/watcher/zk"
)

func newRun(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Run the daemon",
		Long:    "Run the daemon: follow the scheduler, answer DNS, balance VIPs.\n\nWhen it ends, the kernel goes on balancing; the next run takes over. `waggle unload` removes what it left.",
		Example: "  waggle run --mesos.zk zk://10.0.0.1:2181,10.0.0.2:2181,10.0.0.3:2181/mesos\n  waggle run --mesos.masters 10.0.0.1:5050,10.0.0.2:5050\n  waggle run --config /etc/mesos-dns/config.json",
		Args:    usageArgs(cobra.NoArgs),
	}
	flags := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := flags.load()
		if err == nil && len(cfg.Mesos.Masters) == 0 && cfg.Mesos.ZK == "" {
			err = errors.New("mesos.masters, mesos.zk: no master to follow is configured")
		}
		if err != nil {
			return &exitError{exitUsage, err}
		}
		d, err := openDaemon(cfg, newLogger(cfg.Log, e.stderr))
		if err != nil {
			return err
		}
		return d.run(cmd.Context())
	}
	return cmd
}

// daemon is every part of a running waggle.
type daemon struct {
	cfg    fileConfig
	log    *zap.Logger
	zk     *zk.Detector // nil without
	source *mesos.Source
	kept   *archive.Source // around source
	plane  lb.Dataplane    // nil without balancing
	noLB   error           // why plane is nil
	agent  *agent.Agent
	dns    *dns.Server
	http   *api.Server
}

// openDaemon opens everything that can fail: the kernel last, since what is
// attached there outlives a process that could not start. run closes it.
func openDaemon(cfg fileConfig, log *zap.Logger) (*daemon, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d := &daemon{cfg: cfg, log: log}

	resolver, err := newResolver(cfg.DNS.Listen)
	if err != nil {
		return nil, err
	}
	if err := d.openSource(resolver, reg); err != nil {
		return nil, err
	}
	d.dns = dns.NewServer(cfg.dnsServer(), func() *dns.Zone { return d.agent.Zone() }, log.Named("dns"), reg)
	d.http = api.New(cfg.http(), d.view, reg, log.Named("http"))
	if err := errors.Join(d.dns.Listen(), d.http.Listen()); err != nil {
		return nil, err
	}
	if d.plane, d.noLB, err = openPlane(cfg, log.Named("lb"), reg); err != nil {
		return nil, err
	}
	// A source publishes its first Snapshot once it is complete.
	d.kept = archive.New(cfg.archive(), d.source, func() bool { return true }, log.Named("archive"), reg)
	d.agent = agent.New(cfg.agent(), d.kept, d.plane, log.Named("agent"), reg)
	return d, nil
}

// openSource opens what tells of tasks.
func (d *daemon) openSource(r *hostnet.Resolver, reg prometheus.Registerer) error {
	var election mesos.Election
	cfg, ok, err := d.cfg.Mesos.detector(r)
	if err != nil {
		return err
	}
	if ok {
		d.zk = zk.New(cfg, d.log.Named("zookeeper"), reg)
		election = d.zk
	}
	d.source, err = mesos.New(d.cfg.Mesos.source(r, election), d.log.Named("mesos"), reg)
	return err
}

// openPlane opens what cfg asks for. With "auto" a kernel that cannot balance
// is no failure: the reason is returned beside a nil Dataplane.
func openPlane(cfg fileConfig, log *zap.Logger, reg prometheus.Registerer) (_ lb.Dataplane, reason, err error) {
	if cfg.LB.Backend == "none" {
		return nil, errors.New("turned off by lb.backend: none"), nil
	}
	p, err := ebpf.Open(cfg.plane(), log, reg)
	switch {
	case err == nil:
		return p, nil, nil
	case cfg.LB.Backend == "auto":
		log.Warn("no balancing here, DNS only", zap.Error(err))
		return nil, err, nil
	}
	return nil, nil, fmt.Errorf("open balancer: %w", err)
}

// newResolver returns the resolver for the daemon's own questions, which never
// asks an address that the daemon itself listens on.
func newResolver(listen []string) (*hostnet.Resolver, error) {
	ours := map[netip.AddrPort]bool{}
	for _, l := range listen {
		if a, err := netip.ParseAddrPort(l); err == nil {
			ours[a] = true
		}
	}
	own := func(a netip.AddrPort) bool {
		any4 := netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())
		any6 := netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())
		return ours[a] || (ours[any4] || ours[any6]) && hostnet.IsLocal(a.Addr())
	}
	servers, err := hostnet.Upstreams(hostnet.ResolvConf, own)
	if err != nil {
		return nil, err
	}
	return hostnet.NewResolver(servers), nil
}

// run serves until ctx ends or a part fails.
func (d *daemon) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.agent.Run(ctx) })
	g.Go(func() error { return d.dns.Run(ctx) })
	g.Go(func() error { return d.http.Run(ctx) })
	d.log.Info("running", zap.Stringers("dns", d.dns.Addrs()), zap.Stringers("http", d.http.Addrs()))
	return errors.Join(g.Wait(), d.close())
}

func (d *daemon) close() error {
	if d.plane == nil {
		return nil
	}
	return d.plane.Close()
}

// view is the daemon's state as the HTTP interface shows it.
func (d *daemon) view() api.View {
	s := d.agent.State()
	v := api.View{Status: func() api.Status { return d.status(s) }}
	if s != nil {
		v.Snapshot, v.Table, v.Zone, v.Problems = s.Snapshot, s.Table, s.Zone, s.Problems
		v.Explain = func(query string) any { return d.explain(s, query) }
	}
	return v
}

// status tells how the node is after the turn that made s; nil means none yet.
func (d *daemon) status(s *agent.State) api.Status {
	src := d.source.Status()
	st := api.Status{
		Version: readVersion().Version,
		Ready:   s != nil,
		Reasons: []string{},
		Source:  api.Source{Connected: src.Connected, Leader: src.Leader, LastEvent: src.LastEvent},
	}
	if z := d.zooKeeper(); z != nil {
		st.Source.ZooKeeper = z
		if z.Error != "" {
			st.Reasons = append(st.Reasons, "election not seen, the last leader stands: "+z.Error)
		}
	}
	if !src.Connected {
		reason := "not connected to a Mesos master"
		if src.Err != nil {
			st.Source.Error = src.Err.Error()
			reason += ": " + st.Source.Error
		}
		st.Reasons = append(st.Reasons, reason)
	}
	if at := d.kept.Status().Restored; !at.IsZero() {
		st.Source.Restored = at
		st.Reasons = append(st.Reasons, fmt.Sprintf("serving what was known %s ago, from the disk, until the scheduler has spoken", time.Since(at).Round(time.Second)))
	}
	st.Balancer.Kind = "ebpf"
	if d.plane == nil {
		st.Balancer = api.Balancer{Kind: "none", Error: d.noLB.Error()}
		st.Reasons = append(st.Reasons, "no balancing: "+st.Balancer.Error)
	}
	if s != nil {
		st.Source.Published, st.Counts = s.Published, counts(s)
	}
	if s != nil && s.Err != nil {
		st.Balancer.Error = s.Err.Error()
		st.Reasons = append(st.Reasons, "kernel not up to date: "+st.Balancer.Error)
	}
	for _, a := range d.dns.Addrs() {
		st.DNS = append(st.DNS, a.String())
	}
	for _, a := range d.http.Addrs() {
		st.HTTP = append(st.HTTP, a.String())
	}
	return st
}

// zooKeeper tells how the election is seen; nil where none is followed.
func (d *daemon) zooKeeper() *api.ZooKeeper {
	if d.zk == nil {
		return nil
	}
	s := d.zk.Status()
	z := &api.ZooKeeper{
		Location: d.zk.Location().String(), Connected: s.Connected, Since: s.Changed,
		Leader: s.Leader.Addr, Masters: s.Members, Read: s.Read,
	}
	if s.Err != nil {
		z.Error = s.Err.Error()
	}
	return z
}

// counts are the sizes of s.
func counts(s *agent.State) api.Counts {
	c := api.Counts{
		Apps: s.Snapshot.Apps.Len(), Agents: s.Snapshot.Agents.Len(),
		Problems: len(s.Problems()), Names: s.Zone.Names(),
	}
	for _, app := range s.Snapshot.Apps.All() {
		c.Tasks += len(app.Tasks)
	}
	if s.Applied != nil {
		c.VIPs = s.Applied.Services.Len()
	}
	return c
}
