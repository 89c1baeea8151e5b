package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"waggle/api"
)

// vipWatch shows the VIPs as they change.
type vipWatch struct {
	*asker
	cmd   *cobra.Command
	vips  map[api.Frontend]api.VIP
	shown []byte
	lost  string // why the daemon cannot be followed
}

// watchVIPs prints the VIPs whenever they have changed, until it is told to end:
// on a terminal in place, otherwise one list below the other; as JSON one list a
// line. A daemon that goes away is waited for.
func (a *asker) watchVIPs(cmd *cobra.Command) error {
	w := &vipWatch{asker: a, cmd: cmd}
	err := every(cmd.Context(), func() (bool, error) {
		var stop error // what no daemon can mend
		err := api.Client{Socket: a.socket}.Follow(cmd.Context(), "vips", func(e api.Event) error {
			if err := w.take(e); err != nil || e.More {
				return err
			}
			stop = w.show()
			return stop
		})
		if w.shown == nil || stop != nil || cmd.Context().Err() != nil {
			return false, err
		}
		if err.Error() != w.lost {
			w.lost = err.Error()
			fmt.Fprintf(cmd.ErrOrStderr(), "waggle: %s; waiting for it\n", w.lost)
		}
		return false, nil
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// load takes all VIPs anew.
func (w *vipWatch) load() error {
	var list []api.VIP
	if err := w.get(w.cmd, "/v2/vips", &list); err != nil {
		return err
	}
	w.vips = map[api.Frontend]api.VIP{}
	for _, v := range list {
		w.vips[frontend(v)] = v
	}
	return nil
}

// frontend is what tells a VIP from others; names move with addresses.
func frontend(v api.VIP) api.Frontend {
	return api.Frontend{Address: v.Address.String(), Port: v.Port, Protocol: v.Protocol}
}

// take changes the VIPs as e says.
func (w *vipWatch) take(e api.Event) error {
	if e.Name == "reset" {
		err := w.load()
		if err == nil && w.lost != "" {
			fmt.Fprintln(w.cmd.ErrOrStderr(), "waggle: the daemon is back")
			w.lost = ""
		}
		return err
	}
	var c api.Change
	if err := json.Unmarshal(e.Data, &c); err != nil {
		return fmt.Errorf("read a change: %w", err)
	}
	if c.VIP != nil {
		w.vips[frontend(*c.VIP)] = *c.VIP
	}
	if c.Gone != nil {
		c.Gone.Name = ""
		delete(w.vips, *c.Gone)
	}
	return nil
}

// show prints the VIPs if they are not what was printed last.
func (w *vipWatch) show() error {
	vips := slices.SortedFunc(maps.Values(w.vips), api.CompareVIPs)
	now, err := w.render(vips)
	if err != nil || bytes.Equal(now, w.shown) {
		return err
	}
	w.shown = now
	out := w.cmd.OutOrStdout()
	const home = "\x1b[H\x1b[2J" // clears the screen
	switch {
	case *w.out == "json":
	case isTerminal(out):
		fmt.Fprint(out, home)
	default:
		fmt.Fprintln(out, time.Now().Format(time.TimeOnly))
	}
	_, err = out.Write(now)
	return err
}

// render is one list as it is printed.
func (a *asker) render(vips []api.VIP) ([]byte, error) {
	if *a.out == "json" {
		return writeJSONLine(vips)
	}
	var b bytes.Buffer
	err := vipTable(&b, vips)
	return b.Bytes(), err
}
