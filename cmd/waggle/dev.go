package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"waggle/internal/devcluster"
)

func newDev(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev [flags] [FILE|FOLDER...]",
		Short: "Run a whole small cluster on this machine, and the daemon on it",
		Long: "Run an embedded one-process cluster that starts Marathon app definitions as\n" +
			"local processes, and the daemon that follows it as it would follow a real one.\n" +
			"As root VIPs work on the whole machine until Ctrl-C; otherwise DNS only.",
		Example: "  waggle dev examples/\n  waggle dev --dns.listen 127.0.0.1:8053 app.json",
	}
	flags := addConfigFlags(cmd)
	cluster := devcluster.DefaultConfig()
	agentAddr := cmd.Flags().String("agent-ip", cluster.AgentAddr.String(), "address the tasks are reached at")
	cmd.Flags().StringVar(&cluster.Listen, "cluster.listen", cluster.Listen, "address of the embedded masters and Marathon; each gets a free port")
	cmd.Flags().StringVar(&cluster.MarathonListen, "marathon.listen", cluster.MarathonListen, "address of the embedded Marathon")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := flags.read()
		if err != nil {
			return err
		}
		if cluster.AgentAddr, err = netip.ParseAddr(*agentAddr); err != nil {
			return &exitError{exitUsage, fmt.Errorf("--agent-ip: %w", err)}
		}
		return runDev(cmd.Context(), e, devDefaults(cfg, flags), cluster, args)
	}
	cmd.AddCommand(newHello())
	return cmd
}

// devDefaults fits the configuration to a machine that is nobody's node: ports
// that need no privileges and state of its own, unless a flag says otherwise.
func devDefaults(cfg fileConfig, flags *configFlags) fileConfig {
	if !flags.given("dns.listen") {
		cfg.DNS.Listen = []string{"127.0.0.1:8053"}
	}
	if !flags.given("http.socket") {
		cfg.HTTP.Socket = filepath.Join(devState(), "waggle.sock")
	}
	if !flags.given("state.dir") {
		cfg.State.Dir = "" // the cluster starts from nothing too
	}
	if !flags.given("http.listen") {
		cfg.HTTP.Listen = "127.0.0.1:0"
	}
	if !flags.given("log.level") {
		cfg.Log.Level = zap.WarnLevel
	}
	if !flags.given("lb.pin_dir") {
		cfg.LB.PinDir += "-dev"
	}
	return cfg
}

// devState is a folder that only we can write to.
func devState() string {
	if os.Geteuid() == 0 {
		return "/run/waggle-dev"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "waggle-dev")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("waggle-dev-%d", os.Geteuid()))
}

// runDev runs cluster and daemon until ctx ends and leaves nothing behind.
func runDev(ctx context.Context, e env, cfg fileConfig, cc devcluster.Config, files []string) error {
	log, _ := newLogger(cfg.Log, e.stderr)
	apps, err := devcluster.ReadApps(files)
	if len(apps) == 0 {
		return errors.Join(errors.New("no app to run"), err)
	}
	if err != nil {
		fmt.Fprintln(e.stderr, "waggle:", err) // and the others run
	}
	cluster, err := devcluster.New(cc, log.Named("cluster"))
	if err != nil {
		return err
	}
	d, err := openDevDaemon(cfg, cluster, log)
	if err != nil {
		return errors.Join(err, cluster.Close())
	}
	for _, app := range apps {
		if err := cluster.Deploy(app); err != nil {
			fmt.Fprintln(e.stderr, "waggle:", err)
		}
	}
	if cfg.HTTP.Socket != "" { // else `waggle app` has to be told
		where := marathonFile(cfg.HTTP.Socket)
		if err := os.WriteFile(where, []byte("http://"+cluster.MarathonAddr().String()+"\n"), 0o644); err != nil {
			fmt.Fprintln(e.stderr, "waggle:", err)
		}
		defer os.Remove(where)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return cluster.Run(gctx) })
	g.Go(func() error { return d.run(gctx) })
	g.Go(func() error { return (&announcement{e.stdout, cluster, d}).run(gctx) })
	return errors.Join(g.Wait(), leaveNothing(cfg, d.plane != nil))
}

func openDevDaemon(cfg fileConfig, cluster *devcluster.Cluster, log *zap.Logger) (*daemon, error) {
	// Whom a node follows, and its credentials, are none of the cluster's business.
	m := defaultMesosConfig()
	cfg.Mesos.Masters, cfg.Mesos.ZK, cfg.Mesos.HTTPS, cfg.Mesos.Auth, cfg.Mesos.TLS = nil, "", false, m.Auth, m.TLS
	for _, m := range cluster.Masters() {
		cfg.Mesos.Masters = append(cfg.Mesos.Masters, m.String())
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return openDaemon(cfg, log)
}

// leaveNothing removes what a daemon leaves for the next one.
func leaveNothing(cfg fileConfig, balanced bool) error {
	var errs []error
	if balanced {
		_, err := unload(cfg)
		errs = append(errs, err)
	}
	if filepath.Dir(cfg.HTTP.Socket) == devState() {
		errs = append(errs, os.RemoveAll(devState()))
	}
	return errors.Join(errs...)
}
