package transport

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestASecretPrintsAsStars(t *testing.T) {
	s := hide("s3cret")
	type holder struct {
		Secret secret
		Inside map[string]secret
		list   []secret
	}
	h := holder{s, map[string]secret{"k": s}, []secret{s}}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&log), zap.DebugLevel)
	zap.New(core).Info("all", zap.Any("any", h), zap.Stringer("stringer", s), zap.Reflect("reflect", s), zap.Error(fmt.Errorf("of %v", s)))
	panicked := func() (said any) {
		defer func() { said = recover() }()
		panic(fmt.Sprint(s))
	}()
	said := string(text) + log.String() + fmt.Sprint(panicked, s, h, &h) +
		fmt.Sprintf("%s %q %x %X %d %v %+v %#v %10.3s %T %+v", s, s, s, s, s, s, s, s, s, s, h)
	for _, form := range []string{"s3cret", "s3c", fmt.Sprintf("%x", "s3cret"), base64.StdEncoding.EncodeToString([]byte("s3cret"))} {
		if strings.Contains(said, form) {
			t.Errorf("%q is in %s", form, said)
		}
	}
}

// said is what is quoted of an answer with a text.
func said(c *Client, text string) string {
	return c.Said(&http.Response{Status: "403 Forbidden", Body: io.NopCloser(strings.NewReader(text))})
}

func TestNoPartOfASecretIsQuoted(t *testing.T) {
	c := &Client{files: &files{}}
	long := strings.Repeat("0123456789", 100)
	c.files.secrets.add(long)
	c.files.secrets.add("p w&d")
	for name, text := range map[string]string{
		"again and again, to the end of what is read": strings.Repeat(long, 20),
		"at the end of what is quoted":                strings.Repeat("x", maxSaid-5) + long,
		"at the end of what is read":                  strings.Repeat("x", maxSaidRead-5) + long,
		"as in a query":                               "p+w%26d",
		"as in a path":                                "p%20w&d",
		"encoded":                                     base64.StdEncoding.EncodeToString([]byte("p w&d")),
	} {
		got := said(c, text)
		for _, part := range []string{"0123", "p+w", "p%20w", "cCB3"} {
			if strings.Contains(got, part) || len(got) > 2*maxSaid {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
}

func TestOldSecretsAreForgottenInTheEnd(t *testing.T) {
	var s secrets
	for i := range 2 * keptSecrets {
		s.add(fmt.Sprintf("secret-%02d-end", i))
	}
	if got, want := s.strike("secret-00-end secret-63-end"), "secret-00-end ***"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if len(s.list) != keptSecrets {
		t.Errorf("%d secrets are kept", len(s.list))
	}
}

func TestACertificateOutOfItsTimeIsWarnedOf(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		from, to time.Duration
		want     int
	}{{-time.Hour, time.Hour, 0}, {time.Hour, 2 * time.Hour, 1}, {-2 * time.Hour, -time.Hour, 1}} {
		warned := 0
		inspectDates(&x509.Certificate{NotBefore: now.Add(tt.from), NotAfter: now.Add(tt.to)}, func(string, error) { warned++ })
		if warned != tt.want {
			t.Errorf("%v to %v: warned %d times", tt.from, tt.to, warned)
		}
	}
}

// FuzzCredentials: whatever is in a file, the header made of it is one line, it is
// struck out of what a server says, and errors do not quote it.
func FuzzCredentials(f *testing.F) {
	f.Add([]byte("me:pass word"))
	f.Add([]byte(`{"principal":"me","secret":"pass word"}`))
	f.Add([]byte(`{"zk":"","mesosCredentials":{"principal":"me","secret":"s"}}`))
	f.Add([]byte("{\"principal\":\"me\",\"secret\":\"a\\u0000b\"}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := &Client{files: &files{}}
		header, err := c.files.parseCredentials(text)
		if err != nil {
			if len(text) > 8 && strings.Contains(err.Error(), string(text)) {
				t.Errorf("quotes %q", text)
			}
			return
		}
		req := http.Request{Header: http.Header{"Authorization": {header.reveal()}}}
		principal, password, ok := req.BasicAuth()
		if !ok || principal == "" || password == "" || !printable(header.reveal()) {
			t.Errorf("header %q of %q", header.reveal(), text)
		}
		if got := said(c, "your "+header.reveal()); len(password) > 12 && strings.Contains(got, password) {
			t.Errorf("says %q of %q", got, text)
		}
	})
}

// FuzzAccount: whatever is in a service account's file, and in the token that it
// is given, costs an error at most, which does not quote it.
func FuzzAccount(f *testing.F) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		f.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	account, err := json.Marshal(map[string]string{"uid": "me", "private_key": string(text), "login_endpoint": "https://x/y"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(account, "a.eyJleHAiOjE3MDAwMDAwMDB9.c")
	f.Add([]byte(`{"uid":"me","private_key":"-----BEGIN X-----","login_endpoint":":"}`), "a.b.c")
	f.Fuzz(func(t *testing.T, text []byte, token string) {
		a, err := parseAccount(text)
		if err == nil && (a.uid == "" || a.key == nil || a.endpoint.Host == "" || a.endpoint.User != nil) {
			t.Errorf("%+v", a)
		}
		if until := expiry(token); !until.IsZero() && until.Unix() <= 0 {
			t.Errorf("%q expires at %v", token, until)
		}
	})
}

func TestExpiryIsReadOfATokenThatHasOne(t *testing.T) {
	token := func(claims string) string {
		return "h." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".s"
	}
	for text, want := range map[string]int64{
		token(`{"uid":"me","exp":1700000000}`): 1700000000,
		token(`{"exp":1700000000.5}`):          1700000000,
		token(`{"exp":1.7e9}`):                 1700000000,
		token(`{"uid":"me"}`):                  0,
		token(`{"exp":"soon"}`):                0,
		token(`{"exp":-1}`):                    0,
		token(`{"exp":1e300}`):                 0,
		token(`not JSON`):                      0,
		"opaque":                               0,
		"a.%.c":                                0,
	} {
		var got int64
		if at := expiry(text); !at.IsZero() {
			got = at.Unix()
		}
		if got != want {
			t.Errorf("%s expires at %d, want %d", text, got, want)
		}
	}
}

// TestFilesSayWhatTheyLastSaidWell goes through random changes of two files that
// belong together: what is said is what was said when they last did.
func TestFilesSayWhatTheyLastSaidWell(t *testing.T) {
	dir := t.TempDir()
	one, two := setting{"one", dir + "/one"}, setting{"two", dir + "/two"}
	stale := 0
	v := &value[string]{files: []setting{one, two}, stale: func(error) { stale++ }, parse: func(texts [][]byte) (string, error) {
		if !bytes.Equal(texts[0], texts[1]) {
			return "", errors.New("they do not match")
		}
		return string(texts[0]), nil
	}}
	now, good := map[string]string{}, ""
	walk(t, 2000, func(pick func(int) int) {
		f := []setting{one, two}[pick(2)]
		if n := pick(4); n == 3 {
			remove(t, f.path)
			delete(now, f.name)
		} else {
			now[f.name] = fmt.Sprint("text ", n)
			write(t, f.path, now[f.name])
		}
		before := stale
		got, err := v.get()
		text, there := now["one"]
		fine := there && now["two"] == text
		if fine {
			good = text
		}
		if got != good || (err == nil) != (good != "") || fine && stale != before {
			t.Fatalf("%q, error %v, warned %d times more, want %q of %v", got, err, stale-before, good, now)
		}
	})
	if stale == 0 {
		t.Error("nobody was told that a file is bad")
	}
}

// What holds secrets may be printed too, by a careless log line or a panic.
func TestNothingInAClientPrintsASecret(t *testing.T) {
	path := t.TempDir() + "/secret"
	write(t, path, "me:s3cr3t-word")
	c, err := New(Config{Auth: Auth{CredentialsFile: path}}, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	header, err := c.files.header.get()
	if err != nil {
		t.Fatal(err)
	}
	login := newLogin(c.files, nil, nil)
	login.header = header
	var all string
	for _, v := range []any{c, c.files, c.files.header, &c.files.secrets, login, header, &header, struct{ h secret }{header}} {
		all += fmt.Sprintf("%v %+v %#v %x %d", v, v, v, v, v)
	}
	for _, text := range []string{"s3cr3t-word", header.reveal(), strings.TrimPrefix(header.reveal(), "Basic ")} {
		for _, verb := range []string{"%s", "%x", "%d"} {
			if form := fmt.Sprintf(verb, []byte(text)); strings.Contains(all, strings.Trim(form, "[]")) {
				t.Errorf("prints %q", form)
			}
		}
	}
}
