package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"waggle/api"
)

// rollout is what the verbs of `waggle app` have in common: a Marathon, and the
// daemon of this machine, which says when VIPs answer.
type rollout struct {
	e        env
	marathon string
	socket   string
	wait     time.Duration
}

func newApp(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "app",
		Short: "Deploy, scale, remove and list apps of a Marathon",
		Long: "Deploy, scale, remove and list apps of a Marathon, and show how far that has come until the app's VIPs\n" +
			"answer on this machine. Without --marathon it is that of `waggle dev`, if one runs.",
		Example: "  waggle app deploy examples/hello.json\n  waggle app scale /hello 5\n  waggle app --marathon http://10.0.0.1:8080 list\n  waggle app remove /hello",
	}
	r := &rollout{e: e}
	cmd.PersistentFlags().StringVar(&r.marathon, "marathon", "", "URL of Marathon; default $MARATHON_URL, or that of waggle dev")
	cmd.PersistentFlags().StringVar(&r.socket, "socket", "", "Unix socket of the daemon that is asked about VIPs; default that of waggle dev if one runs, else "+defaultFileConfig().HTTP.Socket)
	cmd.PersistentFlags().DurationVar(&r.wait, "wait", 5*time.Minute, "how long to wait until all is well; 0s does not wait")
	cmd.AddCommand(
		&cobra.Command{
			Use: "deploy FILE|-", Short: "Start an app, or change it to what a file says", Args: usageArgs(cobra.ExactArgs(1)),
			Example: "  waggle app deploy examples/memcached.json\n  jq '.instances = 2' app.json | waggle app deploy -",
			RunE:    func(cmd *cobra.Command, args []string) error { return r.deploy(cmd.Context(), args[0]) },
		},
		&cobra.Command{
			Use: "scale ID INSTANCES", Short: "Change how many tasks an app has", Args: usageArgs(cobra.ExactArgs(2)),
			Example: "  waggle app scale /hello 5",
			RunE:    func(cmd *cobra.Command, args []string) error { return r.scale(cmd.Context(), args[0], args[1]) },
		},
		&cobra.Command{
			Use: "remove ID", Short: "Stop all tasks of an app and forget it", Args: usageArgs(cobra.ExactArgs(1)),
			Example: "  waggle app remove /hello",
			RunE:    func(cmd *cobra.Command, args []string) error { return r.remove(cmd.Context(), args[0]) },
		},
		r.newList(),
	)
	return cmd
}

func (r *rollout) newList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the apps", Args: usageArgs(cobra.NoArgs),
		Example: "  waggle app list\n  waggle app list -o json",
	}
	out := addOutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		m, err := r.at()
		if err != nil {
			return err
		}
		var raw struct {
			Apps []json.RawMessage `json:"apps"`
		}
		if err := m.call(cmd.Context(), http.MethodGet, "/v2/apps", nil, &raw); err != nil {
			return err
		}
		if *out == "json" {
			return writeJSON(cmd.OutOrStdout(), raw.Apps)
		}
		var rows [][]string
		for _, text := range raw.Apps {
			var a marathonApp
			if err := json.Unmarshal(text, &a); err != nil {
				return fmt.Errorf("read Marathon's answer: %w", err)
			}
			state := "running"
			if !a.settled() {
				state = strings.TrimPrefix(a.progress(), a.ID+": ")
			}
			rows = append(rows, []string{a.ID, strconv.Itoa(a.Instances), strconv.Itoa(a.TasksRunning), strings.Join(a.vips(), " "), state})
		}
		slices.SortFunc(rows, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
		return writeTable(cmd.OutOrStdout(), []string{"APP", "WANTED", "RUNNING", "VIPS", "STATE"}, rows)
	}
	return cmd
}

// marathonFile is where `waggle dev` says where its Marathon is.
func marathonFile(socket string) string { return filepath.Join(filepath.Dir(socket), "marathon") }

// at finds the Marathon, and the daemon beside it.
func (r *rollout) at() (marathonREST, error) {
	dev := filepath.Join(devState(), "waggle.sock")
	if r.socket == "" {
		r.socket = defaultFileConfig().HTTP.Socket
		if _, err := os.Stat(dev); err == nil {
			r.socket = dev
		}
	}
	if base := cmp.Or(r.marathon, os.Getenv("MARATHON_URL")); base != "" {
		return marathonREST{base}, nil
	}
	text, err := os.ReadFile(marathonFile(r.socket))
	if err != nil {
		return marathonREST{}, &exitError{exitUsage, errors.New("no --marathon and no MARATHON_URL given, and no `waggle dev` runs here")}
	}
	return marathonREST{strings.TrimSpace(string(text))}, nil
}

func (r *rollout) deploy(ctx context.Context, file string) error {
	m, err := r.at()
	if err != nil {
		return err
	}
	var text []byte
	if file == "-" {
		text, err = io.ReadAll(r.e.stdin)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return fmt.Errorf("read app: %w", err)
	}
	var app struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(text, &app); err != nil || app.ID == "" {
		return fmt.Errorf("read app %s: %w", file, cmp.Or(err, errors.New("no id")))
	}
	if err := m.call(ctx, http.MethodPut, appPath(app.ID), text, nil); err != nil {
		return err
	}
	return r.follow(ctx, m, app.ID)
}

func (r *rollout) scale(ctx context.Context, id, instances string) error {
	n, err := strconv.Atoi(instances)
	if err != nil || n < 0 {
		return &exitError{exitUsage, fmt.Errorf("%q is not a number of tasks", instances)}
	}
	m, err := r.at()
	if err != nil {
		return err
	}
	if _, err := m.app(ctx, id); err != nil { // a PUT would make it
		return fmt.Errorf("scale %s: %w", id, err)
	}
	if err := m.call(ctx, http.MethodPut, appPath(id), fmt.Appendf(nil, `{"instances": %d}`, n), nil); err != nil {
		return err
	}
	return r.follow(ctx, m, id)
}

// remove ends an app and waits until it is gone and no VIP has a task of it.
func (r *rollout) remove(ctx context.Context, id string) error {
	m, err := r.at()
	if err != nil {
		return err
	}
	app, err := m.app(ctx, id)
	if err == nil {
		err = m.call(ctx, http.MethodDelete, appPath(id), nil, nil)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	if r.wait == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.wait)
	defer cancel()
	r.say("%s: going", app.ID)
	err = every(ctx, func() (bool, error) {
		if _, err := m.app(ctx, id); !errors.Is(err, errNoApp) {
			return false, err
		}
		served, _ := r.served(ctx, app, false) // a daemon that is not there serves nothing
		return len(served) == 0, nil
	})
	return r.ended(err, app.ID+": gone")
}

// follow shows how far an app has come until it runs as wished and each of its
// VIPs takes connections on this machine.
func (r *rollout) follow(ctx context.Context, m marathonREST, id string) error {
	if r.wait == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.wait)
	defer cancel()
	var app marathonApp
	last := ""
	err := every(ctx, func() (done bool, err error) {
		if app, err = m.app(ctx, id); err != nil {
			return false, err
		}
		if text := app.progress(); text != last {
			r.say("%s", text)
			last = text
		}
		return app.settled(), nil
	})
	if err != nil || app.Instances == 0 || len(app.vips()) == 0 {
		return r.ended(err, app.ID+": runs as wished")
	}
	var status api.Status
	if err := r.ask(ctx, "/v2/status", &status); err != nil {
		return r.ended(nil, app.ID+": runs as wished; its VIPs were not tried, since no waggle answers here")
	}
	if status.Balancer.Kind == "none" {
		return r.ended(nil, app.ID+": runs as wished; its VIPs were not tried, since this machine does not balance: "+status.Balancer.Error)
	}
	return r.connect(ctx, app)
}

// connect waits until every VIP of app takes a connection from here.
func (r *rollout) connect(ctx context.Context, app marathonApp) error {
	answered := map[string]bool{} // by address
	labels := app.vips()
	var last error
	err := every(ctx, func() (bool, error) {
		vips, err := r.served(ctx, app, true)
		if err != nil {
			last = err
			return false, nil
		}
		for _, v := range vips {
			at := hostPort(v.Address, v.Port)
			if answered[at] {
				continue
			}
			if v.Protocol == "tcp" {
				c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", at)
				if err != nil {
					last = err
					continue
				}
				c.Close()
			}
			answered[at] = true
			labels = slices.DeleteFunc(labels, func(l string) bool { return asksFor(l, v) })
			fmt.Fprintf(r.e.stdout, "VIP %s %s/%s answers\n", strings.TrimSuffix(v.Name, "."), at, v.Protocol)
		}
		return len(labels) == 0 && len(answered) >= len(vips), nil
	})
	if err != nil && last != nil {
		err = fmt.Errorf("%w; VIPs: %w", err, last)
	}
	return r.ended(err, app.ID+": runs as wished, and its VIPs answer")
}

// asksFor reports whether a label, as in "/web:80" or "10.1.2.3:80", is of v.
func asksFor(label string, v api.VIP) bool {
	fold := func(s string) string { return strings.ToLower(strings.Trim(s, "/[]")) }
	i := max(0, strings.LastIndex(label, ":"))
	name, port := fold(label[:i]), label[i:]
	return port == ":"+strconv.Itoa(int(v.Port)) && (name == fold(v.Label) || name == v.Address.String())
}

// served returns the VIPs that the daemon has with tasks of app, which are up or,
// if that does not matter, in any state.
func (r *rollout) served(ctx context.Context, app marathonApp, up bool) ([]api.VIP, error) {
	tasks := map[string]bool{}
	for _, t := range app.Tasks {
		tasks[t.ID] = true
	}
	var all []api.VIP
	err := r.ask(ctx, "/v2/vips", &all)
	return slices.DeleteFunc(all, func(v api.VIP) bool {
		return !slices.ContainsFunc(v.Backends, func(b api.Backend) bool { return tasks[b.Task] && (!up || b.State == "up") })
	}), err
}

func (r *rollout) ask(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return api.Client{Socket: r.socket}.Get(ctx, path, v)
}

// say tells a person how far it has come; programs read the other stream.
func (r *rollout) say(format string, args ...any) { fmt.Fprintf(r.e.stderr, format+"\n", args...) }

// ended says how it ended.
func (r *rollout) ended(err error, well string) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("not there after %s (it goes on; --wait waits longer): %w", r.wait, err)
	}
	if err == nil {
		fmt.Fprintln(r.e.stdout, well)
	}
	return err
}
