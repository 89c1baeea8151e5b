package api

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waggle/watcher/transport/transporttest"
)

// issued is a certificate by ca for 127.0.0.1, and its key, as files.
func issued(t *testing.T, ca *transporttest.CA) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	ca.Issue(t, cert, key, "127.0.0.1")
	return cert, key
}

// trusting is a client that trusts ca, and shows a certificate if there is one.
func trusting(t *testing.T, ca *transporttest.CA, certs ...tls.Certificate) *http.Client {
	t.Helper()
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.Pool, Certificates: certs}, ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func pair(t *testing.T, ca *transporttest.CA) tls.Certificate {
	t.Helper()
	out, err := tls.LoadX509KeyPair(issued(t, ca))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func writeTokens(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// opened serves beyond loopback, and returns the address by which the test comes.
func opened(t *testing.T, a Access) string {
	t.Helper()
	s := newTestServer(t, Config{Listen: "0.0.0.0:0", Access: a}, newCluster().now)
	running(t, s)
	_, port, err := net.SplitHostPort(s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + port
}

func TestBeyondLoopbackOnlyThoseWhoProveThemselvesMayRead(t *testing.T) {
	ca, strangers := transporttest.NewCA(t), transporttest.NewCA(t)
	cert, key := issued(t, ca)
	const token, other = "0123456789abcdef", "fedcba9876543210"
	file := writeTokens(t, filepath.Join(t.TempDir(), "tokens"), token+"\n", 0o600)
	at := opened(t, Access{Cert: cert, Key: key, ClientCA: ca.File, TokenFile: file})
	ask := func(c *http.Client, method, authorization string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+at+"/v2/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		resp, err := c.Do(req)
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.StatusCode, nil
	}
	anybody := trusting(t, ca)
	basic := &http.Request{Header: http.Header{}}
	basic.SetBasicAuth("anything", token)
	for what, got := range map[string]struct {
		c             *http.Client
		authorization string
		want          int
	}{
		"nothing":          {anybody, "", 401},
		"a token":          {anybody, "Bearer " + token, 200},
		"another token":    {anybody, "Bearer " + other, 401},
		"an empty token":   {anybody, "Bearer ", 401},
		"a password":       {anybody, basic.Header.Get("Authorization"), 200},
		"a certificate":    {trusting(t, ca, pair(t, ca)), "", 200},
		"one of strangers": {trusting(t, ca, pair(t, strangers)), "", 0}, // both CAs have one name, so it is shown
	} {
		if code, err := ask(got.c, http.MethodGet, got.authorization); code != got.want {
			t.Errorf("with %s: %d %v, want %d", what, code, err, got.want)
		}
	}
	if code, _ := ask(anybody, http.MethodPost, "Bearer "+token); code != http.StatusMethodNotAllowed {
		t.Errorf("POST with a token: %d", code)
	}
	if resp, err := http.Get("http://" + at + "/v2/status"); err == nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("it speaks HTTP in clear text")
		}
	}
	http.DefaultClient.CloseIdleConnections()
	writeTokens(t, file, other+"\n", 0o600)
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(file, later, later); err != nil {
		t.Fatal(err)
	}
	if code, err := ask(anybody, http.MethodGet, "Bearer "+other); code != 200 {
		t.Errorf("a new token is not read: %d %v", code, err)
	}
	if code, _ := ask(anybody, http.MethodGet, "Bearer "+token); code != 401 {
		t.Errorf("the old token still opens: %d", code)
	}
}

func TestNothingIsOpenWithoutTLSAndAWayToProveOneself(t *testing.T) {
	cert, key := issued(t, transporttest.NewCA(t))
	dir := t.TempDir()
	good := writeTokens(t, filepath.Join(dir, "good"), "0123456789abcdef\n", 0o640)
	for want, a := range map[string]Access{
		"needs a certificate":      {TokenFile: good},
		"needs a file of tokens":   {Cert: cert, Key: key},
		"everybody may read":       {Cert: cert, Key: key, TokenFile: writeTokens(t, filepath.Join(dir, "open"), "0123456789abcdef\n", 0o644)},
		"shorter than 16":          {Cert: cert, Key: key, TokenFile: writeTokens(t, filepath.Join(dir, "short"), "\n123\n", 0o600)},
		"none in":                  {Cert: cert, Key: key, TokenFile: writeTokens(t, filepath.Join(dir, "empty"), "\n", 0o600)},
		"no certificate in":        {Cert: cert, Key: key, ClientCA: good},
		"certificate: ":            {Cert: cert, Key: good, TokenFile: good},
		"no such file or director": {Cert: cert, Key: key, TokenFile: filepath.Join(dir, "nowhere")},
	} {
		s := newTestServer(t, Config{Listen: "0.0.0.0:0", Access: a}, newCluster().now)
		if err := s.Listen(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
			_ = s.close()
		}
	}
}

func TestOnLoopbackNamesOfOthersAreRefused(t *testing.T) {
	h := local(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for host, want := range map[string]int{
		"127.0.0.1:8123": 200, "127.0.0.1": 200, "localhost:8123": 200, "LOCALHOST.": 200, "[::1]:8123": 200, "[::1]": 200, "": 200,
		"waggle.localhost:80": 200, "192.0.2.1:8123": 200,
		"evil.example": 421, "evil.example:8123": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example:8123": 421, "notlocalhost": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/v2/status", nil)
		r.Host = host
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("Host %q: %d, want %d", host, w.Code, want)
		}
	}
}

func TestWhatIsLoopbackIsTold(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:80": "own", "[::1]:80": "own", "127.9.9.9:80": "own", "localhost:80": "own", "[::ffff:127.0.0.1]:80": "own",
		"0.0.0.0:80": "open", ":80": "open", "[::]:80": "open", "192.0.2.1:80": "open", "name:80": "wrong", "127.0.0.1": "wrong",
	} {
		got := "open"
		if own, err := Loopback(listen); err != nil {
			got = "wrong"
		} else if own {
			got = "own"
		}
		if got != want {
			t.Errorf("%s is %s, want %s", listen, got, want)
		}
	}
}
