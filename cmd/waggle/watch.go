package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"waggle/api"
)

// watchVIPs prints the VIPs whenever they have changed, until it is told to end:
// on a terminal in place, otherwise one list below the other; as JSON one list a
// line. A daemon that restarts is waited for.
func (a *asker) watchVIPs(cmd *cobra.Command) error {
	out := cmd.OutOrStdout()
	var shown []byte
	failed := ""
	err := every(cmd.Context(), func() (bool, error) {
		var vips []api.VIP
		if err := a.get(cmd, "/v2/vips", &vips); err != nil {
			if shown == nil {
				return false, err
			}
			if text := err.Error(); text != failed && cmd.Context().Err() == nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "waggle:", text)
				failed = text
			}
			return false, nil
		}
		failed = ""
		now, err := a.render(vips)
		if err != nil || bytes.Equal(now, shown) {
			return false, err
		}
		shown = now
		const home = "\x1b[H\x1b[2J" // clears the screen
		switch {
		case *a.out == "json":
		case isTerminal(out):
			fmt.Fprint(out, home)
		default:
			fmt.Fprintln(out, time.Now().Format(time.TimeOnly))
		}
		_, err = out.Write(now)
		return false, err
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// render is one list as it is printed.
func (a *asker) render(vips []api.VIP) ([]byte, error) {
	var b bytes.Buffer
	if *a.out == "json" {
		return writeJSONLine(vips)
	}
	err := vipTable(&b, vips)
	return b.Bytes(), err
}
