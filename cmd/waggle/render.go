package main

import (
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
	"waggle/watcher/mesos"
)

func newRender(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "render [flags] FILE|-",
		Short: "Print what would be served for a recorded scheduler document",
		Long: "Run the pure part of the pipeline over a recorded scheduler document and print\n" +
			"what would be served as one JSON object: tasks, vips, records, problems. Lists\n" +
			"are sorted, so equal input gives equal bytes.",
		Example: "  curl -s http://leader:5050/state | waggle render -\n  waggle render --config /etc/mesos-dns/config.json --format state state.json",
		Args:    usageArgs(cobra.ExactArgs(1)),
	}
	flags := addConfigFlags(cmd)
	nodeIP := cmd.Flags().String("node-ip", "", "address of the node to render for")
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
	resolver, err := newResolver(cfg.DNS.Listen)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	snap, err := mesos.Decode(ctx, in, f, resolver.Lookup)
	if err != nil {
		return nil, err
	}
	asAnswered(snap, cfg.Mesos.Masters)
	stages := cfg.agent()
	table := vip.Build(nil, snap, stages.VIP)
	zone := dns.Build(nil, snap, table, stages.DNS)
	return newDocument(snap, table, zone, stages), nil
}

// asAnswered completes a document as if one of the configured masters had
// answered it: a master is named for being configured, and a document that was
// recorded from none of them counts as an answer of the first.
func asAnswered(snap *model.Snapshot, masters []string) {
	for _, m := range masters {
		_, host, ok := strings.Cut(m, "://")
		if !ok {
			host = m
		}
		if a, err := netip.ParseAddrPort(host); err == nil {
			snap.Masters = append(snap.Masters, a)
		}
	}
	if len(snap.Masters) > 0 && !slices.Contains(snap.Masters, snap.Leader) {
		snap.Leader = snap.Masters[0]
	}
}

func newDocument(snap *model.Snapshot, table *vip.Table, zone *dns.Zone, stages agent.Config) *api.Document {
	return &api.Document{
		Tasks:    api.Tasks(snap),
		VIPs:     api.VIPs(table, vipZone(stages.DNS)),
		Records:  api.Records(zone),
		Problems: api.SortedProblems(append(snap.AllProblems(), table.Problems()...)),
	}
}
