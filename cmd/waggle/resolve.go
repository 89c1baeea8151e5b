package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"waggle/api"
	"waggle/dns"
)

// resolved is what the server said to one question.
type resolved struct {
	Server        string       `json:"server"`
	Name          string       `json:"name"`
	Type          string       `json:"type"`
	Status        string       `json:"status"` // NOERROR, NXDOMAIN and so on
	Authoritative bool         `json:"authoritative"`
	Milliseconds  float64      `json:"milliseconds"`
	Records       []api.Record `json:"records"`
}

func newResolve(env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resolve NAME [TYPE...]",
		Short: "Ask the running server for a name, as a client would",
		Long: "Ask the running server for a name, as a client would, by DNS. Without a TYPE it is asked for A and AAAA, and for SRV where NAME starts with _.\n\n" +
			"Exit codes: 0 there are records, 1 there are none or nobody answers.",
		Example: "  waggle resolve memcached.marathon.mesos\n  waggle resolve _memcached._tcp.marathon.mesos SRV\n  waggle resolve --server 10.0.0.7 leader.mesos A",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
	}
	a := newAsker(cmd)
	server := cmd.Flags().String("server", "", "address[:port] of another server to ask; default the daemon behind --socket")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		at, err := a.server(cmd, *server)
		if err != nil {
			return err
		}
		list, err := resolve(cmd.Context(), at, args[0], args[1:])
		if err == nil {
			err = a.print(cmd, list, func(w io.Writer) error { return resolvedTable(w, list) })
		}
		if err != nil {
			return err
		}
		for _, r := range list {
			if len(r.Records) > 0 {
				return nil
			}
		}
		return fmt.Errorf("%s: no records (%s); `waggle explain %s` says why", args[0], list[0].Status, args[0])
	}
	return cmd
}

// server returns where text, or else the daemon, answers DNS.
func (a *asker) server(cmd *cobra.Command, text string) (netip.AddrPort, error) {
	if text != "" {
		return parseServer(text)
	}
	var st api.Status
	if err := a.get(cmd, "/v2/status", &st); err != nil {
		return netip.AddrPort{}, err
	}
	if len(st.DNS) == 0 {
		return netip.AddrPort{}, errors.New("the daemon listens for DNS nowhere")
	}
	ap, err := netip.ParseAddrPort(st.DNS[0])
	return reachable(ap), err
}

// parseServer reads address or address:port; the port is else that of DNS.
func parseServer(text string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap, nil
	}
	a, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		return netip.AddrPort{}, &exitError{exitUsage, fmt.Errorf("%q is neither an address nor address:port", text)}
	}
	return netip.AddrPortFrom(a, dnsPort), nil
}

// resolve asks one question for each type.
func resolve(ctx context.Context, server netip.AddrPort, name string, types []string) ([]resolved, error) {
	if len(types) == 0 {
		types = []string{"A", "AAAA"}
		if strings.HasPrefix(name, "_") {
			types = []string{"SRV"}
		}
	}
	var out []resolved
	for _, kind := range types {
		kind = strings.ToUpper(kind)
		r, err := dns.Ask(ctx, server, name, kind)
		if err != nil {
			return nil, err
		}
		one := resolved{
			Server: server.String(), Name: name, Type: kind, Status: r.Status, Authoritative: r.Authoritative,
			Milliseconds: float64(r.Took) / float64(time.Millisecond), Records: []api.Record{},
		}
		for _, rec := range r.Records {
			one.Records = append(one.Records, api.Record{Name: rec.Name, Type: rec.Type, TTL: rec.TTL, Data: rec.Data})
		}
		out = append(out, one)
	}
	return out, nil
}

func resolvedTable(w io.Writer, list []resolved) error {
	var rows [][]string
	for _, r := range list {
		whose := "ours"
		if !r.Authoritative {
			whose = "forwarded"
		}
		for _, rec := range r.Records {
			rows = append(rows, []string{rec.Name, strconv.Itoa(int(rec.TTL)), rec.Type, rec.Data, whose})
		}
		if len(r.Records) == 0 {
			rows = append(rows, []string{r.Name, "", r.Type, "none: " + r.Status, whose})
		}
	}
	return writeTable(w, []string{"NAME", "TTL", "TYPE", "DATA", "WHOSE"}, rows)
}
