package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commands returns the command lines of waggle in the code of a document: the
// arguments of each, as a shell would split them.
func commands(text string) (out [][]string) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "    ") && !strings.HasPrefix(line, "\t") {
			continue
		}
		line = strings.TrimPrefix(strings.TrimSpace(line), "bin/")
		for _, end := range []string{" #", " |", " >"} {
			line, _, _ = strings.Cut(line, end)
		}
		if words := strings.Fields(line); len(words) > 1 && words[0] == "waggle" {
			out = append(out, words[1:])
		}
	}
	return out
}

// parses reports whether a command line is one that the program takes.
func parses(args []string) error {
	cmd, rest, err := newRoot(env{}).Find(args)
	if err != nil {
		return err
	}
	if !cmd.Runnable() {
		return errors.New("this is no verb")
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if cmd.Args == nil {
		return nil
	}
	return cmd.Args(cmd, cmd.Flags().Args())
}

// TestCommandsInTheDocumentsAndExamplesAreTaken checks verbs, flags and arguments of
// each command line that is written anywhere, and runs those that need neither a
// cluster nor a daemon.
func TestCommandsInTheDocumentsAndExamplesAreTaken(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, commands(string(text))...)
	}
	if len(all) < 15 {
		t.Errorf("only %d commands found", len(all))
	}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "completion" || c.Name() == "help" {
			return // for no person, or cobra's own
		}
		found := commands("  " + strings.ReplaceAll(c.Example, "\n", "\n  "))
		if c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		all = append(all, found...)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	for _, c := range newRoot(env{}).Commands() {
		visit(c)
	}
	alone := map[string]bool{"version": true, "completion": true, "resolv-conf": true}
	for _, args := range all {
		if err := parses(args); err != nil {
			t.Errorf("waggle %s: %v", strings.Join(args, " "), err)
		}
		if !alone[args[0]] {
			continue
		}
		var out strings.Builder
		if code := run(context.Background(), env{args: args, stdout: &out, stderr: &out}); code != exitOK {
			t.Errorf("waggle %s: exit %d: %s", strings.Join(args, " "), code, &out)
		}
	}
}

func TestTheConfigurationReferenceIsUpToDate(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil || string(text) != configReference() {
		t.Errorf("docs/configuration.md is not what `make generate` writes: %v", err)
	}
}

func TestShellCompletionIsThere(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, out, errs := verb(t, "completion", shell)
		if code != exitOK || !strings.Contains(out, "waggle") {
			t.Errorf("%s: exit %d, %s", shell, code, errs)
		}
	}
	code, out, _ := verb(t, "__complete", "status", "-o", "")
	if code != exitOK || !strings.Contains(out, "table\njson") {
		t.Errorf("values of -o: exit %d, %s", code, out)
	}
	if _, out, _ = verb(t, "__complete", "app", ""); !strings.Contains(out, "deploy") {
		t.Errorf("verbs of app: %s", out)
	}
}

func TestManualPagesAreMadeForEveryVerb(t *testing.T) {
	dir := t.TempDir()
	if code, _, errs := verb(t, "generate", "man", dir); code != exitOK {
		t.Fatalf("exit %d: %s", code, errs)
	}
	text, err := os.ReadFile(filepath.Join(dir, "waggle-check-config.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH WAGGLE\\-CHECK\\-CONFIG 1", ".SH EXAMPLES", ".B \\-\\-from", ".B \\-\\-dns.ttl"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s", want)
		}
	}
	if pages, _ := filepath.Glob(filepath.Join(dir, "*.1")); len(pages) < 15 {
		t.Errorf("%d pages", len(pages))
	}
}
