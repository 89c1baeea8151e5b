package transporttest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// IAM is where service accounts log in, as DC/OS has it: it verifies what they
// sign and gives them tokens. It is an http.Handler for the login endpoint, and
// safe for concurrent use.
type IAM struct {
	UID string
	key *rsa.PrivateKey

	mu     sync.Mutex // guards the following
	life   time.Duration
	good   string   // the token that is accepted
	issued []string // and all that is secret in what was sent
	logins int
	wrong  []string
}

// NewIAM returns a service that knows one account. Its tokens are good for an
// hour.
func NewIAM(tb testing.TB) *IAM {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	return &IAM{UID: "waggle-node", key: key, life: time.Hour}
}

// Account returns the service account's file, for an endpoint.
func (i *IAM) Account(tb testing.TB, endpoint string) string {
	tb.Helper()
	text, err := json.Marshal(map[string]string{
		"scheme": "RS256", "uid": i.UID, "login_endpoint": endpoint,
		"private_key": pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(i.key)),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// SetLife changes how long tokens to come are good.
func (i *IAM) SetLife(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.life = d
}

// Revoke makes the last token worthless.
func (i *IAM) Revoke() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.good = ""
}

// Logins returns how many there were, and what was wrong with those that failed.
func (i *IAM) Logins() (n int, wrong []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.logins, i.wrong
}

// Secrets returns all that must not be seen of what was sent to it and by it.
func (i *IAM) Secrets() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string{}, i.issued...)
}

// Accepts reports whether a request has the token of the last login.
func (i *IAM) Accepts(r *http.Request) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.good != "" && r.Header.Get("Authorization") == "token="+i.good
}

// ServeHTTP answers a login.
func (i *IAM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var asked struct{ UID, Token string }
	err := json.NewDecoder(r.Body).Decode(&asked)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.logins++
	i.issued = append(i.issued, asked.Token)
	if err == nil {
		err = i.verify(asked.UID, asked.Token)
	}
	if r.Method != http.MethodPost || r.Header.Get("Authorization") != "" {
		err = fmt.Errorf("%s with authorization %q", r.Method, r.Header.Get("Authorization"))
	}
	if err != nil {
		i.wrong = append(i.wrong, err.Error())
		http.Error(w, "no login for "+asked.Token, http.StatusUnauthorized)
		return
	}
	claims := fmt.Sprintf(`{"uid":%q,"exp":%d,"n":%d}`, i.UID, time.Now().Add(i.life).Unix(), i.logins)
	encode := base64.RawURLEncoding.EncodeToString
	i.good = encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("by the IAM"))
	i.issued = append(i.issued, i.good)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"token": i.good})
}

// verify checks what a client signed.
func (i *IAM) verify(uid, token string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("a token of %d parts", len(parts))
	}
	var raw [3][]byte
	for n, part := range parts {
		var err error
		if raw[n], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			return err
		}
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&i.key.PublicKey, crypto.SHA256, sum[:], raw[2]); err != nil {
		return err
	}
	var header struct{ Alg, Typ string }
	var claims struct {
		UID string
		Exp int64
	}
	if err := json.Unmarshal(raw[0], &header); err != nil {
		return err
	}
	if err := json.Unmarshal(raw[1], &claims); err != nil {
		return err
	}
	until := time.Until(time.Unix(claims.Exp, 0))
	if header.Alg != "RS256" || header.Typ != "JWT" || claims.UID != i.UID || uid != i.UID || until <= 0 || until > 2*time.Hour {
		return fmt.Errorf("header %+v, claims %+v, uid %q", header, claims, uid)
	}
	return nil
}

// Guard lets pass what is accepted. To others it answers 401 and, as a careless
// server might, quotes what they sent.
func Guard(h http.Handler, accepts func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !accepts(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="mesos-master-readwrite"`)
			http.Error(w, "not for "+r.Header.Get("Authorization"), http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Basic accepts one principal's password.
func Basic(principal, password string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		p, s, ok := r.BasicAuth()
		return ok && p == principal && s == password
	}
}
