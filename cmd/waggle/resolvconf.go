package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"waggle/internal/hostnet"
)

func newResolvConf(env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resolv-conf",
		Short: "Print the commands that make this machine ask waggle for names",
		Long: "Print a shell script that makes this machine's programs ask waggle for names, or with --undo one that takes\n" +
			"it back, for whatever manages /etc/resolv.conf here: systemd-resolved, resolvconf, openresolv, or nobody. It changes nothing itself.",
		Example: "  waggle resolv-conf            # look at it\n  waggle resolv-conf | sh       # do it\n  waggle resolv-conf --undo | sh",
		Args:    usageArgs(cobra.NoArgs),
	}
	undo := cmd.Flags().Bool("undo", false, "print the way back")
	flags := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := flags.load()
		if err != nil {
			return err
		}
		server, err := resolverAddr(cfg.DNS.addrPorts(ignore))
		if err != nil {
			return &exitError{exitUsage, err}
		}
		target, _ := os.Readlink(hostnet.ResolvConf) // a file is no link
		_, err = os.Stat("/etc/resolvconf.conf")
		kind := whoManages(target, err == nil)
		steps := kind.do
		if *undo {
			steps = kind.undo
		}
		domains := "~" + cfg.DNS.Domain
		if cfg.DNS.DCOSDomain != "" {
			domains += " ~" + cfg.DNS.DCOSDomain
		}
		text := "# " + kind.about + "\n" + steps
		_, err = strings.NewReplacer("SERVER", server.String(), "DOMAINS", domains).WriteString(cmd.OutOrStdout(), text)
		return err
	}
	return cmd
}

// resolverAddr is the address for a resolv.conf, which cannot say a port.
func resolverAddr(listen []netip.AddrPort) (netip.Addr, error) {
	for _, ap := range listen {
		if ap.Port() == dnsPort {
			return reachable(ap).Addr(), nil
		}
	}
	return netip.Addr{}, errors.New("dns.listen: resolv.conf can name servers at port 53 only, and waggle listens on none")
}

// resolvManager is what keeps /etc/resolv.conf, and how it is told of a server.
type resolvManager struct {
	about    string
	do, undo string // shell commands
}

// whoManages says what keeps /etc/resolv.conf, by what it is a link to, if it is
// one, and whether openresolv is configured.
func whoManages(link string, openresolv bool) resolvManager {
	switch {
	case strings.Contains(link, "systemd/resolve"):
		return resolvManager{
			about: "systemd-resolved: it asks waggle for the cluster's names, and others for the rest.",
			do: "mkdir -p /etc/systemd/resolved.conf.d\n" +
				"printf '[Resolve]\\nDNS=SERVER\\nDomains=DOMAINS\\n' >/etc/systemd/resolved.conf.d/waggle.conf\n" +
				"systemctl restart systemd-resolved\n",
			undo: "rm -f /etc/systemd/resolved.conf.d/waggle.conf\nsystemctl restart systemd-resolved\n",
		}
	case strings.Contains(link, "resolvconf/resolv.conf"):
		// As an interface (-a) it would be forgotten at the next boot, and the list
		// would end with it: a loopback address is the last one by default.
		return resolvManager{
			about: "resolvconf: waggle comes first, and who was there is asked while it is away.",
			do:    "echo 'nameserver SERVER' >>/etc/resolvconf/resolv.conf.d/head\nresolvconf -u\n",
			undo:  "sed -i '/^nameserver SERVER$/d' /etc/resolvconf/resolv.conf.d/head\nresolvconf -u\n",
		}
	case openresolv && link == "":
		return resolvManager{
			about: "openresolv: waggle comes first, and who was there is asked while it is away.",
			do:    "echo 'name_servers=SERVER resolv_conf_local_only=NO' >>/etc/resolvconf.conf\nresolvconf -u\n",
			undo:  "sed -i '/^name_servers=SERVER resolv_conf_local_only=NO$/d' /etc/resolvconf.conf\nresolvconf -u\n",
		}
	case link != "":
		return resolvManager{
			about: fmt.Sprintf("/etc/resolv.conf is a link to %s, which something else writes: have that name SERVER first.", link),
		}
	}
	return resolvManager{
		about: "/etc/resolv.conf is a plain file: waggle comes first, and who was there is asked while it is away.",
		do: "cp -p /etc/resolv.conf /etc/resolv.conf.before-waggle\n" +
			"{ echo 'nameserver SERVER'; grep -v '^nameserver SERVER$' /etc/resolv.conf.before-waggle; } >/etc/resolv.conf.new\n" +
			"chmod 644 /etc/resolv.conf.new\n" +
			"mv /etc/resolv.conf.new /etc/resolv.conf\n",
		undo: "mv /etc/resolv.conf.before-waggle /etc/resolv.conf\n",
	}
}
