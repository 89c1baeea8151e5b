package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate go run . generate configuration ../../docs/configuration.md

// newGenerate is the hidden verb that writes what is made from this program:
// documents for packages and for docs/.
func newGenerate(env) *cobra.Command {
	cmd := &cobra.Command{Use: "generate", Short: "Write documents made from this program", Hidden: true, Args: usageArgs(cobra.NoArgs)}
	cmd.AddCommand(
		&cobra.Command{
			Use: "man FOLDER", Short: "Write one manual page for each command", Args: usageArgs(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, args []string) error { return manTree(cmd.Root(), args[0]) },
		},
		&cobra.Command{
			Use: "configuration FILE", Short: "Write the reference of all keys", Args: usageArgs(cobra.ExactArgs(1)),
			RunE: func(_ *cobra.Command, args []string) error {
				return os.WriteFile(args[0], []byte(configReference()), 0o644)
			},
		},
	)
	return cmd
}

// manTree writes the manual page of cmd and of all below it into folder.
func manTree(cmd *cobra.Command, folder string) error {
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	f, err := os.Create(filepath.Join(folder, name+".1"))
	if err != nil {
		return fmt.Errorf("write manual: %w", err)
	}
	manPage(f, cmd)
	if err := f.Close(); err != nil {
		return fmt.Errorf("write manual: %w", err)
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			if err := manTree(sub, folder); err != nil {
				return err
			}
		}
	}
	return nil
}

// manPage writes one page in the macros of man(7). What cannot be written is
// told by closing the file.
func manPage(w io.Writer, cmd *cobra.Command) {
	section := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, ".SH %s\n%s\n", name, text)
		}
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	fmt.Fprintf(w, ".TH %s 1 \"\" waggle \"waggle manual\"\n", roff(strings.ToUpper(name)))
	section("NAME", roff(name)+` \- `+roff(cmd.Short))
	section("SYNOPSIS", ".B "+roff(cmd.UseLine()))
	section("DESCRIPTION", roff(strings.ReplaceAll(cmp.Or(cmd.Long, cmd.Short+"."), "\n\n", "\n.PP\n")))
	if cmd.Example != "" {
		section("EXAMPLES", ".nf\n"+roff(cmd.Example)+"\n.fi")
	}
	var flags, verbs strings.Builder
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		short := ""
		if f.Shorthand != "" {
			short = `\-` + f.Shorthand + ", "
		}
		fmt.Fprintf(&flags, ".TP\n.B %s\\-\\-%s\n%s", short, roff(f.Name), roff(f.Usage))
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(&flags, " (default %s)", roff(f.DefValue))
		}
		flags.WriteString("\n")
	})
	section("OPTIONS", strings.TrimSuffix(flags.String(), "\n"))
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			fmt.Fprintf(&verbs, ".TP\n.BR %s (1)\n%s\n", roff(name+"-"+sub.Name()), roff(sub.Short))
		}
	}
	section("COMMANDS", strings.TrimSuffix(verbs.String(), "\n"))
	if cmd.HasParent() {
		section("SEE ALSO", ".BR waggle (1)")
	}
}

// roff escapes text: a backslash, a hyphen that is to be copied, and a line that
// would be a macro.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if l != ".PP" && (strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'")) {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

// configReference is docs/configuration.md.
func configReference() string {
	flags := addConfigFlags(&cobra.Command{})
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Made from the program by "make generate". -->

One YAML file, ` + "`" + defaultConfigFile + "`" + ` or what ` + "`--config`" + ` names. Every key is also a flag of
` + "`waggle run`" + `, named by its path: ` + "`--dns.listen`" + ` for ` + "`listen`" + ` below ` + "`dns`" + `. A flag beats the
file. Keys that do not exist are errors. ` + "`waggle check-config`" + ` says what is wrong, or prints
every key with its value. A ` + "`config.json`" + ` of mesos-dns and the files of DC/OS are taken too
([migrate.md](migrate.md)).

Keys marked *live* are taken by a running daemon at ` + "`systemctl reload waggle`" + ` (SIGHUP); the
others wait for a restart, and ` + "`waggle status`" + ` names them until then
([why](decisions/0014-reload.md)).
`)
	group := ""
	for i, kv := range flags.values(defaultFileConfig()) {
		k := flags.keys[i]
		if g, _, _ := strings.Cut(k.name, "."); g != group {
			group = g
			fmt.Fprintf(&b, "\n## %s\n\n| key | kind | default | live | |\n| --- | --- | --- | --- | --- |\n", group)
		}
		mark := ""
		if live(k.name) {
			mark = "live"
		}
		value := ""
		switch {
		case k.name == "dns.readers": // the only one that depends on the machine
			value = "one a CPU, at most 8"
		case kv.Value != "":
			value = "`" + kv.Value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.name, k.Type(), value, mark, strings.ReplaceAll(k.help, "|", `\|`))
	}
	return b.String()
}
