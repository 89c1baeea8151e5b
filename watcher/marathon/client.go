package marathon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"waggle/watcher/transport"
)

// maxHops bounds how often a request is sent on to another Marathon.
const maxHops = 3

// client speaks HTTP to one Marathon.
type client struct {
	http *transport.Client
	base *url.URL // with the path below which the API is, none for most
}

// parseHost reads a configured Marathon: host:port, or http(s)://host[:port][/path].
func parseHost(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("not host:port or http(s)://host[:port][/path] without user and query")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/")}, nil
}

// statusError is an answer other than 200.
type statusError struct {
	code int
	json bool // Marathon's own, not a proxy's
}

// Error returns the code and what it stands for: an answer may quote a secret.
func (e *statusError) Error() string {
	return fmt.Sprintf("answer %d %s", e.code, http.StatusText(e.code))
}

// get asks for path, which may hold a query, and whoever that sends on to. The
// caller closes the answer.
func (c *client) get(ctx context.Context, path, accept string) (*http.Response, error) {
	to := c.base.String() + path
	for range maxHops + 1 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", accept)
		req.Header.Set("User-Agent", "waggle")
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, err
		}
		if !transport.IsRedirect(resp.StatusCode) {
			return checked(resp, accept)
		}
		_ = resp.Body.Close() // nothing of it is read
		next, err := c.http.Redirect(resp)
		if err != nil {
			return nil, err
		}
		to = next.String()
	}
	return nil, fmt.Errorf("sent on more than %d times", maxHops)
}

// checked returns resp if it is a good answer of the type wanted, and closes it
// otherwise.
func checked(resp *http.Response, accept string) (*http.Response, error) {
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	kind = strings.TrimSpace(kind)
	switch {
	case resp.StatusCode != http.StatusOK:
		_ = resp.Body.Close() // nothing of it is read
		return nil, &statusError{resp.StatusCode, kind == "application/json"}
	case kind != accept:
		_ = resp.Body.Close() // nothing of it is read
		return nil, fmt.Errorf("answer is %q, not %s", kind, accept)
	}
	return resp, nil
}

// read asks for path and gives what is answered to take.
func (c *client) read(ctx context.Context, path string, take func(io.Reader) error) error {
	resp, err := c.get(ctx, path, "application/json")
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer resp.Body.Close()
	if err := take(resp.Body); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// isMissing reports whether err is Marathon's own word that there is no such
// thing.
func isMissing(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.code == http.StatusNotFound && s.json
}
