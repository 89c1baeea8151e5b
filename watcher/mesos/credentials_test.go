package mesos

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"waggle/watcher/mesos/mesostest"
	"waggle/watcher/transport"
	"waggle/watcher/transport/transporttest"
	"waggle/watcher/zk"
)

// serveTLS is a master that speaks TLS.
func serveTLS(t *testing.T, cfg *tls.Config) *mesostest.Master {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := mesostest.ServeOn(tls.NewListener(l, cfg), picture)
	t.Cleanup(m.Close)
	return m
}

func loopback(context.Context, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	transporttest.Replace(t, path, text)
	return path
}

// witness hears everything that a Source says, and must not tell a secret.
type witness struct {
	log  *zap.Logger
	logs *observer.ObservedLogs
}

func newWitness() witness {
	core, logs := observer.New(zapcore.DebugLevel)
	return witness{zap.New(core), logs}
}

// tells fails the test if a secret was told, in a log, in the status or in a
// Problem.
func (q witness) tells(t *testing.T, f *follower, secrets ...string) {
	t.Helper()
	said := fmt.Sprintf("%+v %+v %+v", f.Status(), f.cfg, f.client)
	for _, e := range q.logs.All() {
		text, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).EncodeEntry(e.Entry, e.Context)
		if err != nil {
			t.Fatal(err)
		}
		said += text.String()
	}
	_, snap, _ := f.published()
	text, err := json.Marshal(snap.Problems)
	if err != nil {
		t.Fatal(err)
	}
	said += string(text)
	for _, secret := range secrets {
		for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(said, form) {
				t.Errorf("tells %q", form)
			}
		}
	}
}

func TestMastersBehindTLSAreFollowedWithCredentials(t *testing.T) {
	ca := transporttest.NewCA(t)
	iam := transporttest.NewIAM(t)
	login := httptest.NewUnstartedServer(iam)
	login.TLS = ca.Server(t, "127.0.0.1")
	login.StartTLS()
	t.Cleanup(login.Close)
	files := transport.TLS{CAFile: ca.File}
	ours := files
	dir := t.TempDir()
	ours.CertFile, ours.KeyFile = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	ca.Issue(t, ours.CertFile, ours.KeyFile, "node-1")
	tests := map[string]struct {
		tls     transport.TLS
		auth    transport.Auth
		accepts func(*http.Request) bool
	}{
		"a password": {files, transport.Auth{CredentialsFile: secretFile(t, "waggle:s3cret-word")}, transporttest.Basic("waggle", "s3cret-word")},
		"a token": {files, transport.Auth{TokenFile: secretFile(t, "s3cret-token")}, func(r *http.Request) bool {
			return r.Header.Get("Authorization") == "token=s3cret-token"
		}},
		"a service account": {files, transport.Auth{ServiceAccountFile: secretFile(t, iam.Account(t, login.URL))}, iam.Accepts},
		"a certificate": {ours, transport.Auth{}, func(r *http.Request) bool {
			return r.TLS.PeerCertificates[0].Subject.CommonName == "node-1"
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			server := ca.Server(t, "127.0.0.1")
			if tt.tls.CertFile != "" {
				server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool
			}
			m := serveTLS(t, server)
			m.SetGuard(tt.accepts)
			said := newWitness()
			cfg := soon("https://" + m.Addr().String())
			cfg.TLS, cfg.Auth = tt.tls, tt.auth
			f := followLogged(t, cfg, said.log)
			f.until(ledBy(m, "1", "2"))
			m.SetGuard(func(*http.Request) bool { return false }) // which quotes what was sent
			m.Cut()
			if tt.auth != (transport.Auth{}) {
				eventually(t, "it is refused", func() bool { return strings.Contains(f.lastErr(), "401") })
			}
			m.SetGuard(tt.accepts)
			f.until(ledBy(m, "1", "2"))
			said.tells(t, f, append(iam.Secrets(), "s3cret-word", "waggle:s3cret-word", "s3cret-token", "PRIVATE KEY")...)
		})
	}
	if _, wrong := iam.Logins(); wrong != nil {
		t.Errorf("logins failed: %v", wrong)
	}
}

// The elected go by address, and answer with the name that redirects have, too.
func TestTheElectedAreGivenCredentialsByAddressAndByName(t *testing.T) {
	ca := transporttest.NewCA(t)
	other, leads := serveTLS(t, ca.Server(t, "m1.example")), serveTLS(t, ca.Server(t, "m2.example"))
	for _, m := range []*mesostest.Master{other, leads} {
		m.SetGuard(transporttest.Basic("waggle", "s3cret"))
	}
	other.Redirect(fmt.Sprintf("m2.example:%d", leads.Addr().Port()))
	election := make(polls)
	cfg := soon()
	cfg.Election, cfg.HTTPS, cfg.Resolve = election, true, loopback
	cfg.TLS, cfg.Auth = transport.TLS{CAFile: ca.File}, transport.Auth{CredentialsFile: secretFile(t, "waggle:s3cret")}
	f := follow(t, cfg)
	election <- []zk.Member{
		{Addr: other.Addr().String(), Hostname: "m1.example", ID: "1"},
		{Addr: leads.Addr().String(), Hostname: "m2.example", ID: "2"},
	}
	f.until(ledBy(leads, "1", "2"))
}

// A configured master that was taken over, or only knows the leader by a name
// that is not configured, sends us on to somebody else.
func TestNobodyElseIsAsked(t *testing.T) {
	evil, known, leads := serve(t, picture), serve(t, picture), serve(t, picture)
	known.Redirect(fmt.Sprintf("evil.example:%d", evil.Addr().Port()))
	leads.SetGuard(transporttest.Basic("waggle", "s3cret"))
	said := newWitness()
	cfg := soon(known.Addr().String(), leads.Addr().String())
	cfg.Resolve, cfg.Auth = loopback, transport.Auth{CredentialsFile: secretFile(t, "waggle:s3cret")}
	f := followLogged(t, cfg, said.log)
	f.until(ledBy(leads, "1", "2")) // which is asked in its turn
	if evil.Asked() != 0 {
		t.Errorf("a host that a redirect named was asked %d times", evil.Asked())
	}
	if n := said.logs.FilterMessageSnippet("not following a master").Len(); n == 0 {
		t.Error("the redirect is in no log")
	}
	said.tells(t, f, "s3cret")
}

func TestAMasterByTLSCannotSendOnToHTTP(t *testing.T) {
	ca := transporttest.NewCA(t)
	plain := serve(t, picture)
	secure := serveTLS(t, ca.Server(t, "127.0.0.1"))
	secure.SetAnswer(http.RedirectHandler("http://"+plain.Addr().String(), http.StatusTemporaryRedirect))
	cfg := soon("https://" + secure.Addr().String())
	cfg.TLS = transport.TLS{CAFile: ca.File}
	f := follow(t, cfg)
	eventually(t, "the redirect is refused", func() bool { return strings.Contains(f.lastErr(), "from https to http") })
	if plain.Asked() != 0 {
		t.Errorf("asked by http %d times", plain.Asked())
	}
}

func TestATokenIsReplacedBetweenStreams(t *testing.T) {
	m := serve(t, picture)
	m.SetGuard(func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer one" })
	path := secretFile(t, "one\n")
	cfg := soon(m.Addr().String())
	cfg.Auth = transport.Auth{TokenFile: path, TokenScheme: transport.TokenBearer}
	f := follow(t, cfg)
	f.until(ledBy(m, "1", "2"))
	m.SetGuard(func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer two" })
	m.SetPicture(mesostest.Subscribed(15, objects{agentA, agentB}, objects{fw}, []mesostest.Task{task2}))
	m.Cut()
	eventually(t, "the old token is refused", func() bool { return strings.Contains(f.lastErr(), "401") })
	transporttest.Replace(t, path, "two\n")
	f.until(ledBy(m, "2"))
}

func TestAMastersURLHasNoCredentials(t *testing.T) {
	for _, text := range []string{"http://me:s3cret@10.0.0.1:5050", "me:s3cret@10.0.0.1:5050", "http://me:s3cr/et@10.0.0.1:5050"} {
		_, err := New(soon(text), zap.NewNop(), nil)
		if err == nil || strings.Contains(err.Error(), "s3cr") {
			t.Errorf("%s: error %v", text, err)
		}
	}
}
