package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"waggle/dns"
)

// difference is a question that two daemons answer differently.
type difference struct {
	Name   string   `json:"name"` // of a name, or of a VIP with its port
	Type   string   `json:"type"` // A, AAAA, SRV, or VIP
	Ours   []string `json:"ours"`
	Theirs []string `json:"theirs"`
}

// comparison is how two daemons compare.
type comparison struct {
	Names       int          `json:"names"` // that were asked for
	VIPs        int          `json:"vips"`  // that were compared; 0 where the other shows none
	Sources     []string     `json:"sources"`
	Differences []difference `json:"differences"`
}

// exitDiffers is what `waggle diff` ends with where answers differ.
const exitDiffers = 1

// differ compares the daemon of this machine with another.
type differ struct {
	ours, theirs netip.AddrPort
	ttl          bool
	progress     io.Writer
}

func newDiff(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff --against HOST[:PORT]",
		Short: "Compare the answers of this daemon with those of another",
		Long: "Compare the answers of this daemon with those of another: a waggle, a mesos-dns, or DC/OS' own. Both are asked by DNS for every name that either says it has:\n" +
			"this one over its socket, the other over HTTP (/v1/axfr, /v1/enumerate or /v1/records). VIPs are compared where the other shows them (/v1/vips).\n\n" +
			"Exit codes: 0 no difference, 1 differences, or nobody answers.",
		Example: "  waggle diff --against 10.0.0.7\n  waggle diff --against 127.0.0.1:5353 --http http://127.0.0.1:8123\n  waggle diff --against 198.51.100.1 --http http://127.0.0.1:62080 --http http://10.0.0.1:8123",
		Args:    usageArgs(cobra.NoArgs),
	}
	a := newAsker(cmd)
	against := cmd.Flags().String("against", "", "address[:port] of the other DNS server")
	server := cmd.Flags().String("server", "", "address[:port] to ask this daemon at; default where it listens first")
	bases := cmd.Flags().StringSlice("http", nil, "URLs of the other's HTTP interfaces; default ports 8123 and 62080 of HOST")
	ttl := cmd.Flags().Bool("ttl", false, "compare how long answers may be cached too")
	_ = cmd.MarkFlagRequired("against")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		theirs, err := parseServer(*against)
		if err != nil {
			return err
		}
		if len(*bases) == 0 {
			host := theirs.Addr().String()
			*bases = []string{"http://" + net.JoinHostPort(host, "8123"), "http://" + net.JoinHostPort(host, "62080")}
		}
		ours, err := a.server(cmd, *server)
		if err != nil {
			return err
		}
		d := &differ{ours: ours, theirs: theirs, ttl: *ttl, progress: e.stderr}
		c, err := d.compare(cmd, a, *bases)
		if err == nil {
			err = a.print(cmd, c, c.print)
		}
		if err == nil && len(c.Differences) > 0 {
			err = &exitError{exitDiffers, fmt.Errorf("%d differences", len(c.Differences))}
		}
		return err
	}
	return cmd
}

// compare asks both for everything that either has.
func (d *differ) compare(cmd *cobra.Command, a *asker, bases []string) (*comparison, error) {
	mine, err := ourNames(cmd, a)
	if err != nil {
		return nil, err
	}
	c := &comparison{Sources: []string{"records of this daemon"}, Differences: []difference{}}
	other := askOther(cmd.Context(), bases)
	c.Sources = append(c.Sources, other.sources...)
	for _, n := range other.names {
		mine[strings.ToLower(strings.TrimSuffix(n, "."))+"."] = true
	}
	if err := d.names(cmd.Context(), mine, c); err != nil {
		return nil, err
	}
	if other.vips != nil {
		ours, err := ourVIPs(cmd, a)
		if err != nil {
			return nil, err
		}
		c.VIPs = len(ours)
		c.Differences = append(c.Differences, compareVIPs(ours, other.vips)...)
	}
	return c, nil
}

// names asks both servers for names, several at a time, and adds to c what
// differs, sorted.
func (d *differ) names(ctx context.Context, names map[string]bool, c *comparison) error {
	c.Names = len(names)
	p := newProgress(d.progress, "names asked for", len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	var mu sync.Mutex // guards c.Differences
	for name := range names {
		g.Go(func() error {
			defer p.step()
			for _, kind := range [...]string{"A", "AAAA", "SRV"} {
				ours, err := d.answer(ctx, d.ours, name, kind)
				if err != nil {
					return err
				}
				theirs, err := d.answer(ctx, d.theirs, name, kind)
				if err != nil {
					return err
				}
				if !slices.Equal(ours, theirs) {
					mu.Lock()
					c.Differences = append(c.Differences, difference{name, kind, ours, theirs})
					mu.Unlock()
				}
			}
			return nil
		})
	}
	err := g.Wait()
	p.done()
	slices.SortFunc(c.Differences, func(a, b difference) int {
		return strings.Compare(a.Name+" "+a.Type, b.Name+" "+b.Type)
	})
	return err
}

// answer is what a server says, sorted: data of records, or why there are none.
// A query over UDP may be lost; only the third silence is an error.
func (d *differ) answer(ctx context.Context, server netip.AddrPort, name, kind string) ([]string, error) {
	var r dns.Reply
	var err error
	for range 3 {
		if r, err = dns.Ask(ctx, server, name, kind); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, rec := range r.Records {
		text := rec.Data
		if rec.Type != kind {
			text = rec.Type + " " + text
		}
		if d.ttl {
			text += fmt.Sprintf(" for %ds", rec.TTL)
		}
		out = append(out, text)
	}
	if len(out) == 0 {
		out = append(out, "none: "+r.Status)
	}
	slices.Sort(out)
	return out, nil
}

// print writes c for people.
func (c *comparison) print(w io.Writer) error {
	var rows [][]string
	for _, d := range c.Differences {
		for i := range max(len(d.Ours), len(d.Theirs)) {
			row := []string{"", "", "", ""}
			if i == 0 {
				row[0], row[1] = d.Name, d.Type
			}
			if i < len(d.Ours) {
				row[2] = d.Ours[i]
			}
			if i < len(d.Theirs) {
				row[3] = d.Theirs[i]
			}
			rows = append(rows, row)
		}
	}
	var err error
	if len(rows) > 0 {
		err = writeTable(w, []string{"NAME", "TYPE", "OURS", "THEIRS"}, rows)
	}
	_, last := fmt.Fprintf(w, "%d names and %d VIPs compared (%s), %d differences\n", c.Names, c.VIPs, strings.Join(c.Sources, ", "), len(c.Differences))
	return errors.Join(err, last)
}

// progress tells on a terminal, or once in a while, how far something has come
// that takes more than a second.
type progress struct {
	mu   sync.Mutex // guards the following
	w    io.Writer
	what string
	n    int
	of   int
	next time.Time
	told bool
}

func newProgress(w io.Writer, what string, of int) *progress {
	return &progress{w: w, what: what, of: of, next: time.Now().Add(time.Second)}
}

// step counts one more.
func (p *progress) step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	if now := time.Now(); now.After(p.next) {
		p.next, p.told = now.Add(time.Second), true
		fmt.Fprintf(p.w, "%s%d of %d %s", lineStart(p.w), p.n, p.of, p.what)
		if !isTerminal(p.w) {
			fmt.Fprintln(p.w)
		}
	}
}

// done ends the line.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told && isTerminal(p.w) {
		fmt.Fprintln(p.w)
	}
}
