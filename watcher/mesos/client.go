package mesos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"

	"waggle/watcher/transport"
)

// maxHops bounds how often a request is sent on to another master.
const maxHops = 3

// client speaks the operator API to masters.
type client struct {
	*transport.Client
}

// errCredentials is said of a master's URL that has some, which would be shown
// wherever masters are.
var errCredentials = errors.New("a master's URL cannot have credentials in it; they belong into a file")

// masterURL reads a configured master: host:port, or http(s)://host:port.
func masterURL(text string) (*url.URL, error) {
	if strings.Contains(text, "@") {
		return nil, errCredentials
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("master %q: %w", text, err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("master %q is not host:port or http(s)://host:port", text)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// answer is what a master said with 200.
type answer struct {
	body io.ReadCloser
	at   *url.URL       // the master that answered, which another may have named
	peer netip.AddrPort // its address
}

// subscribe asks master, or whoever it says leads, for the event stream. The
// caller closes the body.
func (c client) subscribe(ctx context.Context, master *url.URL) (*answer, error) {
	return c.ask(ctx, master, http.MethodPost, "/api/v1", `{"type":"SUBSCRIBE"}`)
}

// ask sends a request to master, or to whoever it says leads, and returns the
// answer if that is JSON.
func (c client) ask(ctx context.Context, master *url.URL, method, path, body string) (*answer, error) {
	at := &url.URL{Scheme: master.Scheme, Host: master.Host}
	for range maxHops + 1 {
		resp, peer, err := c.do(ctx, method, at.JoinPath(path), body)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK {
			if err := c.isJSON(resp); err != nil {
				resp.Body.Close()
				return nil, fmt.Errorf("ask %s: %w", at.Host, err)
			}
			body, err := unzipped(resp)
			if err != nil {
				return nil, fmt.Errorf("ask %s: %w", at.Host, err)
			}
			return &answer{body, at, peer}, nil
		}
		said := c.Said(resp)
		if !transport.IsRedirect(resp.StatusCode) {
			return nil, fmt.Errorf("ask %s: %w", at.Host, &statusError{resp.StatusCode, said})
		}
		to, err := c.Redirect(resp)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", at.Host, err)
		}
		at = &url.URL{Scheme: to.Scheme, Host: to.Host}
	}
	return nil, fmt.Errorf("ask %s: sent on more than %d times, last to %s", master.Host, maxHops, at.Host)
}

// statusError is an answer that is neither 200 nor a redirect.
type statusError struct {
	code int
	text string
}

// Error returns the status line and the beginning of what was said with it.
func (e *statusError) Error() string { return e.text }

func (c client) do(ctx context.Context, method string, to *url.URL, body string) (*http.Response, netip.AddrPort, error) {
	var peer netip.AddrPort
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if a, ok := i.Conn.RemoteAddr().(*net.TCPAddr); ok {
			peer = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
		}
	}})
	req, err := http.NewRequestWithContext(ctx, method, to.String(), strings.NewReader(body))
	if err != nil {
		return nil, peer, fmt.Errorf("ask %s: %w", to.Host, err)
	}
	// Masters compare the type literally: no charset.
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "waggle")
	if method == http.MethodGet {
		req.Header.Set("Accept-Encoding", "gzip") // a stream never is
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, peer, err
	}
	return resp, peer, nil
}

// isJSON refuses an answer of another kind, a proxy's page say.
func (c client) isJSON(resp *http.Response) error {
	t, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if t != "application/json" {
		return fmt.Errorf("answer is %q, not application/json", c.Strike(t))
	}
	return nil
}
