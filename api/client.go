package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Client asks a running daemon over its Unix socket.
type Client struct {
	Socket string
}

// Get reads the JSON at path into v. A daemon that does not run and one that
// has nothing to say yet are errors that say so.
func (c Client) Get(ctx context.Context, path string, v any) error {
	t := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.Socket)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://waggle"+path, nil)
	if err != nil {
		return fmt.Errorf("ask daemon for %s: %w", path, err)
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return fmt.Errorf("ask daemon at %s (does it run?): %w", c.Socket, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		var said Failure
		if json.Unmarshal(text, &said) != nil || said.Error == "" {
			said.Error = strings.TrimSpace(string(text))
		}
		return fmt.Errorf("ask daemon for %s: %s: %s", path, resp.Status, said.Error)
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("read daemon's answer to %s: %w", path, err)
	}
	return nil
}
