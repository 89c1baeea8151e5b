package transport_test

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap/zapcore"

	"waggle/watcher/transport"
	"waggle/watcher/transport/transporttest"
)

func TestServersMustShowACertificateOfTheAuthorityForTheirName(t *testing.T) {
	ca, other := transporttest.NewCA(t), transporttest.NewCA(t)
	tests := map[string]struct {
		tls     transport.TLS
		names   []string // in the server's certificate
		elected string   // the server's name besides its address
		wrong   string   // a part of the error; empty for none
	}{
		"of the authority":              {transport.TLS{CAFile: ca.File}, []string{"127.0.0.1"}, "", ""},
		"of another authority":          {transport.TLS{CAFile: other.File}, []string{"127.0.0.1"}, "", "unknown authority"},
		"of one the system trusts not":  {transport.TLS{}, []string{"127.0.0.1"}, "", "unknown authority"},
		"of anybody, where that may be": {transport.TLS{Insecure: true}, []string{"elsewhere"}, "", ""},
		"for another name":              {transport.TLS{CAFile: ca.File}, []string{"elsewhere"}, "", "127.0.0.1"},
		"for its name, where elected":   {transport.TLS{CAFile: ca.File}, []string{"m1.example"}, "m1.example", ""},
		"for its address, when elected": {transport.TLS{CAFile: ca.File}, []string{"127.0.0.1"}, "m1.example", ""},
		"for neither":                   {transport.TLS{CAFile: ca.File}, []string{"elsewhere"}, "m1.example", "127.0.0.1"},
		"with no authority's file":      {transport.TLS{CAFile: "/nonexistent"}, []string{"127.0.0.1"}, "", "tls.ca_file /nonexistent: no such file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			u := server(t, ca.Server(t, tt.names...), echo())
			c, _ := client(t, transport.Config{TLS: tt.tls}, u)
			if tt.elected != "" {
				c.Trust(transport.Host{URL: u, Name: tt.elected})
			}
			code, err := get(t, c, u)
			switch {
			case tt.wrong == "" && code != http.StatusOK:
				t.Errorf("status %d, error %v", code, err)
			case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)):
				t.Errorf("error %v, want %q in it", err, tt.wrong)
			}
		})
	}
}

// shown notes the names of the clients' certificates.
type shown struct {
	mu   sync.Mutex // guards the following
	name string
}

func (s *shown) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name = r.TLS.PeerCertificates[0].Subject.CommonName
}

func (s *shown) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.name
}

// wantsCertificate serves those who show a certificate of ca.
func wantsCertificate(t *testing.T, ca *transporttest.CA, h http.Handler) *url.URL {
	t.Helper()
	cfg := ca.Server(t, "127.0.0.1")
	cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool
	return server(t, cfg, h)
}

func TestACertificateOfOursIsShownAndReplacedWhileRunning(t *testing.T) {
	ca := transporttest.NewCA(t)
	seen := &shown{}
	u := wantsCertificate(t, ca, seen)
	without, _ := client(t, transport.Config{TLS: transport.TLS{CAFile: ca.File}}, u)
	if code, err := get(t, without, u); err == nil {
		t.Errorf("status %d without a certificate", code)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	c, logs := client(t, transport.Config{TLS: transport.TLS{CAFile: ca.File, CertFile: certFile, KeyFile: keyFile}}, u)
	if code, err := get(t, c, u); err == nil || !strings.Contains(err.Error(), "tls.cert_file") {
		t.Errorf("status %d, error %v without files", code, err)
	}
	use := func(want string) {
		t.Helper()
		mustGet(t, c, u, http.StatusOK)
		if got := seen.last(); got != want {
			t.Errorf("showed the certificate of %s, want %s", got, want)
		}
	}
	ca.Issue(t, certFile, keyFile, "node-1")
	use("node-1")
	ca.Issue(t, certFile, keyFile, "node-2")
	use("node-2")
	// Between the two renames, and while somebody edits.
	ca.Issue(t, certFile, filepath.Join(dir, "later"), "node-3")
	use("node-2")
	transporttest.Replace(t, keyFile, "not yet")
	use("node-2")
	ca.Issue(t, certFile, keyFile, "node-3")
	use("node-3")
	if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 2 {
		t.Errorf("warned %d times, want 2: %v", n, logs.All())
	}
}

func TestAnotherAuthorityIsTrustedWhileRunning(t *testing.T) {
	old, next := transporttest.NewCA(t), transporttest.NewCA(t)
	before := server(t, old.Server(t, "127.0.0.1"), echo())
	after := server(t, next.Server(t, "127.0.0.1"), echo())
	path := file(t, read(t, old.File))
	c, _ := client(t, transport.Config{TLS: transport.TLS{CAFile: path}}, before, after)
	mustGet(t, c, before, http.StatusOK)
	transporttest.Replace(t, path, read(t, next.File))
	mustGet(t, c, after, http.StatusOK)
	if _, err := get(t, c, before); err == nil {
		t.Error("the old authority is trusted still")
	}
}

func TestNoCertificateIsShownToOthers(t *testing.T) {
	ca := transporttest.NewCA(t)
	dir := t.TempDir()
	files := transport.TLS{CAFile: ca.File, CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}
	ca.Issue(t, files.CertFile, files.KeyFile, "node-1")
	u := wantsCertificate(t, ca, echo())
	c, _ := client(t, transport.Config{TLS: files})
	if _, err := get(t, c, u); err == nil {
		t.Error("a certificate was shown to a host that is not known")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
