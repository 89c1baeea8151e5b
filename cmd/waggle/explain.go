package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"waggle/explain"
	"waggle/internal/agent"
	"waggle/vip"
	"waggle/watcher/mesos"
)

func newExplain(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain TASK|NAME|VIP",
		Short: "Say why a task, a name or a VIP is served, or is not",
		Long: "Say which object a task (by id, or its app by name), a DNS name or a VIP (address,\n" +
			"name or label) comes from, which rule decided, and what is missing. Lines that\n" +
			"keep something from being served start with an exclamation mark.\n\n" +
			"It asks the running daemon or, with --file, looks at a recorded scheduler\n" +
			"document as `waggle render` does.",
		Example: "  waggle explain memcached\n  waggle explain memcached.marathon.mesos\n  waggle explain 11.1.2.3:11211\n  waggle explain --file state.json /memcached:11211",
		Args:    usageArgs(cobra.ExactArgs(1)),
	}
	flags, a := addConfigFlags(cmd), newAsker(cmd)
	file := cmd.Flags().String("file", "", "recorded scheduler document to look at instead of the daemon, - for standard input")
	format := cmd.Flags().String("format", "auto", "form of --file: "+strings.Join(mesos.Formats(), ", "))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var answer explain.Answer
		var err error
		if *file == "" {
			err = a.get(cmd, "/v2/explain?q="+url.QueryEscape(args[0]), &answer)
		} else {
			answer, err = explainFile(cmd.Context(), e, flags, *file, *format, args[0])
		}
		if err != nil {
			return err
		}
		if err := a.print(cmd, answer, func(w io.Writer) error { return explainText(w, answer) }); err != nil {
			return err
		}
		if !answer.Found {
			return fmt.Errorf("explain: there is no %q", answer.Query)
		}
		return nil
	}
	return cmd
}

func explainFile(ctx context.Context, e env, flags *configFlags, file, format, query string) (explain.Answer, error) {
	cfg, err := flags.load()
	if err != nil {
		return explain.Answer{}, err
	}
	f, err := mesos.ParseFormat(format)
	if err != nil {
		return explain.Answer{}, &exitError{exitUsage, fmt.Errorf("--format: %w", err)}
	}
	in, err := openInput(e, file)
	if err != nil {
		return explain.Answer{}, err
	}
	defer in.Close()
	s, err := recorded(ctx, cfg, in, f)
	if err != nil {
		return explain.Answer{}, fmt.Errorf("explain %s: %w", file, err)
	}
	s.Applied = s.Table
	return explain.Ask(explainWorld(cfg.anywhere(), s), query), nil
}

func explainWorld(stages agent.Config, s *agent.State) explain.World {
	return explain.World{
		Snapshot: s.Snapshot, Table: s.Table, Applied: s.Applied, Plan: s.Plan, Zone: s.Zone, Problems: s.Problems(),
		VIP: stages.VIP, VIPZone: vipZone(stages.DNS),
	}
}

// explain answers a query about what the daemon serves after the turn that
// made s.
func (d *daemon) explain(s *agent.State, query string) any {
	w := explainWorld(d.cfg.agent(), s)
	w.Unbalanced = func(f vip.Frontend) string {
		for _, e := range slices.Concat(s.Unsupported, s.Failed) {
			if e.Frontend == f {
				return e.Err.Error()
			}
		}
		switch {
		case d.plane == nil:
			return d.noLB.Error()
		case s.Err != nil:
			return s.Err.Error()
		}
		return "no reason is known"
	}
	return explain.Ask(w, query)
}

// explainText prints an answer for people.
func explainText(w io.Writer, a explain.Answer) error {
	var b strings.Builder
	for i, s := range a.Subjects {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s %s\n", s.Kind, s.Name)
		for _, f := range s.Facts {
			mark := ' '
			if f.Missing {
				mark = '!'
			}
			fmt.Fprintf(&b, "%c %-18s %s\n", mark, f.Rule, f.Text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
