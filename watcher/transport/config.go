package transport

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Config says whom to speak to, and how.
type Config struct {
	// Name is of the source that speaks, in logs and metrics: "mesos".
	Name string
	// Hosts are those that are configured; Trust adds others.
	Hosts []Host
	// Resolve looks host names up. It must not ask this daemon, which may be the
	// node's resolver. Nil means net.DefaultResolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	DialTimeout time.Duration // for a connection and for its TLS handshake
	FirstByte   time.Duration // from a request to the header of its answer

	TLS  TLS
	Auth Auth
}

// Host is one that may be given credentials.
type Host struct {
	URL *url.URL // scheme and host count; a port that is left out is the scheme's
	// Name is what the host is called besides, without a port: it may be sent on
	// to by that name, and have a certificate for it. Empty for none.
	Name string
}

// TLS says how HTTPS is spoken. The files are PEM, and read anew with each
// connection.
type TLS struct {
	CAFile            string // who may sign certificates of hosts; empty for those the system trusts
	CertFile, KeyFile string // our own certificate, intermediates behind it, and its key; empty for none
	Insecure          bool   // believe any certificate
}

// Auth says how requests are authorized; at most one way may be set. The files
// are read anew with each request.
type Auth struct {
	// Principal is who we are in basic authentication, with the password in
	// SecretFile, which may end in a line feed.
	Principal, SecretFile string
	// CredentialsFile has both: "principal:password", or JSON with principal and
	// secret, which may be below mesosCredentials as mesos-dns has it.
	CredentialsFile string
	// TokenFile has a token that others renew.
	TokenFile string
	// TokenScheme is how it is sent, TokenDCOS where empty.
	TokenScheme TokenScheme
	// ServiceAccountFile is a DC/OS service account: JSON with uid, private_key
	// and login_endpoint, where it is exchanged for tokens.
	ServiceAccountFile string
}

// files are those that are set.
func (a Auth) files() []setting {
	all := []setting{
		{"auth.secret_file", a.SecretFile}, {"auth.credentials_file", a.CredentialsFile},
		{"auth.token_file", a.TokenFile}, {"auth.service_account_file", a.ServiceAccountFile},
	}
	return slices.DeleteFunc(all, func(s setting) bool { return s.path == "" })
}

// TokenScheme is how a token is written into the Authorization header.
type TokenScheme string

// The schemes there are.
const (
	TokenDCOS   TokenScheme = "dcos"   // token=...
	TokenBearer TokenScheme = "bearer" // Bearer ..., RFC 6750
)

// DefaultConfig waits 5 s for a connection and 2 min for an answer. It has no
// hosts and no credentials.
func DefaultConfig() Config {
	return Config{DialTimeout: 5 * time.Second, FirstByte: 2 * time.Minute}
}

// Check calls bad with each setting that is wrong by itself, "auth.principal"
// for one. It reads no file.
func (c Config) Check(bad func(setting string, err error)) {
	a, t := c.Auth, c.TLS
	if (a.Principal == "") != (a.SecretFile == "") {
		bad("auth.principal", errors.New("is needed with auth.secret_file, and nowhere else"))
	}
	var ways []string
	for _, f := range a.files() {
		ways = append(ways, f.name)
	}
	if len(ways) > 1 {
		bad("auth", fmt.Errorf("only one of %s can be", strings.Join(ways, ", ")))
	}
	switch a.TokenScheme {
	case "", TokenDCOS, TokenBearer:
	default:
		bad("auth.token_scheme", fmt.Errorf("%q is neither dcos nor bearer", a.TokenScheme))
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		bad("tls.cert_file", errors.New("is needed with tls.key_file, and nowhere else"))
	}
	if t.Insecure && t.CAFile != "" {
		bad("tls.ca_file", errors.New("is of no use where any certificate is believed"))
	}
}

// Inspect reads all files and calls bad with each setting whose file cannot be
// used, and warn with what is usable but unwise. Neither is told a secret.
func (c Config) Inspect(bad, warn func(setting string, err error)) {
	tell := func(err error) {
		if err == nil {
			return
		}
		if f, ok := errors.AsType[*fileError](err); ok {
			bad(f.setting, f.unwrapped())
		}
	}
	f := newFiles(c, nil)
	if f.roots != nil {
		_, err := f.roots.get()
		tell(err)
	}
	if f.pair != nil {
		pair, err := f.pair.get()
		tell(err)
		if err == nil {
			inspectDates(pair.Leaf, warn)
		}
		warnMode(setting{"tls.key_file", c.TLS.KeyFile}, warn)
	}
	if f.header != nil {
		_, err := f.header.get()
		tell(err)
	}
	if f.account != nil {
		account, err := f.account.get()
		tell(err)
		if err == nil && account.endpoint.Scheme != "https" && !isLoopback(account.endpoint) {
			warn("auth.service_account_file", fmt.Errorf("login_endpoint %s is not encrypted", account.endpoint.Host))
		}
	}
	for _, file := range c.Auth.files() {
		warnMode(file, warn)
	}
	if f.header == nil && f.account == nil {
		return
	}
	for _, h := range c.Hosts {
		if h.URL.Scheme != "https" && !isLoopback(h.URL) {
			warn("auth", fmt.Errorf("credentials go to %s unencrypted", h.URL.Host))
		}
	}
	if c.TLS.Insecure {
		warn("auth", errors.New("credentials go to hosts whose certificates are not verified"))
	}
}

func inspectDates(leaf *x509.Certificate, warn func(setting string, err error)) {
	if now := time.Now(); leaf != nil && (now.After(leaf.NotAfter) || now.Before(leaf.NotBefore)) {
		warn("tls.cert_file", fmt.Errorf("is valid from %s to %s only",
			leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339)))
	}
}

func isLoopback(u *url.URL) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && a.IsLoopback()
}
