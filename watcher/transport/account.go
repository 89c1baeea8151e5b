package transport

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	loginValid   = time.Hour // of what we sign, as mesos-dns has it
	loginTimeout = 30 * time.Second
	maxAnswer    = 64 << 10
)

// account is a DC/OS service account.
type account struct {
	uid      string
	key      *rsa.PrivateKey
	endpoint *url.URL
}

// parseAccount reads the JSON that DC/OS and mesos-dns have.
func parseAccount(text []byte) (*account, error) {
	var j struct {
		UID      string `json:"uid"`
		Key      string `json:"private_key"`
		Endpoint string `json:"login_endpoint"`
		Scheme   string `json:"scheme"`
	}
	if json.Unmarshal(text, &j) != nil { // whose errors may quote
		return nil, errors.New("is not JSON with uid, private_key and login_endpoint")
	}
	if j.UID == "" {
		return nil, errors.New("has no uid")
	}
	if j.Scheme != "" && j.Scheme != "RS256" {
		return nil, fmt.Errorf("has the scheme %q, and only RS256 is known", j.Scheme)
	}
	key, err := parseKey([]byte(j.Key))
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(j.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("has a login_endpoint that is no http(s) URL")
	}
	return &account{j.UID, key, u}, nil
}

func parseKey(text []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("has a private_key that is not PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		if key, ok := key.(*rsa.PrivateKey); ok {
			return key, nil
		}
	}
	return nil, errors.New("has a private_key that is no RSA key")
}

// sign returns a JSON Web Token (RFC 7519) of the account, by RS256.
func (a *account) sign(until time.Time) (string, error) {
	claims, err := json.Marshal(map[string]any{"uid": a.uid, "exp": until.Unix()})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	return text + "." + encode(signature), nil
}

// ask exchanges what a signs for a token. seen is told all that is secret in it.
// Its errors quote nothing of the answer.
func (a *account) ask(ctx context.Context, by http.RoundTripper, seen func(string)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	signed, err := a.sign(time.Now().Add(loginValid))
	if err != nil {
		return "", fmt.Errorf("sign as %s: %w", a.uid, err)
	}
	seen(signed)
	body, err := json.Marshal(map[string]string{"uid": a.uid, "token": signed})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.endpoint.String(), bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "waggle")
	resp, err := by.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("answer is %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	var answer struct {
		Token string `json:"token"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&answer) != nil {
		return "", errors.New("answer is not JSON with a token")
	}
	return answer.Token, nil
}

// expiry is until when a token is good, which only its issuer need be able to
// tell: zero where it is not ours to read.
func expiry(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Exp float64 `json:"exp"` // NumericDate may have a fraction
	}
	if json.Unmarshal(text, &claims) != nil || claims.Exp <= 0 || claims.Exp > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Exp), 0)
}
