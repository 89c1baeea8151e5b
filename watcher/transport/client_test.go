package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"waggle/watcher/transport"
	"waggle/watcher/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers by h, by TLS if cfg is not nil, until the test ends.
func server(t *testing.T, cfg *tls.Config, h http.Handler) *url.URL {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	s.TLS = cfg
	if cfg == nil {
		s.Start()
	} else {
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return parse(t, s.URL)
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// client returns a Client of a configuration that trusts hosts, and its log.
func client(t *testing.T, cfg transport.Config, hosts ...*url.URL) (*transport.Client, *observer.ObservedLogs) {
	t.Helper()
	base := transport.DefaultConfig()
	cfg.Name, cfg.DialTimeout, cfg.FirstByte = "test", base.DialTimeout, base.FirstByte
	for _, u := range hosts {
		cfg.Hosts = append(cfg.Hosts, transport.Host{URL: u})
	}
	core, logs := observer.New(zapcore.DebugLevel)
	c, err := transport.New(cfg, zap.New(core), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, logs
}

// get returns the status of an answer, or the error.
func get(t *testing.T, c *transport.Client, u *url.URL) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if got := req.Header.Get("Authorization"); got != "" {
		t.Errorf("the caller's request has Authorization %q", got)
	}
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.Request.Header.Get("Authorization") != "" {
		t.Error("the answer's request has credentials")
	}
	return resp.StatusCode, nil
}

func mustGet(t *testing.T, c *transport.Client, u *url.URL, want int) {
	t.Helper()
	if got, err := get(t, c, u); got != want {
		t.Fatalf("status %d, error %v, want %d", got, err, want)
	}
}

// echo answers 200 if the request has its body.
func echo() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text, err := io.ReadAll(r.Body); err != nil || string(text) != "body" {
			http.Error(w, "no body", http.StatusBadRequest)
		}
	})
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	transporttest.Replace(t, path, text)
	return path
}

func TestCredentialsAreSentAsTheyAreConfigured(t *testing.T) {
	const basic = "Basic bWU6cGFzcyB3b3Jk" // me:pass word
	tests := map[string]struct {
		auth transport.Auth
		want string
	}{
		"none":                     {transport.Auth{}, ""},
		"principal and secret":     {transport.Auth{Principal: "me", SecretFile: file(t, "pass word\n")}, basic},
		"credentials":              {transport.Auth{CredentialsFile: file(t, "me:pass word\n")}, basic},
		"credentials as Mesos has": {transport.Auth{CredentialsFile: file(t, `{"principal":"me","secret":"pass word"}`)}, basic},
		"credentials of mesos-dns": {transport.Auth{CredentialsFile: file(t, `{"zk":"","mesosCredentials":{"principal":"me","secret":"pass word"}}`)}, basic},
		"a password with a colon":  {transport.Auth{CredentialsFile: file(t, "me:a:b")}, "Basic bWU6YTpi"},
		"a token":                  {transport.Auth{TokenFile: file(t, " abc.def\n")}, "token=abc.def"},
		"a bearer token":           {transport.Auth{TokenFile: file(t, "abc.def"), TokenScheme: transport.TokenBearer}, "Bearer abc.def"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			u := server(t, nil, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = append(got, r.Header.Get("Authorization"))
			}))
			c, _ := client(t, transport.Config{Auth: tt.auth}, u)
			mustGet(t, c, u, http.StatusOK)
			if d := cmp.Diff([]string{tt.want}, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestNamesAreLookedUpByTheGivenResolver(t *testing.T) {
	u := server(t, nil, echo())
	at := parse(t, "http://master.invalid:"+u.Port())
	var asked []string
	c, _ := client(t, transport.Config{Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
		asked = append(asked, host)
		return []netip.Addr{netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")}, nil
	}}, at)
	mustGet(t, c, at, http.StatusOK)
	if d := cmp.Diff([]string{"master.invalid"}, asked); d != "" {
		t.Error(d)
	}
}

func TestARotatedTokenIsUsedAtOnceAndALostOneStands(t *testing.T) {
	var want atomic.Pointer[string]
	accept := func(s string) { want.Store(&s) }
	u := server(t, nil, transporttest.Guard(echo(), func(r *http.Request) bool {
		return r.Header.Get("Authorization") == "token="+*want.Load()
	}))
	path := file(t, "first")
	c, logs := client(t, transport.Config{Auth: transport.Auth{TokenFile: path}}, u)
	accept("first")
	mustGet(t, c, u, http.StatusOK)
	accept("other") // of the same length, and maybe in the same tick of the clock
	transporttest.Replace(t, path, "other")
	mustGet(t, c, u, http.StatusOK)
	transporttest.Replace(t, path, "")
	mustGet(t, c, u, http.StatusOK)
	mustGet(t, c, u, http.StatusOK)
	if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 1 {
		t.Errorf("warned %d times of a file that cannot be used any more, want once: %v", n, logs.All())
	}
}

func TestOnlyTrustedHostsAreSpokenToWithCredentials(t *testing.T) {
	ca := transporttest.NewCA(t)
	var asked atomic.Int32
	count := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	plain := server(t, nil, count)
	secure := server(t, ca.Server(t, "127.0.0.1", "localhost"), count)
	auth := transport.Auth{TokenFile: file(t, "abc")}
	trusts := transport.TLS{CAFile: ca.File}
	at := func(u *url.URL, scheme, host string) *url.URL {
		return &url.URL{Scheme: scheme, Host: host + ":" + u.Port()}
	}
	elected := func(u *url.URL, name string) []transport.Host { return []transport.Host{{URL: u, Name: name}} }
	tests := map[string]struct {
		cfg     transport.Config
		elected []transport.Host
		to      *url.URL
		want    bool
	}{
		"a configured host":                  {transport.Config{Auth: auth, Hosts: elected(plain, "")}, nil, plain, true},
		"an elected host":                    {transport.Config{Auth: auth}, elected(plain, ""), plain, true},
		"an elected host by its name":        {transport.Config{Auth: auth}, elected(plain, "localhost"), at(plain, "http", "LocalHost."), true},
		"an elected host by another name":    {transport.Config{Auth: auth}, elected(plain, "m1"), at(plain, "http", "localhost"), false},
		"nobody":                             {transport.Config{Auth: auth}, nil, plain, false},
		"another port":                       {transport.Config{Auth: auth, Hosts: elected(secure, "")}, nil, plain, false},
		"by http what is configured https":   {transport.Config{Auth: auth, Hosts: elected(at(plain, "https", "127.0.0.1"), "")}, nil, plain, false},
		"by https what is configured http":   {transport.Config{Auth: auth, TLS: trusts, Hosts: elected(at(secure, "http", "127.0.0.1"), "")}, nil, secure, true},
		"by a mapped address":                {transport.Config{Auth: auth, Hosts: elected(plain, "")}, nil, at(plain, "http", "[::ffff:127.0.0.1]"), true},
		"anybody, where there is no secret":  {transport.Config{}, nil, plain, true},
		"anybody by TLS, without any secret": {transport.Config{TLS: trusts}, nil, secure, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			tt.cfg.Resolve = func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
			}
			c, _ := client(t, tt.cfg)
			c.Trust(tt.elected...)
			_, err := get(t, c, tt.to)
			if tt.want != (err == nil) || tt.want != (asked.Load() == 1) || !tt.want && !errors.Is(err, transport.ErrUntrusted) {
				t.Errorf("asked %d times, error %v", asked.Load(), err)
			}
		})
	}
}

func TestTrustEndsWithTheNextElection(t *testing.T) {
	u := server(t, nil, echo())
	c, _ := client(t, transport.Config{Auth: transport.Auth{TokenFile: file(t, "abc")}})
	c.Trust(transport.Host{URL: u})
	mustGet(t, c, u, http.StatusOK)
	c.Trust(transport.Host{URL: parse(t, "http://127.0.0.1:1")})
	if _, err := get(t, c, u); !errors.Is(err, transport.ErrUntrusted) {
		t.Errorf("error %v of a host that is a candidate no more", err)
	}
}

func TestRedirects(t *testing.T) {
	const known = "https://m1.example:5050"
	auth := transport.Auth{TokenFile: file(t, "abc")}
	tests := map[string]struct {
		from, location string
		auth           transport.Auth
		want           string // or a part of the error, after a "!"
	}{
		"scheme-relative":              {"https://m2.example:5050/api/v1", "//m1.example:5050", auth, known},
		"to a known host":              {"https://m2.example:5050/api/v1", known + "/x?y", auth, known + "/x?y"},
		"a path only":                  {"https://m1.example:5050/a", "/b", auth, known + "/b"},
		"to an unknown host":           {"https://m1.example:5050", "https://evil.example:5050/?leak", auth, "!evil.example:5050"},
		"to another port":              {"https://m1.example:5050", "https://m1.example:5051", auth, "!neither configured"},
		"to http":                      {"https://m1.example:5050", "http://m1.example:5050", auth, "!from https"},
		"to http, without credentials": {"https://m1.example:5050", "http://m1.example:5050", transport.Auth{}, "!from https"},
		"without credentials":          {"http://m1.example:5050", "//other:1/", transport.Auth{}, "http://other:1/"},
		"with user information":        {"http://m1.example:5050", "//u:p@other:1/", transport.Auth{}, "http://other:1/"},
		"to a file":                    {"http://m1.example:5050", "file:///etc/passwd", transport.Auth{}, "!cannot follow redirect to"},
		"to nothing":                   {"http://m1.example:5050", "http://", transport.Auth{}, "!cannot follow redirect to"},
		"to rubbish":                   {"http://m1.example:5050", "http://[", transport.Auth{}, "!is no URL"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, _ := client(t, transport.Config{Auth: tt.auth}, parse(t, known))
			got, err := c.Redirect(&http.Response{
				Request: &http.Request{URL: parse(t, tt.from)}, Header: http.Header{"Location": {tt.location}},
			})
			said := fmt.Sprint(got)
			if err != nil {
				said = err.Error()
			}
			want, wrong := strings.CutPrefix(tt.want, "!")
			if wrong != (err != nil) || !wrong && said != want || !strings.Contains(said, want) {
				t.Errorf("redirect to %v, error %v, want %s", got, err, tt.want)
			}
			if strings.Contains(said, "leak") {
				t.Errorf("quotes the query: %s", said)
			}
		})
	}
}

func TestWhatAnAnswerSaysIsQuotedWithoutSecrets(t *testing.T) {
	const token = "a.very.long.token"
	long := strings.Repeat("x", 290) + token // which ends beyond what is quoted
	u := server(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, long+" and "+r.Header.Get("Authorization"), http.StatusForbidden)
	}))
	c, _ := client(t, transport.Config{Auth: transport.Auth{TokenFile: file(t, token)}}, u)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	want := "403 Forbidden: " + strings.Repeat("x", 290) + "*** and to"
	if got := c.Said(resp); got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}

// An error's text may never come to its end.
func TestAnErrorThatGoesOnIsCutShort(t *testing.T) {
	hold := make(chan struct{})
	u := server(t, nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "starting")
		w.(http.Flusher).Flush()
		<-hold
	}))
	defer close(hold)
	c, _ := client(t, transport.Config{}, u)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if got, want := c.Said(resp), "503 Service Unavailable: starting"; got != want || time.Since(started) > time.Minute {
		t.Errorf("said %q, want %q", got, want)
	}
}
