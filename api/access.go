package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// Access is who may read over TCP where that is not loopback. There must be a
// certificate then, and something by which clients prove who they are. Files are
// read anew when they change.
type Access struct {
	// Cert and Key are files in PEM with the server's certificate, the chain
	// included, and its key.
	Cert, Key string
	// ClientCA is a file in PEM with the authorities of clients' certificates.
	ClientCA string
	// TokenFile has a token on each line, any of which lets a client in: as
	// Authorization: Bearer, or as the password of Basic, which browsers ask for.
	TokenFile string
}

// Loopback reports whether a TCP address to listen on, host:port, is one that
// only this machine reaches. Its error says what is wrong with the address.
func Loopback(listen string) (bool, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false, err
	}
	if host == "localhost" {
		return true, nil
	}
	a, err := netip.ParseAddr(host)
	if host != "" && err != nil {
		return false, fmt.Errorf("%q is no address", host)
	}
	return a.Unmap().IsLoopback(), nil
}

// Check returns what keeps a server from being open to others, or nil.
func (a Access) Check() error {
	var errs []error
	if a.Cert == "" || a.Key == "" {
		errs = append(errs, errors.New("needs a certificate and its key"))
	}
	if a.ClientCA == "" && a.TokenFile == "" {
		errs = append(errs, errors.New("needs a file of tokens or an authority of clients' certificates"))
	}
	return errors.Join(append(errs, a.CheckFiles())...)
}

// CheckFiles returns what is wrong with the files that are given, or nil.
func (a Access) CheckFiles() error {
	var errs []error
	if a.Cert != "" && a.Key != "" {
		if _, err := tls.LoadX509KeyPair(a.Cert, a.Key); err != nil {
			errs = append(errs, fmt.Errorf("certificate: %w", err))
		}
	}
	if a.ClientCA != "" {
		_, err := readCA(a.ClientCA)
		errs = append(errs, err)
	}
	if a.TokenFile != "" {
		_, err := readTokens(a.TokenFile)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func readCA(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("clients' authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("clients' authorities: no certificate in %s", path)
	}
	return pool, nil
}

// minToken is how long a token must be: 16 random characters cannot be tried.
const minToken = 16

// readTokens returns the sums of the tokens in a file.
func readTokens(path string) ([][sha256.Size]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("tokens: everybody may read %s", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	var out [][sha256.Size]byte
	for n, line := range strings.Split(string(text), "\n") {
		switch token := strings.TrimSpace(line); {
		case token == "":
		case len(token) < minToken:
			return nil, fmt.Errorf("tokens: line %d of %s is shorter than %d characters", n+1, path, minToken)
		default:
			out = append(out, sha256.Sum256([]byte(token)))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("tokens: none in %s", path)
	}
	return out, nil
}

// guard lets in who may read.
type guard struct {
	access Access
	cert   fresh[*tls.Certificate]
	tokens fresh[[][sha256.Size]byte]
}

func newGuard(a Access) *guard {
	g := &guard{access: a}
	g.cert.files, g.cert.read = []string{a.Cert, a.Key}, func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(a.Cert, a.Key)
		return &c, err
	}
	g.tokens.files, g.tokens.read = []string{a.TokenFile}, func() ([][sha256.Size]byte, error) { return readTokens(a.TokenFile) }
	return g
}

// tls returns the configuration of a listener.
func (g *guard) tls() (*tls.Config, error) {
	if err := g.access.Check(); err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return g.cert.get() },
	}
	if g.access.ClientCA == "" {
		return c, nil
	}
	pool, err := readCA(g.access.ClientCA)
	c.ClientCAs, c.ClientAuth = pool, tls.RequireAndVerifyClientCert
	if g.access.TokenFile != "" {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return c, err
}

// protect asks clients who they are.
func (g *guard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 || g.known(r) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Add("WWW-Authenticate", `Bearer realm="waggle"`)
		w.Header().Add("WWW-Authenticate", `Basic realm="waggle, a token as the password"`)
		refuse(w, http.StatusUnauthorized, "a token is needed")
	})
}

func (g *guard) known(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, token, ok = r.BasicAuth()
	}
	tokens, err := g.tokens.get()
	if !ok || g.access.TokenFile == "" || err != nil {
		return false
	}
	sum, match := sha256.Sum256([]byte(token)), 0
	for _, t := range tokens {
		match |= subtle.ConstantTimeCompare(sum[:], t[:])
	}
	return match == 1
}

// local serves requests for this machine by its own names only. A page of
// somebody else, whose name has been pointed at loopback, is refused: what it
// would read is nothing to it.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
		_, err := netip.ParseAddr(host)
		if err != nil && host != "" && host != "localhost" && !strings.HasSuffix(host, ".localhost") {
			refuse(w, http.StatusMisdirectedRequest, "%q is not a name of this server: use an address or localhost", r.Host)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// fresh is what is in files, read again when they have changed. What cannot be
// read leaves what was. It is safe for concurrent use.
type fresh[T any] struct {
	files []string
	read  func() (T, error)

	mu    sync.Mutex // guards the following
	times []time.Time
	value T
	ok    bool
}

func (f *fresh[T]) get() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := !f.ok
	times := make([]time.Time, len(f.files))
	for i, path := range f.files {
		if info, err := os.Stat(path); err == nil {
			times[i] = info.ModTime()
		}
		changed = changed || !times[i].Equal(f.times[i])
	}
	if !changed {
		return f.value, nil
	}
	v, err := f.read()
	if err != nil && !f.ok {
		return v, err
	}
	if err == nil {
		f.value, f.ok = v, true
	}
	f.times = times
	return f.value, nil
}
