package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"waggle/api"
	"waggle/lb"
	"waggle/model"
)

// asker is a verb's connection to the running daemon.
type asker struct {
	socket string
	out    *output
}

func newAsker(cmd *cobra.Command) *asker {
	a := &asker{out: addOutputFlag(cmd)}
	cmd.Flags().StringVar(&a.socket, "socket", defaultFileConfig().HTTP.Socket, "Unix socket of the daemon")
	return a
}

// ask reads path into v and prints v as JSON, or leaves it to table.
func (a *asker) ask(cmd *cobra.Command, path string, v any, table func(io.Writer) error) error {
	if err := a.get(cmd, path, v); err != nil {
		return err
	}
	return a.print(cmd, v, table)
}

func (a *asker) get(cmd *cobra.Command, path string, v any) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), patience)
	defer cancel()
	return api.Client{Socket: a.socket}.Get(ctx, path, v)
}

func (a *asker) print(cmd *cobra.Command, v any, table func(io.Writer) error) error {
	if *a.out == "json" {
		return writeJSON(cmd.OutOrStdout(), v)
	}
	return table(cmd.OutOrStdout())
}

func newVIPs(env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "vips",
		Short:   "List the virtual IPs this node balances and their backends",
		Example: "  waggle vips\n  waggle vips --watch\n  waggle vips -o json",
		Args:    usageArgs(cobra.NoArgs),
	}
	a := newAsker(cmd)
	watch := cmd.Flags().BoolP("watch", "w", false, "go on, and show them again when they change")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *watch {
			return a.watchVIPs(cmd)
		}
		var vips []api.VIP
		return a.ask(cmd, "/v2/vips", &vips, func(w io.Writer) error { return vipTable(w, vips) })
	}
	return cmd
}

func vipTable(w io.Writer, vips []api.VIP) error {
	var rows [][]string
	for _, v := range vips {
		row := []string{hostPort(v.Address, v.Port), v.Protocol, strings.TrimSuffix(v.Name, ".")}
		options := strings.Join(v.Options, " ")
		if len(v.Backends) == 0 {
			rows = append(rows, append(row, "none", "", "", "", options))
		}
		for _, b := range v.Backends {
			rows = append(rows, append(row, hostPort(b.Address, b.Port), stateText(b), strconv.Itoa(int(b.Weight)), b.Task, options))
			row, options = []string{"", "", ""}, ""
		}
	}
	return writeTable(w, []string{"VIP", "PROTO", "NAME", "BACKEND", "STATE", "WEIGHT", "TASK", "OPTIONS"}, rows)
}

// stateText is the state of a backend, or that this node leaves it out.
func stateText(b api.Backend) string {
	if b.Ejected == nil {
		return b.State
	}
	return ejectionText(*b.Ejected)
}

func ejectionText(e api.Ejection) string {
	return fmt.Sprintf("ejected from %s to %s: %s", e.Since.Format(time.TimeOnly), e.Until.Format(time.TimeOnly), lb.Ejection(e).Reason())
}

func hostPort(a fmt.Stringer, port uint16) string {
	return net.JoinHostPort(a.String(), strconv.Itoa(int(port)))
}

func newRecords(env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "records [NAME]",
		Short:   "List the DNS records this node serves, all or those at and below NAME",
		Example: "  waggle records\n  waggle records memcached.marathon.mesos",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
	}
	a := newAsker(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var records []api.Record
		if err := a.get(cmd, "/v2/records", &records); err != nil {
			return err
		}
		if len(args) == 1 {
			records = recordsBelow(records, args[0])
		}
		return a.print(cmd, records, func(w io.Writer) error { return recordTable(w, records) })
	}
	return cmd
}

func recordsBelow(all []api.Record, name string) []api.Record {
	name = strings.ToLower(strings.TrimSuffix(name, ".")) + "."
	out := []api.Record{}
	for _, r := range all {
		if r.Name == name || strings.HasSuffix(r.Name, "."+name) {
			out = append(out, r)
		}
	}
	return out
}

func recordTable(w io.Writer, records []api.Record) error {
	rows := make([][]string, len(records))
	for i, r := range records {
		rows[i] = []string{r.Name, strconv.Itoa(int(r.TTL)), r.Type, r.Data}
	}
	return writeTable(w, []string{"NAME", "TTL", "TYPE", "DATA"}, rows)
}

func newStatus(env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Say whether this node is well and what is wrong",
		Long:    "Say whether this node is well and what is wrong.\n\nExit codes: 0 ready, 1 no daemon answers, 3 the daemon runs but is not ready.",
		Example: "  waggle status",
		Args:    usageArgs(cobra.NoArgs),
	}
	a := newAsker(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var st api.Status
		err := a.ask(cmd, "/v2/status", &st, func(w io.Writer) error {
			var problems []model.Problem
			if st.Counts.Problems > 0 {
				_ = a.get(cmd, "/v2/problems", &problems) // what is counted is shown all the same
			}
			return statusTable(w, st, problems, time.Now())
		})
		if err == nil && !st.Ready {
			return &exitError{exitNotReady, fmt.Errorf("not ready: %s", strings.Join(st.Reasons, "; "))}
		}
		return err
	}
	return cmd
}

func statusTable(w io.Writer, st api.Status, problems []model.Problem, now time.Time) error {
	source := "not connected"
	if st.Source.Connected {
		source = "following " + st.Source.Leader
	}
	if !st.Source.Published.IsZero() {
		source += fmt.Sprintf(", last change %s ago", now.Sub(st.Source.Published).Round(time.Second))
	}
	lines := [][2]string{
		{"waggle", verdict(w, st) + ", version " + st.Version},
		{"scheduler", source},
		{"balancer", st.Balancer.Kind + " (" + st.Balancer.Chosen + ")"},
		{"DNS", strings.Join(st.DNS, ", ")},
		{"HTTP", strings.Join(st.HTTP, ", ")},
		{"knows", fmt.Sprintf("%d apps, %d tasks, %d agents", st.Counts.Apps, st.Counts.Tasks, st.Counts.Agents)},
		{"serves", fmt.Sprintf("%d VIPs, %d names", st.Counts.VIPs, st.Counts.Names)},
		{"problems", strconv.Itoa(st.Counts.Problems)},
	}
	for _, l := range forwardLines(st.Forward) {
		lines = slices.Insert(lines, len(lines)-4, l)
	}
	if z := st.Source.ZooKeeper; z != nil {
		lines = slices.Insert(lines, 2, [2]string{"ZooKeeper", zooKeeperText(z, now)})
	}
	if m := st.Source.Marathon; m != nil {
		text := "following " + m.Host
		if !m.Connected {
			text = "not connected"
		}
		lines = slices.Insert(lines, 2, [2]string{"Marathon", text})
	}
	if f := st.Source.Files; f != nil {
		lines = slices.Insert(lines, 2, [2]string{"files", fmt.Sprintf("%d, read %s ago", f.Files, now.Sub(f.Read).Round(time.Second))})
	}
	lines = append(lines, problemLines(problems)...)
	lines = append(lines, balancerLines(st.Balancer)...)
	for _, r := range st.Reasons {
		lines = append(lines, [2]string{"!", paint(w, red, strings.ReplaceAll(r, "\n", "; "))})
	}
	for _, l := range lines {
		if _, err := fmt.Fprintf(w, "%-16s %s\n", l[0], l[1]); err != nil {
			return err
		}
	}
	return nil
}

// balancerLines tell who is left alone and who is left out.
func balancerLines(b api.Balancer) (lines [][2]string) {
	if len(b.Excluded) > 0 {
		lines = append(lines, [2]string{"left alone", strings.Join(b.Excluded, ", ")})
	}
	if len(b.Ejected) > 0 {
		lines = append(lines, [2]string{"ejected", fmt.Sprintf("%d backends", len(b.Ejected))})
	}
	for _, e := range b.Ejected[:min(len(b.Ejected), 10)] {
		lines = append(lines, [2]string{"", fmt.Sprintf("%s of %s/%s %s", e.Backend, e.VIP, e.Protocol, ejectionText(e.Ejection))})
	}
	return lines
}

// verdict is how the node is, in few words.
func verdict(w io.Writer, st api.Status) string {
	switch {
	case !st.Ready:
		return paint(w, red, "NOT READY")
	case len(st.Reasons) == 1:
		return paint(w, yellow, "ready, but one thing is wrong")
	case len(st.Reasons) > 1:
		return paint(w, yellow, fmt.Sprintf("ready, but %d things are wrong", len(st.Reasons)))
	}
	return paint(w, green, "ready")
}

// mostProblems is how many the status shows.
const mostProblems = 5

// problemLines are a line for each problem that there is, with how many tasks have
// it, and what is to be asked about one of them.
func problemLines(list []model.Problem) (lines [][2]string) {
	tasks := map[model.Problem][]string{}
	var kinds []model.Problem
	for _, p := range list {
		kind := p
		kind.Task = ""
		if tasks[kind] == nil {
			kinds = append(kinds, kind)
		}
		tasks[kind] = append(tasks[kind], p.Task)
	}
	for i, k := range kinds {
		if i == mostProblems {
			return append(lines, [2]string{"", fmt.Sprintf("and %d more: /v2/problems", len(kinds)-i)})
		}
		text := fmt.Sprintf("%s %q: %s", k.Field, k.Value, k.Error)
		if n := len(tasks[k]); n > 1 {
			text += fmt.Sprintf(" (%d times)", n)
		}
		lines = append(lines, [2]string{"", text})
		if task := tasks[k][0]; task != "" {
			lines = append(lines, [2]string{"", "  waggle explain " + task})
		}
	}
	return lines
}

// forwardLines are a line on each upstream and one on the cache.
func forwardLines(f *api.Forward) (lines [][2]string) {
	if f == nil {
		return nil
	}
	for _, u := range f.Upstreams {
		text := u.Upstream + " " + u.State
		if u.Latency > 0 {
			text += ", " + u.Latency.Round(10*time.Microsecond).String()
		}
		text += fmt.Sprintf(", %d of %d questions failed", u.Failures, u.Asked)
		if names := strings.Join(u.Zones, ", "); names != "." {
			text += ", for " + names
		}
		if u.Error != "" {
			text += ": " + u.Error
		}
		lines = append(lines, [2]string{"upstream", text})
	}
	c := f.Cache
	return append(lines, [2]string{"cache", fmt.Sprintf("%.0f %% of %d questions, %d answers, %d negative", 100*c.HitRatio, c.Questions, c.Answers, c.Negatives)})
}

// zooKeeperText is one line on how the election of masters is seen.
func zooKeeperText(z *api.ZooKeeper, now time.Time) string {
	since := now.Sub(z.Since).Round(time.Second)
	text := fmt.Sprintf("connected to %s for %s", z.Location, since)
	if !z.Connected {
		text = fmt.Sprintf("NOT CONNECTED to %s for %s", z.Location, since)
	}
	if z.Leader != "" {
		text += fmt.Sprintf(", leader %s, %d masters", z.Leader, z.Masters)
	}
	if z.Error != "" {
		text += ": " + strings.ReplaceAll(z.Error, "\n", "; ")
	}
	return text
}
