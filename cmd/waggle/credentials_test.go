package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"waggle/watcher/mesos/mesostest"
	"waggle/watcher/transport/transporttest"
)

func TestTheFilesOfCredentialsAreChecked(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	put := func(name, text string) string { transporttest.Replace(t, path(name), text); return path(name) }
	ca := transporttest.NewCA(t)
	ca.Issue(t, path("cert"), path("key"), "node")
	ca.Issue(t, path("other"), path("otherkey"), "node")
	iam := transporttest.NewIAM(t)
	account := put("account", iam.Account(t, "https://10.0.0.1/acs/api/v1/auth/login"))
	const secret = "s3cr3t"
	empty, rubbish := put("empty", "\n"), put("rubbish", "x"+secret)
	flags := func(pairs ...string) (args []string) {
		for i := 0; i < len(pairs); i += 2 {
			args = append(args, "--mesos."+pairs[i]+"="+pairs[i+1])
		}
		return args
	}
	tests := map[string]struct {
		args []string
		want string // what is said; empty for nothing
	}{
		"all is well":               {flags("masters", "https://10.0.0.1:5050", "tls.ca_file", ca.File, "tls.cert_file", path("cert"), "tls.key_file", path("key"), "auth.service_account_file", account, "https", "true"), ""},
		"no such authority":         {flags("tls.ca_file", path("none")), "mesos.tls.ca_file: " + path("none") + ": no such file or directory"},
		"no PEM":                    {flags("tls.ca_file", rubbish), "mesos.tls.ca_file: " + rubbish + ": has no certificate in PEM"},
		"a folder":                  {flags("tls.ca_file", dir), "mesos.tls.ca_file: " + dir + ": is not a regular file"},
		"a key for a certificate":   {flags("tls.cert_file", path("key"), "tls.key_file", path("key")), "mesos.tls.cert_file: " + path("key") + ": has no certificate in PEM"},
		"a certificate for a key":   {flags("tls.cert_file", path("cert"), "tls.key_file", path("cert")), "mesos.tls.key_file: " + path("cert") + ": has no private key in PEM"},
		"a key of another":          {flags("tls.cert_file", path("cert"), "tls.key_file", path("otherkey")), "mesos.tls.key_file: " + path("otherkey") + ": tls: private key does not match public key"},
		"no key":                    {flags("tls.cert_file", path("cert")), "mesos.tls.cert_file: is needed with tls.key_file"},
		"an authority for nothing":  {flags("tls.ca_file", ca.File, "tls.verify", "false"), "mesos.tls.ca_file: is of no use"},
		"a secret of nobody":        {flags("auth.secret_file", rubbish), "mesos.auth.principal: is needed with auth.secret_file"},
		"no such secret":            {flags("auth.secret_file", path("none"), "auth.principal", "me"), "mesos.auth.secret_file: " + path("none") + ": no such file"},
		"an empty secret":           {flags("auth.secret_file", empty, "auth.principal", "me"), "mesos.auth.secret_file: " + empty + ": has an empty secret"},
		"a bad principal":           {flags("auth.secret_file", rubbish, "auth.principal", "me:you"), "mesos.auth.secret_file: " + rubbish + ": a principal cannot have a colon"},
		"credentials without colon": {flags("auth.credentials_file", rubbish), "is neither principal:password nor JSON"},
		"credentials in bad JSON":   {flags("auth.credentials_file", put("c1", `{"principal":"me","secret":7`+secret)), "is not JSON with principal and secret"},
		"a number for a secret":     {flags("auth.credentials_file", put("c2", `{"principal":"me","secret":7331}`)), "is not JSON with principal and secret"},
		"an empty token":            {flags("auth.token_file", empty), "mesos.auth.token_file: " + empty + ": is empty"},
		"two tokens":                {flags("auth.token_file", put("t2", "a\nb")), "more than one word or control characters"},
		"a token two ways":          {flags("auth.token_file", rubbish, "auth.service_account_file", account), "mesos.auth: only one of auth.token_file, auth.service_account_file can be"},
		"an unknown token scheme":   {flags("auth.token_scheme", "digest"), `mesos.auth.token_scheme: "digest" is neither dcos nor bearer`},
		"an account that is none":   {flags("auth.service_account_file", rubbish), "is not JSON with uid, private_key and login_endpoint"},
		"an account without uid":    {flags("auth.service_account_file", put("a1", `{"private_key":"`+secret+`"}`)), "has no uid"},
		"an account without key":    {flags("auth.service_account_file", put("a2", `{"uid":"me","private_key":"`+secret+`"}`)), "has a private_key that is not PEM"},
		"an account by a secret":    {flags("auth.service_account_file", put("a3", `{"uid":"me","scheme":"HS256"}`)), "only RS256 is known"},
		"an account to no URL":      {flags("auth.service_account_file", put("a4", iam.Account(t, "ftp://me:"+secret+"@x/"))), "has a login_endpoint that is no http(s) URL"},
		"a master with credentials": {flags("masters", "http://me:"+secret+"@10.0.0.1:5050"), "mesos.masters: a master's URL cannot have credentials"},
		"Marathon's token":          {[]string{"--marathon.auth.token_file", empty}, "marathon.auth.token_file: " + empty + ": is empty"},
		"Marathon's certificate":    {[]string{"--marathon.tls.cert_file", ca.File}, "marathon.tls.cert_file: is needed with tls.key_file"},
		"a ZooKeeper path like one": {flags("zk", "zk://me:"+secret+"/x@10.0.0.1:2181/mesos"), "mesos.zk: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, out, errs := verb(t, append([]string{"check-config"}, tt.args...)...)
			if (code == exitOK) != (tt.want == "") || !strings.Contains(errs, tt.want) || tt.want == "" && errs != "" {
				t.Errorf("exit %d, said %q, want %q", code, errs, tt.want)
			}
			if strings.Contains(out+errs, secret) || strings.Contains(out+errs, "7331") {
				t.Errorf("quotes a secret: %s%s", out, errs)
			}
		})
	}
}

func TestAFileThatMayNotBeReadIsNamed(t *testing.T) {
	dir, err := os.MkdirTemp("", "waggle-closed-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "token")
	transporttest.Replace(t, path, "abc")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary(t), "check-config", "--mesos.auth.token_file", path)
	if os.Geteuid() == 0 { // to whom modes mean nothing
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if want := "mesos.auth.token_file: " + path + ": permission denied"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("error %v, said %q, want %q", err, out, want)
	}
}

func TestUnwiseCredentialsAreWarnedOf(t *testing.T) {
	open := writeFile(t, "token", "abc")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	closed := writeFile(t, "token", "abc")
	tests := map[string]struct {
		args []string
		want string
	}{
		"a token that all may read": {[]string{"--mesos.auth.token_file", open, "--mesos.masters", "127.0.0.1:5050"}, "warning: mesos.auth.token_file: " + open + ": can be read by others: its mode is 0644\n"},
		"a token in clear":          {[]string{"--mesos.auth.token_file", closed, "--mesos.masters", "10.0.0.1:5050"}, "warning: mesos.auth: credentials go to 10.0.0.1:5050 unencrypted\n"},
		"a token in clear, elected": {[]string{"--mesos.auth.token_file", closed, "--mesos.zk", "zk://10.0.0.1/m"}, "warning: mesos.auth: credentials go to masters found in ZooKeeper unencrypted\n"},
		"a token to anybody": {[]string{"--mesos.auth.token_file", closed, "--mesos.zk", "zk://10.0.0.1/m", "--mesos.https", "--mesos.tls.verify=false"},
			"warning: mesos.auth: credentials go to hosts whose certificates are not verified\n"},
		"a token on this machine": {[]string{"--mesos.auth.token_file", closed, "--mesos.masters", "127.0.0.1:5050"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, _, errs := verb(t, append([]string{"check-config"}, tt.args...)...)
			if code != exitOK || errs != tt.want {
				t.Errorf("exit %d, said %q, want %q", code, errs, tt.want)
			}
		})
	}
}

func TestCredentialsOfMesosDNSAreTakenOver(t *testing.T) {
	ca := transporttest.NewCA(t)
	iam := writeFile(t, "iam.json", transporttest.NewIAM(t).Account(t, "https://leader.mesos/login"))
	const masters = `"masters": ["10.0.0.1:5050"], "mesosHTTPSOn": true, `
	basic := writeFile(t, "config.json", `{`+masters+`"mesosAuthentication": "basic", "mesosCredentials": {"principal": "me", "secret": "s3cr3t"}}`)
	tests := map[string]struct {
		config string
		want   map[string]string
	}{
		"a certificate, and an account": {
			writeFile(t, "config.json", `{`+masters+`"caCertFile": "`+ca.File+`", "mesosAuthentication": "iam", "iamConfigFile": "`+iam+`"}`),
			map[string]string{"mesos.tls.ca_file": ca.File, "mesos.tls.verify": "true", "mesos.auth.service_account_file": iam, "mesos.auth.credentials_file": ""},
		},
		"a password, and anybody": {basic, map[string]string{"mesos.tls.verify": "false", "mesos.auth.credentials_file": basic}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := configOf(t, "--config", tt.config)
			for key, want := range tt.want {
				if got[key] != want {
					t.Errorf("%s = %q, want %q", key, got[key], want)
				}
			}
			if text := fmt.Sprint(got); strings.Contains(text, "s3cr3t") {
				t.Errorf("shows the secret: %s", text)
			}
		})
	}
	for text, want := range map[string]string{
		`"mesosAuthentication": "kerberos"`: `"kerberos" is neither basic nor iam`,
		`"mesosAuthentication": "iam"`:      "without an IAMConfigFile",
		`"mesosAuthentication": "basic"`:    "mesos.auth.credentials_file",
		`"certFile": "/c"`:                  "mesos.tls.cert_file",
	} {
		code, _, errs := verb(t, "check-config", "--config", writeFile(t, "config.json", `{`+masters+text+`}`))
		if code == exitOK || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, said %q, want %q", text, code, errs, want)
		}
	}
}

// TestADaemonFollowsMastersThatWantCredentials runs by the configuration of a
// mesos-dns in DC/OS: masters by TLS, a service account that logs in at
// leader.mesos, which only we can look up. Nothing secret is said anywhere.
func TestADaemonFollowsMastersThatWantCredentials(t *testing.T) {
	n := newNode(t)
	port := n.greeter(t)
	ca, iam := transporttest.NewCA(t), transporttest.NewIAM(t)
	master, login := n.secured(t, ca, iam, port)
	put := func(name, text string) string {
		path := filepath.Join(n.state, name)
		transporttest.Replace(t, path, text)
		return path
	}
	account := put("iam.json", iam.Account(t, "https://leader.mesos:"+login+"/acs/api/v1/auth/login"))
	config := put("config.json", fmt.Sprintf(
		`{"masters": [%q], "mesosHTTPSOn": true, "caCertFile": %q, "mesosAuthentication": "iam", "iamConfigFile": %q}`,
		master.Addr().String(), ca.File, account))
	p := n.start(t, n.verb("run", "--config", config, "--log.level", "debug", "--dns.domain", "mesos")...)
	web := n.up(t, "web.marathon", 1)
	if err := n.greeted(web); err != nil {
		t.Error(err)
	}

	// The token is worthless, and then the login fails for a while.
	iam.Revoke()
	master.Cut()
	eventually(t, "another login", func() bool { logins, _ := iam.Logins(); return logins == 2 && n.status(t).Source.Connected })
	master.SetGuard(func(*http.Request) bool { return false })
	master.Cut()
	eventually(t, "it is refused", func() bool { return strings.Contains(n.status(t).Source.Error, "401") })
	n.up(t, "web.marathon", 1) // what is known is served on

	said := p.out.String()
	for _, args := range [][]string{
		{"status", "-o", "json", "--socket", n.socket()}, {"status", "--socket", n.socket()}, {"vips", "--socket", n.socket()},
		{"explain", "--socket", n.socket(), "web.marathon.mesos"}, {"check-config", "--config", config}, {"check-config", "-o", "json", "--config", config},
	} {
		out, err := exec.Command(binary(t), args...).CombinedOutput()
		if err != nil {
			t.Errorf("waggle %v: %v: %s", args, err, out)
		}
		said += string(out)
	}
	for _, path := range []string{"/", "/metrics", "/v1/config", "/v1/enumerate", "/healthz", "/readyz"} {
		text, err := n.get(path)
		if err != nil {
			t.Error(err)
		}
		said += text
	}
	key, _, _ := strings.Cut(strings.SplitAfter(iam.Account(t, ""), "KEY-----\\n")[1], "\\n")
	for _, secret := range append(iam.Secrets(), key) {
		if secret == "" || strings.Contains(said, secret) {
			t.Errorf("%q is said by the daemon", secret)
		}
	}
	if !strings.Contains(said, "***") {
		t.Error("the masters quoted what was sent, but the daemon does not say so")
	}
	if _, wrong := iam.Logins(); wrong != nil {
		t.Errorf("logins failed: %v", wrong)
	}
}

// secured serves a master and a login on the node, by TLS. The master is for whom
// iam gave a token.
func (n *node) secured(t *testing.T, ca *transporttest.CA, iam *transporttest.IAM, port uint16) (_ *mesostest.Master, loginPort string) {
	t.Helper()
	master := mesostest.ServeOn(n.listenTLS(t, ca.Server(t, n.addr.String())), n.picture(port, "web"))
	t.Cleanup(master.Close)
	master.SetGuard(iam.Accepts)
	login := httptest.NewUnstartedServer(iam)
	login.Listener.Close()
	login.Listener = n.listenTLS(t, ca.Server(t, "leader.mesos"))
	login.Start()
	t.Cleanup(login.Close)
	_, loginPort, err := net.SplitHostPort(login.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return master, loginPort
}

// listenTLS listens on a free port of the node's address.
func (n *node) listenTLS(t *testing.T, cfg *tls.Config) net.Listener {
	t.Helper()
	var l net.Listener
	n.Must(t, func() (err error) {
		l, err = net.Listen("tcp", n.addr.String()+":0")
		return err
	})
	return tls.NewListener(l, cfg)
}

// TestMarathonIsAskedWithCredentials changes the password while the daemon runs.
func TestMarathonIsAskedWithCredentials(t *testing.T) {
	n := newNode(t)
	ca := transporttest.NewCA(t)
	m := &oneApp{addr: n.addr.String(), port: n.greeter(t), healthy: true, changed: make(chan struct{})}
	var password atomic.Pointer[string]
	file := filepath.Join(n.state, "password")
	change := func(to string) { password.Store(&to) }
	change("s3cret-one")
	transporttest.Replace(t, file, "s3cret-one\n")
	server := httptest.NewUnstartedServer(transporttest.Guard(m, func(r *http.Request) bool {
		return transporttest.Basic("waggle", *password.Load())(r)
	}))
	server.Listener.Close()
	server.Listener = n.listenTLS(t, ca.Server(t, n.addr.String()))
	server.Start()
	t.Cleanup(server.Close)

	p := n.start(t, n.verb("run", "--marathon.hosts", "https://"+server.Listener.Addr().String(), "--marathon.tls.ca_file", ca.File,
		"--marathon.auth.principal", "waggle", "--marathon.auth.secret_file", file)...)
	n.up(t, "web.marathon", 1)
	change("s3cret-two")
	server.CloseClientConnections()
	eventually(t, "the old password is refused", func() bool {
		st := n.status(t).Source.Marathon
		return st != nil && strings.Contains(st.Error, "401")
	})
	transporttest.Replace(t, file, "s3cret-two\n")
	eventually(t, "the new password is taken", func() bool { return n.status(t).Source.Marathon.Connected })
	status, err := n.get("/v2/status")
	if err != nil {
		t.Error(err)
	}
	if said := p.out.String() + status; strings.Contains(said, "s3cret") || strings.Contains(said, "d2FnZ2xlOn") {
		t.Errorf("the password is said:\n%s", said)
	}
}
