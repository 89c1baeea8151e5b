package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"waggle/api"
	"waggle/dns"
	"waggle/dns/forward"
	"waggle/ebpf/answers"
	"waggle/internal/agent"
	"waggle/internal/hostnet"
	"waggle/watcher"
	"waggle/watcher/archive"
	"waggle/watcher/file"
	"waggle/watcher/marathon"
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
		if err == nil {
			err = cfg.follows()
		}
		if err != nil {
			return &exitError{exitUsage, err}
		}
		return runDaemon(cmd.Context(), e, cfg, flags)
	}
	return cmd
}

// follows is an error if there is nothing that a daemon could follow.
func (c fileConfig) follows() error {
	if c.Mesos.configured() || len(c.Marathon.Hosts)+len(c.File.Paths) > 0 {
		return nil
	}
	return errors.New("mesos.masters, mesos.zk, marathon.hosts, file.paths: nothing to follow is configured")
}

// runDaemon runs the daemon as a service: it tells the service manager how it
// is, and reads its configuration again when told to.
func runDaemon(ctx context.Context, e env, cfg fileConfig, flags *configFlags) error {
	hup := make(chan os.Signal, 1) // from now on, or an early one would end us
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	n, err := openNotifier()
	if err != nil {
		return err
	}
	log, level := newLogger(cfg.Log, e.stderr)
	if err := cfg.inspect(func(err error) { log.Warn("unwise", zap.Error(err)) }); err != nil {
		log.Warn("credentials cannot be used; what needs them waits", zap.Error(err))
	}
	d, err := openDaemon(cfg, log)
	if err != nil {
		return errors.Join(err, n.close())
	}
	d.reload = newReloader(d, flags, level, n, d.reg)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { err = d.run(ctx); return err })
	g.Go(func() error { return d.reload.run(ctx, hup) })
	g.Go(func() error { return d.tell(ctx, n) })
	_ = g.Wait() // the others end for no reason of their own
	return errors.Join(err, n.close())
}

// daemon is every part of a running waggle.
type daemon struct {
	cfg      fileConfig
	log      *zap.Logger
	reg      *prometheus.Registry
	reload   *reloader        // nil where nothing is reloaded
	zk       *zk.Detector     // nil without
	source   *mesos.Source    // nil without
	marathon *marathon.Source // nil without
	files    *file.Source     // nil without
	merged   *watcher.Merge   // of these
	kept     *archive.Source  // around merged
	balancer
	agent     *agent.Agent
	addrs     *addresses        // nil without
	forward   *forward.Resolver // nil without
	dns       *dns.Server
	kernelDNS *answers.Answers // nil without
	http      *api.Server
}

// openDaemon opens everything that can fail: the kernel last, since what is
// attached there outlives a process that could not start. run closes it.
func openDaemon(cfg fileConfig, log *zap.Logger) (_ *daemon, err error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	v := readVersion()
	promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{
		Name: "waggle_build_info", Help: "What was built, 1.",
	}, []string{"version", "go"}).WithLabelValues(v.Version, v.Go).Set(1)
	d := &daemon{cfg: cfg, log: log, reg: reg}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.addrs.close())
		}
	}()

	resolver, err := newResolver(cfg.DNS.addrPorts(ignore))
	if err != nil {
		return nil, err
	}
	if err := d.openSources(resolver, reg); err != nil {
		return nil, err
	}
	if d.addrs, err = keepAddresses(cfg.keeper(), log.Named("addresses")); err != nil {
		return nil, err
	}
	server := cfg.dnsServer()
	server.Inherited = dns.Activated()
	if cfg.DNS.Forward.On {
		own := ownServer(cfg.DNS.addrPorts(ignore))
		if d.forward, err = forward.New(cfg.forwarder(own, ignore), cfg.DNS.Forward.roots(ignore), log.Named("forward"), reg); err != nil {
			return nil, err
		}
		server.Forward = d.forward
	}
	if most := cfg.DNS.Kernel; most > 0 {
		d.kernelDNS = answers.New(answers.Config{Most: most}, log.Named("dns"), reg)
		server.Kernel = d.kernelDNS
	}
	d.dns = dns.NewServer(server, func() *dns.Zone { return d.agent.Zone() }, log.Named("dns"), reg)
	d.http = api.New(cfg.http(), d.view, reg, log.Named("http"))
	if err := errors.Join(d.dns.Listen(), d.http.Listen()); err != nil {
		return nil, err
	}
	if d.balancer, err = openBalancer(cfg, log.Named("lb"), reg); err != nil {
		return nil, err
	}
	d.kept = archive.New(cfg.archive(), d.merged, d.merged.Spoken, log.Named("archive"), reg)
	stages := cfg.agent()
	stages.LB.Inner = d.kind == "ipvs"
	stages.Renamed = d.kernelDNS.Forget
	d.agent = agent.New(stages, d.kept, d.plane, log.Named("agent"), reg)
	return d, nil
}

// newResolver returns the resolver for the daemon's own questions, which never
// asks an address that the daemon itself listens on.
func newResolver(listen []netip.AddrPort) (*hostnet.Resolver, error) {
	servers, err := hostnet.Upstreams(hostnet.ResolvConf, ownServer(listen))
	if err != nil {
		return nil, err
	}
	return hostnet.NewResolver(servers), nil
}

// ownServer returns what tells whether an address is one that is listened on.
func ownServer(listen []netip.AddrPort) func(netip.AddrPort) bool {
	ours := map[netip.AddrPort]bool{}
	for _, a := range listen {
		ours[a] = true
	}
	return func(a netip.AddrPort) bool {
		any4 := netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())
		any6 := netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())
		return ours[a] || (ours[any4] || ours[any6]) && hostnet.IsLocal(a.Addr())
	}
}

// run serves until ctx ends or a part fails.
func (d *daemon) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.agent.Run(ctx) })
	g.Go(func() error { d.awaitPicture(ctx); return d.dns.Run(ctx) })
	g.Go(func() error { return d.http.Run(ctx) })
	if d.forward != nil {
		g.Go(func() error { return d.forward.Run(ctx) })
	}
	if d.kernelDNS != nil {
		g.Go(func() error { return d.kernelDNS.Run(ctx) })
	}
	g.Go(func() error { return d.keepLocal(ctx) })
	if r, ok := d.plane.(runner); ok {
		g.Go(func() error { return r.Run(ctx) })
	}
	d.log.Info("running", zap.Stringers("dns", d.dns.Addrs()), zap.Stringers("http", d.http.Addrs()))
	return errors.Join(g.Wait(), d.addrs.close(), d.close())
}

// pictureWait is how long the picture on the disk may take to be served, before
// DNS answers without.
const pictureWait = 5 * time.Second

// awaitPicture waits until what is on the disk, if there is anything, is served: a
// query that has waited in its socket for this daemon is not to hear that there is
// no picture yet.
func (d *daemon) awaitPicture(ctx context.Context) {
	if !d.kept.OnDisk() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pictureWait)
	defer cancel()
	next := d.agent.Turned()
	if d.agent.State() != nil {
		return
	}
	select {
	case <-next:
	case <-ctx.Done():
	}
}

func (d *daemon) close() error {
	if d.plane == nil {
		return nil
	}
	return d.plane.Close()
}

// view is the daemon's state as the HTTP interface shows it.
func (d *daemon) view() api.View {
	next := d.agent.Turned() // before the State, or a turn between the two would be missed
	s := d.agent.State()
	v := api.View{Status: func() api.Status { return d.status(s) }, Next: next}
	if s != nil {
		v.Snapshot, v.Table, v.Plan, v.Zone = s.Snapshot, s.Table, s.Plan, s.Zone
		v.Problems, v.Published = s.Problems, s.Published
		v.Explain = func(query string) any { return d.explain(s, query) }
	}
	return v
}
