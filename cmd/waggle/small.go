package main

import (
	"cmp"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion(env) *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Example: "  waggle version\n  waggle version -o json", Args: usageArgs(cobra.NoArgs)}
	out := addOutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := readVersion()
		if *out == "json" {
			return writeJSON(cmd.OutOrStdout(), v)
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "waggle %s (%s)\n", v.Version, v.Go)
		return err
	}
	return cmd
}

type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}

// packaged is the version of the package that this program comes in, which
// scripts/packages has the linker set; empty for all others.
var packaged string

// readVersion takes the version from the package or else from the build: a module
// version, or the commit with "+dirty" behind it where the tree had changes.
func readVersion() versionInfo {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return versionInfo{Version: "unknown"}
	}
	return versionInfo{Version: cmp.Or(packaged, b.Main.Version), Go: b.GoVersion}
}

func newCheckConfig(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check-config",
		Short: "Say what is wrong with a configuration",
		Long: "Say what is wrong with a configuration, or print every key with its value.\n\nWith --from, say what each setting of a mesos-dns config.json, or of DC/OS' dcos-dns.json\n" +
			"or environment file, became, or why it has no meaning here.",
		Example: "  waggle check-config --config waggle.yaml\n  waggle check-config --config /etc/mesos-dns/config.json -o json\n  waggle check-config --from /etc/mesos-dns/config.json\n  waggle check-config --from /opt/mesosphere/etc/dcos-dns.json --yaml >waggle.yaml",
		Args:    usageArgs(cobra.NoArgs),
	}
	flags, out := addConfigFlags(cmd), addOutputFlag(cmd)
	from := cmd.Flags().String("from", "", "configuration of mesos-dns or DC/OS to tell about")
	quiet := cmd.Flags().BoolP("quiet", "q", false, "print nothing but what is wrong")
	asYAML := cmd.Flags().Bool("yaml", false, "print what differs from the defaults as a configuration file, with its secrets")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var m migration
		var cfg fileConfig
		var err error
		if *from != "" {
			m, cfg, err = flags.migrate(*from)
		} else {
			cfg, err = flags.load()
		}
		if err == nil {
			warn := func(err error) { fmt.Fprintln(e.stderr, "warning:", err) }
			if err := cfg.follows(); err != nil {
				warn(fmt.Errorf("%w, so waggle run needs flags that do", err))
			}
			err = cfg.inspect(warn)
		}
		switch {
		case *quiet:
			return err
		case *asYAML && err == nil:
			return flags.writeYAML(cmd.OutOrStdout(), cfg)
		case *from != "" && m.Kind != "" && *out == "json":
			return errors.Join(writeJSON(cmd.OutOrStdout(), m), err)
		case *from != "" && m.Kind != "":
			return errors.Join(m.print(cmd.OutOrStdout()), err)
		}
		if err != nil {
			return err
		}
		if *out == "json" {
			return writeJSON(cmd.OutOrStdout(), flags.values(cfg))
		}
		var rows [][]string
		for _, v := range flags.values(cfg) {
			rows = append(rows, []string{v.Key, v.Value})
		}
		return writeTable(cmd.OutOrStdout(), []string{"KEY", "VALUE"}, rows)
	}
	return cmd
}

func newUnload(env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "unload",
		Short:   "Remove all kernel state; VIPs stop working on this node",
		Long:    "Remove all kernel state.\n\nA stopped daemon leaves the kernel balancing. This takes it away: programs, links, maps and routes. Connections that are established go on.",
		Example: "  waggle unload",
		Args:    usageArgs(cobra.NoArgs),
	}
	out := addOutputFlag(cmd)
	flags := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := flags.load()
		if err != nil {
			return err
		}
		removed, err := unload(cfg)
		if *out == "json" {
			return errors.Join(err, writeJSON(cmd.OutOrStdout(), append([]string{}, removed...)))
		}
		for _, r := range removed {
			fmt.Fprintln(cmd.OutOrStdout(), "removed", r)
		}
		if len(removed) == 0 && err == nil {
			fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove")
		}
		return err
	}
	return cmd
}
