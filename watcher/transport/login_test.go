package transport_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/watcher/transport"
	"waggle/watcher/transport/transporttest"
)

const loginPath = "/acs/api/v1/auth/login"

// dcos is a server that wants tokens of its own IAM, and a client of it.
func dcos(t *testing.T, login func(http.Handler) http.Handler) (*transporttest.IAM, *transport.Client, *url.URL) {
	t.Helper()
	iam := transporttest.NewIAM(t)
	ca := transporttest.NewCA(t)
	mux := http.NewServeMux()
	mux.Handle(loginPath, login(iam))
	mux.Handle("/", transporttest.Guard(echo(), iam.Accepts))
	u := server(t, ca.Server(t, "127.0.0.1"), mux)
	c, _ := client(t, transport.Config{
		TLS:  transport.TLS{CAFile: ca.File},
		Auth: transport.Auth{ServiceAccountFile: file(t, iam.Account(t, u.String()+loginPath))},
	}, u)
	return iam, c, u
}

func asItIs(h http.Handler) http.Handler { return h }

func wantLogins(t *testing.T, iam *transporttest.IAM, want int) {
	t.Helper()
	if n, wrong := iam.Logins(); n != want || wrong != nil {
		t.Errorf("%d logins, wrong: %v; want %d", n, wrong, want)
	}
}

func TestAServiceAccountLogsInOnceAndUsesTheTokenAgain(t *testing.T) {
	iam, c, u := dcos(t, asItIs)
	for range 5 {
		mustGet(t, c, u, http.StatusOK)
	}
	wantLogins(t, iam, 1)
}

func TestARefusedTokenIsRenewedOnce(t *testing.T) {
	iam, c, u := dcos(t, asItIs)
	mustGet(t, c, u, http.StatusOK)
	iam.Revoke()
	mustGet(t, c, u, http.StatusOK)
	wantLogins(t, iam, 2)
}

func TestWhatIsRefusedWithANewTokenTooIsRefused(t *testing.T) {
	iam := transporttest.NewIAM(t)
	mux := http.NewServeMux()
	mux.Handle(loginPath, iam)
	var asked atomic.Int32
	mux.Handle("/", transporttest.Guard(echo(), func(*http.Request) bool { asked.Add(1); return false }))
	u := server(t, nil, mux)
	c, _ := client(t, transport.Config{Auth: transport.Auth{ServiceAccountFile: file(t, iam.Account(t, u.String()+loginPath))}}, u)
	mustGet(t, c, u, http.StatusUnauthorized)
	if asked.Load() != 2 {
		t.Errorf("asked %d times, want 2", asked.Load())
	}
	wantLogins(t, iam, 2)
}

func TestATokenIsRenewedBeforeItExpires(t *testing.T) {
	iam, c, u := dcos(t, asItIs)
	iam.SetLife(-time.Second) // over already
	mustGet(t, c, u, http.StatusOK)
	iam.SetLife(time.Hour)
	mustGet(t, c, u, http.StatusOK)
	mustGet(t, c, u, http.StatusOK)
	wantLogins(t, iam, 2)
}

func TestABodyThatCannotBeSentAgainIsNot(t *testing.T) {
	iam, c, u := dcos(t, asItIs)
	mustGet(t, c, u, http.StatusOK)
	iam.Revoke()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), io.MultiReader(strings.NewReader("body")))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d", resp.StatusCode)
	}
	wantLogins(t, iam, 1)
}

// many sends n requests at once and returns how many had which outcome.
func many(t *testing.T, c *transport.Client, u *url.URL, n int) map[string]int {
	t.Helper()
	out := map[string]int{}
	var mu sync.Mutex // guards out
	var g sync.WaitGroup
	for range n {
		g.Go(func() {
			code, err := get(t, c, u)
			said := http.StatusText(code)
			if err != nil {
				_, said, _ = strings.Cut(err.Error(), "as waggle-node: ")
			}
			mu.Lock()
			defer mu.Unlock()
			out[said]++
		})
	}
	g.Wait()
	return out
}

func TestCallersAtOnceShareALogin(t *testing.T) {
	iam, c, u := dcos(t, asItIs)
	for round := 1; round <= 3; round++ {
		if d := cmp.Diff(map[string]int{"OK": 20}, many(t, c, u, 20)); d != "" {
			t.Error(d)
		}
		wantLogins(t, iam, round)
		iam.Revoke()
	}
}

func TestACallerThatGivesUpDoesNotFailTheOthers(t *testing.T) {
	arrived, proceed := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	iam, c, u := dcos(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if first.CompareAndSwap(false, true) {
				close(arrived)
				<-proceed
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	ctx, giveUp := context.WithCancel(t.Context())
	var g sync.WaitGroup
	g.Go(func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			t.Error(err)
			return
		}
		if resp, err := c.Do(req); err == nil {
			resp.Body.Close()
			t.Error("a request that was given up succeeded")
		}
	})
	<-arrived
	g.Go(func() { mustGet(t, c, u, http.StatusOK) })
	giveUp()
	close(proceed)
	g.Wait()
	wantLogins(t, iam, 1)
}

func TestAnotherAccountLogsInAnew(t *testing.T) {
	one, two := transporttest.NewIAM(t), transporttest.NewIAM(t)
	two.UID = "second"
	mux := http.NewServeMux()
	mux.Handle("/one", one)
	mux.Handle("/two", two)
	mux.Handle("/", transporttest.Guard(echo(), func(r *http.Request) bool { return one.Accepts(r) || two.Accepts(r) }))
	u := server(t, nil, mux)
	path := file(t, one.Account(t, u.String()+"/one"))
	c, _ := client(t, transport.Config{Auth: transport.Auth{ServiceAccountFile: path}}, u)
	mustGet(t, c, u, http.StatusOK)
	transporttest.Replace(t, path, two.Account(t, u.String()+"/two"))
	mustGet(t, c, u, http.StatusOK)
	mustGet(t, c, u, http.StatusOK)
	wantLogins(t, one, 1)
	wantLogins(t, two, 1)
}

// TestWhateverHappensToALogin goes through random changes of the account, its file,
// the tokens and how long they live. A request succeeds as one of a new Client
// would, with a login only where the token at hand is of no use.
func TestWhateverHappensToALogin(t *testing.T) {
	mux := http.NewServeMux()
	iams := []*transporttest.IAM{transporttest.NewIAM(t), transporttest.NewIAM(t)}
	mux.Handle("/0", iams[0])
	mux.Handle("/1", iams[1])
	var now atomic.Int32
	mux.Handle("/", transporttest.Guard(echo(), func(r *http.Request) bool { return iams[now.Load()].Accepts(r) }))
	u := server(t, nil, mux)
	text := func(i int32) string { return iams[i].Account(t, u.String()+"/"+strconv.Itoa(int(i))) }
	path := file(t, text(0))
	c, _ := client(t, transport.Config{Auth: transport.Auth{ServiceAccountFile: path}}, u)
	logins := func() int {
		a, _ := iams[0].Logins()
		b, _ := iams[1].Logins()
		return a + b
	}
	r := rand.New(rand.NewPCG(1, 2))
	useless, short := true, false // the token at hand
	for range 300 {
		switch i := now.Load(); r.IntN(6) {
		case 0:
			iams[i].Revoke()
			useless = true
		case 1:
			now.Store(1 - i)
			transporttest.Replace(t, path, text(1-i))
			useless = true
		case 2:
			transporttest.Replace(t, path, "rubbish") // the account stands
		case 3:
			transporttest.Replace(t, path, text(i))
		case 4:
			short = !short
			for _, iam := range iams {
				iam.SetLife(map[bool]time.Duration{true: -time.Second, false: time.Hour}[short])
			}
		}
		before := logins()
		mustGet(t, c, u, http.StatusOK)
		want := 0
		if useless {
			want = 1
		}
		if got := logins() - before; got != want {
			t.Fatalf("%d logins, want %d", got, want)
		}
		useless = useless && short // it is over already
	}
}
