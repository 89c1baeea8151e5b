package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"waggle/api"
	"waggle/dns"
	"waggle/internal/agent"
	"waggle/model"
	"waggle/vip"
	"waggle/watcher"
	"waggle/watcher/marathon"
	"waggle/watcher/mesos"
)

func newRender(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "render [flags] FILE|-",
		Short: "Print what would be served for a recorded scheduler document",
		Long: "Run the pure part of the pipeline over a recorded scheduler document and print\n" +
			"what would be served as one JSON object: tasks, vips, records, problems. Lists\n" +
			"are sorted, so equal input gives equal bytes.",
		Example: "  curl -s http://leader:5050/state | waggle render -\n  curl -s 'http://marathon:8080/v2/apps?embed=apps.tasks' | waggle render -\n  waggle render --config /etc/mesos-dns/config.json --format state state.json",
		Args:    usageArgs(cobra.ExactArgs(1)),
	}
	flags := addConfigFlags(cmd)
	nodeIP := cmd.Flags().String("node-ip", "", "address of the node to render for: its name is thisnode")
	format := cmd.Flags().String("format", "auto", "form of FILE: "+strings.Join(mesos.Formats(), ", "))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := flags.load()
		if err != nil {
			return err
		}
		if *nodeIP != "" {
			if _, err := netip.ParseAddr(*nodeIP); err != nil {
				return &exitError{exitUsage, fmt.Errorf("--node-ip: %w", err)}
			}
			cfg.LB.Node = []string{*nodeIP}
		}
		f, err := mesos.ParseFormat(*format)
		if err != nil {
			return &exitError{exitUsage, fmt.Errorf("--format: %w", err)}
		}
		in, err := openInput(e, args[0])
		if err != nil {
			return err
		}
		defer in.Close()
		doc, err := render(cmd.Context(), cfg, in, f)
		if err != nil {
			return fmt.Errorf("render %s: %w", args[0], err)
		}
		return writeJSON(cmd.OutOrStdout(), doc)
	}
	return cmd
}

func openInput(e env, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(e.stdin), nil
	}
	return os.Open(name)
}

// render runs the pure part of the pipeline over one document.
func render(ctx context.Context, cfg fileConfig, in io.Reader, f mesos.Format) (*api.Document, error) {
	s, err := recorded(ctx, cfg, in, f)
	if err != nil {
		return nil, err
	}
	return &api.Document{
		Tasks:    api.Tasks(s.Snapshot),
		VIPs:     api.VIPs(s.Table, nil, vipZone(cfg.agent().DNS)),
		Records:  api.Records(s.Zone),
		Problems: api.SortedProblems(s.Problems()),
	}, nil
}

// recorded returns what the pure part of the pipeline makes of one document.
func recorded(ctx context.Context, cfg fileConfig, in io.Reader, f mesos.Format) (*agent.State, error) {
	resolver, err := newResolver(cfg.DNS.addrPorts(ignore))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	snap, err := decode(ctx, in, f, resolver.Lookup)
	if err != nil {
		return nil, err
	}
	asAnswered(snap, cfg.Mesos.source(nil, nil).Addrs())
	stages := cfg.anywhere()
	s := &agent.State{Snapshot: snap, Table: vip.Build(nil, snap, stages.VIP)}
	s.Zone = dns.Build(nil, snap, s.Table, stages.DNS)
	return s, nil
}

// decode reads a document of either scheduler.
func decode(ctx context.Context, in io.Reader, f mesos.Format, lookup watcher.Lookup) (*model.Snapshot, error) {
	if f == mesos.Auto {
		text, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("read document: %w", err)
		}
		if f, err = mesos.Detect(text); err != nil {
			return nil, err
		}
		in = bytes.NewReader(text)
	}
	if f == mesos.Marathon {
		return marathon.Decode(ctx, in, lookup)
	}
	return mesos.Decode(ctx, in, f, lookup)
}

// anywhere is agent for what does not depend on where it is looked at, but for
// the name of a node that is given: its short cuts are its own.
func (c fileConfig) anywhere() agent.Config {
	stages := c.agent()
	stages.VIP.Node = nil
	if len(c.LB.Node) == 0 {
		stages.DNS.NodeAddrs = nil
	}
	return stages
}

// asAnswered completes a document as if one of the configured masters had
// answered it: a master is named for being configured, and a document that was
// recorded from none of them counts as an answer of the first.
func asAnswered(snap *model.Snapshot, masters []netip.AddrPort) {
	snap.Masters = masters
	if len(masters) > 0 && !slices.Contains(masters, snap.Leader) {
		snap.Leader = masters[0]
	}
}
