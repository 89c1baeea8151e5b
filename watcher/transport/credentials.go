package transport

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
)

// files are the values of all configured files; those of others are nil.
type files struct {
	roots   *value[*x509.CertPool]
	pair    *value[*tls.Certificate]
	header  *value[secret] // of Authorization, where a file tells it
	account *value[*account]

	secrets secrets
}

// newFiles returns what cfg names. stale is told when a file cannot be used any
// more.
func newFiles(cfg Config, stale func(error)) *files {
	f := &files{}
	t, a := cfg.TLS, cfg.Auth
	if t.CAFile != "" {
		f.roots = &value[*x509.CertPool]{files: []setting{{"tls.ca_file", t.CAFile}}, parse: parseRoots, stale: stale}
	}
	if t.CertFile != "" {
		cert, key := setting{"tls.cert_file", t.CertFile}, setting{"tls.key_file", t.KeyFile}
		f.pair = &value[*tls.Certificate]{files: []setting{cert, key}, stale: stale, parse: func(texts [][]byte) (*tls.Certificate, error) {
			return parsePair(cert, key, texts[0], texts[1])
		}}
	}
	header := func(name, path string, parse func(text []byte) (secret, error)) *value[secret] {
		return &value[secret]{files: []setting{{name, path}}, stale: stale, parse: func(texts [][]byte) (secret, error) {
			return parse(texts[0])
		}}
	}
	switch {
	case a.SecretFile != "":
		f.header = header("auth.secret_file", a.SecretFile, func(text []byte) (secret, error) {
			return f.basic(a.Principal, string(bytes.TrimRight(text, "\r\n")))
		})
	case a.CredentialsFile != "":
		f.header = header("auth.credentials_file", a.CredentialsFile, f.parseCredentials)
	case a.TokenFile != "":
		f.header = header("auth.token_file", a.TokenFile, func(text []byte) (secret, error) {
			return f.token(a.TokenScheme, string(bytes.TrimSpace(text)))
		})
	case a.ServiceAccountFile != "":
		f.account = &value[*account]{files: []setting{{"auth.service_account_file", a.ServiceAccountFile}}, stale: stale,
			parse: func(texts [][]byte) (*account, error) { return parseAccount(texts[0]) }}
	}
	return f
}

func parseRoots(texts [][]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(texts[0]) {
		return nil, errors.New("has no certificate in PEM")
	}
	return pool, nil
}

// parsePair says of which of the two files something is wrong; the library's
// errors do not quote keys.
func parsePair(cert, key setting, certText, keyText []byte) (*tls.Certificate, error) {
	if !hasBlock(certText, func(kind string) bool { return kind == "CERTIFICATE" }) {
		return nil, cert.wrong(errors.New("has no certificate in PEM"))
	}
	if !hasBlock(keyText, func(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") }) {
		return nil, key.wrong(errors.New("has no private key in PEM"))
	}
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return nil, key.wrong(err)
	}
	return &pair, nil
}

func hasBlock(text []byte, want func(kind string) bool) bool {
	for {
		block, rest := pem.Decode(text)
		if block == nil || want(block.Type) {
			return block != nil
		}
		text = rest
	}
}

// parseCredentials reads a file with principal and password in one.
func (f *files) parseCredentials(text []byte) (secret, error) {
	text = bytes.TrimSpace(text)
	if !bytes.HasPrefix(text, []byte("{")) {
		principal, password, ok := strings.Cut(string(text), ":")
		if !ok {
			return secret{}, errors.New("is neither principal:password nor JSON")
		}
		return f.basic(principal, password)
	}
	type credentials struct{ Principal, Secret string }
	var c struct {
		credentials
		MesosCredentials credentials
	}
	if json.Unmarshal(text, &c) != nil { // whose errors may quote
		return secret{}, errors.New("is not JSON with principal and secret")
	}
	if c.Principal == "" && c.Secret == "" {
		c.credentials = c.MesosCredentials
	}
	return f.basic(c.Principal, c.Secret)
}

// basic returns the header of basic authentication, RFC 7617.
func (f *files) basic(principal, password string) (secret, error) {
	switch {
	case principal == "":
		return secret{}, errors.New("names no principal")
	case strings.Contains(principal, ":"):
		return secret{}, errors.New("a principal cannot have a colon in basic authentication")
	case password == "":
		return secret{}, errors.New("has an empty secret")
	case !printable(principal + password):
		return secret{}, errors.New("has control characters in the principal or the secret")
	}
	f.secrets.add(password)
	encoded := base64.StdEncoding.EncodeToString([]byte(principal + ":" + password))
	f.secrets.add(encoded)
	return hide("Basic " + encoded), nil
}

// token returns the header that carries a token.
func (f *files) token(scheme TokenScheme, token string) (secret, error) {
	switch {
	case token == "":
		return secret{}, errors.New("is empty")
	case strings.ContainsRune(token, ' ') || !printable(token):
		return secret{}, errors.New("has more than one word or control characters")
	}
	f.secrets.add(token)
	if scheme == TokenBearer {
		return hide("Bearer " + token), nil
	}
	return hide("token=" + token), nil
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}
