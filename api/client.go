package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Client asks a running daemon over its Unix socket.
type Client struct {
	Socket string
}

// Get reads the JSON at path into v. A daemon that does not run and one that
// has nothing to say yet are errors that say so.
func (c Client) Get(ctx context.Context, path string, v any) error {
	body, err := c.open(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(v); err != nil {
		return fmt.Errorf("read daemon's answer to %s: %w", path, err)
	}
	return nil
}

// Event is one of the stream of changes.
type Event struct {
	Name string // reset, or a topic
	Data []byte // JSON: a Reset, a Change or a Pulse
	More bool   // another one has come already
}

// silence is how long a daemon that says something every trafficEvery may say
// nothing.
const silence = 15 * time.Second

// Follow gives take what /v2/changes says of topics, which are separated by
// commas, until ctx ends, the daemon goes away or take returns an error, which it
// returns. The first event is a reset.
func (c Client) Follow(ctx context.Context, topics string, take func(Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(silence, func() { cancel(fmt.Errorf("nothing heard for %s", silence)) })
	defer quiet.Stop()
	body, err := c.open(ctx, changesPath+"?topics="+topics)
	if err != nil {
		return err
	}
	defer body.Close()
	in := bufio.NewReader(body)
	var e Event
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("follow daemon at %s: %w", c.Socket, err)
		}
		quiet.Reset(silence)
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case field == "event":
			e.Name = value
		case field == "data":
			e.Data = []byte(value)
		case field == "" && value == "" && e.Name != "": // the end of one
			rest, _ := in.Peek(in.Buffered())
			e.More = bytes.Contains(rest, []byte("\nevent: "))
			if err := take(e); err != nil {
				return err
			}
			e = Event{}
		}
	}
}

// open returns the body of the answer to a request for path, if it is one.
func (c Client) open(ctx context.Context, path string) (io.ReadCloser, error) {
	t := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.Socket)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://waggle"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask daemon for %s: %w", path, err)
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask daemon at %s (does it run?): %w", c.Socket, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	var said Failure
	if json.Unmarshal(text, &said) != nil || said.Error == "" {
		said.Error = strings.TrimSpace(string(text))
	}
	return nil, fmt.Errorf("ask daemon for %s: %s: %s", path, resp.Status, said.Error)
}
