package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap/zaptest"
)

func TestRequestsAreCountedByRouteAndStatus(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := New(Config{}, func() View { return View{Status: func() Status { return Status{} }} }, reg, zaptest.NewLogger(t))
	h := s.metrics.counted(local(s.Handler()))
	for _, path := range []string{
		"/v2/status", "/v2/status?x", "/v2/vips/11.0.0.1:80", "/v2/vips/other", "/", "/v2/openapi.json",
		"/v1/services/_a._tcp.b", "/nowhere", "/v2/nowhere", "http://elsewhere.example/v2/status",
	} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if !strings.Contains(path, "elsewhere") {
			r.Host = "localhost"
		}
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	r := httptest.NewRequest(http.MethodPost, "/v2/status", nil)
	r.Host = "localhost"
	h.ServeHTTP(httptest.NewRecorder(), r)
	want := `# HELP waggle_http_requests_total Requests of our HTTP interface that are over, by route and status. Without a route are those that fit none, or were refused before it was looked at.
# TYPE waggle_http_requests_total counter
waggle_http_requests_total{code="200",route="/v2/openapi.json"} 1
waggle_http_requests_total{code="200",route="/v2/status"} 2
waggle_http_requests_total{code="200",route="/{$}"} 1
waggle_http_requests_total{code="404",route=""} 1
waggle_http_requests_total{code="404",route="/v2/"} 1
waggle_http_requests_total{code="405",route=""} 1
waggle_http_requests_total{code="421",route=""} 1
waggle_http_requests_total{code="503",route="/v1/services/{service}"} 1
waggle_http_requests_total{code="503",route="/v2/vips/{vip}"} 2
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "waggle_http_requests_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "waggle_http_request_duration_seconds"); n != 7 || err != nil {
		t.Errorf("%d routes have their time: %v", n, err)
	}
	if list, err := testutil.GatherAndLint(reg); len(list) > 0 || err != nil {
		t.Errorf("%v %v", list, err)
	}
}

// TestAStreamIsSeenWhileItLasts goes through a listener, which must let a stream
// flush and set its deadline.
func TestAStreamIsSeenWhileItLasts(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := New(Config{}, func() View { return View{Status: func() Status { return Status{} }} }, reg, zaptest.NewLogger(t))
	srv := httptest.NewServer(s.metrics.counted(local(s.Handler())))
	defer srv.Close()
	resp, err := http.Get(srv.URL + changesPath)
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("id: "))
	if _, err := resp.Body.Read(line); err != nil || string(line) != "id: " {
		t.Errorf("%q %v", line, err)
	}
	streams := func(want string) bool {
		return testutil.GatherAndCompare(reg, strings.NewReader("# HELP waggle_http_streams Clients that follow changes over HTTP.\n"+
			"# TYPE waggle_http_streams gauge\nwaggle_http_streams "+want+"\n"), "waggle_http_streams") == nil
	}
	if !streams("1") {
		t.Error("it is not seen")
	}
	resp.Body.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !streams("0"); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it is seen for ever")
		}
	}
}
