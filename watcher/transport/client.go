package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	maxSaid      = 300      // of what is quoted of an answer
	maxSaidRead  = 16 << 10 // so that a secret in it is whole
	saidPatience = 5 * time.Second
)

// ErrUntrusted is returned for requests and redirects to hosts that credentials
// are not for.
var ErrUntrusted = errors.New("is neither configured nor elected, or not by this scheme, and is given no credentials")

// Client sends requests. It is safe for concurrent use. There is nothing to
// close: connections end with the bodies of their answers.
type Client struct {
	cfg     Config
	http    http.Client
	base    *http.Transport
	files   *files
	login   *login // nil without a service account
	trust   trust
	metrics *metrics
}

// New returns a Client, or an error for settings that contradict one another. It
// reads no file: one that cannot be used fails each request that needs it, and is
// logged where its last content is used instead. reg may be nil.
func New(cfg Config, log *zap.Logger, reg prometheus.Registerer) (*Client, error) {
	var wrong []error
	cfg.Check(func(setting string, err error) { wrong = append(wrong, fmt.Errorf("%s: %w", setting, err)) })
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	c := &Client{cfg: cfg, metrics: newMetrics(reg, cfg.Name)}
	c.files = newFiles(cfg, func(err error) {
		c.metrics.stale.Inc()
		log.Warn("a file cannot be used any more; what it said before stands", zap.Error(err))
	})
	c.base = &http.Transport{
		DialContext:           c.dial,
		DialTLSContext:        c.dialTLS,
		ResponseHeaderTimeout: cfg.FirstByte,
		DisableKeepAlives:     true,
		DisableCompression:    true, // streams never are
	}
	c.http = http.Client{
		Transport:     roundTripper(c.roundTrip),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if c.files.account != nil {
		c.login = newLogin(c.files, c.base, c.metrics.loggedIn)
	}
	c.trust.configure(cfg.Hosts)
	return c, nil
}

// Trust replaces the hosts that are given credentials besides those configured:
// the candidates of an election, say.
func (c *Client) Trust(hosts ...Host) { c.trust.elect(hosts) }

// Do sends req, with credentials if there are any. Redirects are answers; see
// Redirect. Where there are credentials, a request to a host they are not for
// fails with ErrUntrusted. A request refused with 401 is sent once more after a
// new login, if there is a service account and req has no body or a GetBody.
func (c *Client) Do(req *http.Request) (*http.Response, error) { return c.http.Do(req) }

// Redirect returns where resp, a redirect, sends on to, for a request to be
// decided on by the caller. It refuses to go from https to http, and where there
// are credentials, to hosts they are not for (ErrUntrusted).
func (c *Client) Redirect(resp *http.Response) (*url.URL, error) {
	from := resp.Request.URL
	// Scheme-relative with Mesos: "//host:port/api/v1", or without a path.
	to, err := from.Parse(resp.Header.Get("Location"))
	if err != nil { // whose text quotes it
		return nil, errors.New("cannot follow redirect: its Location is no URL")
	}
	at := short(c.Strike(to.Scheme + "://" + to.Host)) // the rest may hold anything
	if to.Host == "" || to.Scheme != "http" && to.Scheme != "https" {
		return nil, fmt.Errorf("cannot follow redirect to %q", at)
	}
	if from.Scheme == "https" && to.Scheme == "http" {
		return nil, fmt.Errorf("redirect from https to %s is not followed", at)
	}
	if c.guarded() && !c.trust.trusts(to) {
		return nil, fmt.Errorf("redirect to %s is not followed: it %w", at, ErrUntrusted)
	}
	to.User = nil
	return to, nil
}

// IsRedirect reports whether an answer of this code is a redirect that keeps the
// method, as Mesos and Marathon understand them.
func IsRedirect(code int) bool {
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// Said closes resp and returns its status and the beginning of its text, without
// the secrets that may be quoted there.
func (c *Client) Said(resp *http.Response) string {
	defer resp.Body.Close()
	defer time.AfterFunc(saidPatience, func() { resp.Body.Close() }).Stop()
	said := short(c.Strike(resp.Status))
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxSaidRead))
	quoted := c.Strike(string(text))
	if len(text) == maxSaidRead { // what is last may be the beginning of a secret
		quoted = quoted[:max(0, len(quoted)-c.files.secrets.longest())]
	}
	if s := strings.TrimSpace(quoted); s != "" {
		said += ": " + short(s)
	}
	return said
}

// short returns the beginning of what another said.
func short(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxSaid)], "")
}

// Strike returns text without the secrets that were sent or read.
func (c *Client) Strike(text string) string { return c.files.secrets.strike(text) }

// guarded reports whether there is anything that not everybody may get.
func (c *Client) guarded() bool {
	return c.files.header != nil || c.files.account != nil || c.files.pair != nil
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// roundTrip sends req and, if a login's token is refused, sends it once more with
// another.
func (c *Client) roundTrip(req *http.Request) (*http.Response, error) {
	if c.guarded() && !c.trust.trusts(req.URL) {
		closeBody(req)
		return nil, fmt.Errorf("%s %w", req.URL.Host, ErrUntrusted)
	}
	header, err := c.header(req.Context(), secret{})
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := c.send(req, req.Body, header)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || c.login == nil {
		return resp, err
	}
	body := req.Body
	if body != nil && body != http.NoBody {
		if req.GetBody == nil {
			return resp, nil
		}
		if body, err = req.GetBody(); err != nil {
			return resp, nil // the first answer is as good as any
		}
	}
	resp.Body.Close()
	if header, err = c.header(req.Context(), header); err != nil {
		return nil, err
	}
	return c.send(req, body, header)
}

// send sends a copy of req, so that the caller's has no credentials in it.
func (c *Client) send(req *http.Request, body io.ReadCloser, header secret) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Body = body
	if text := header.reveal(); text != "" {
		out.Header.Set("Authorization", text)
	}
	resp, err := c.base.RoundTrip(out)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// header is what to send for authorization, not refused again if it can be had
// anew; empty for nothing.
func (c *Client) header(ctx context.Context, refused secret) (secret, error) {
	switch {
	case c.login != nil:
		return c.login.get(ctx, refused)
	case c.files.header != nil:
		return c.files.header.get()
	}
	return secret{}, nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
