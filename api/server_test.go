package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"waggle/model"
	"waggle/vip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTestServer(t *testing.T, cfg Config, view func() View) *Server {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "waggle_test"}))
	return New(cfg, view, reg, zaptest.NewLogger(t))
}

func get(h http.Handler, path string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestBeforeTheFirstPictureListsAreNotYetRatherThanEmpty(t *testing.T) {
	s := newTestServer(t, Config{}, func() View {
		return View{Status: func() Status { return Status{Reasons: []string{"not connected"}} }}
	})
	for path, want := range map[string]int{
		"/healthz": 200, "/metrics": 200, "/v2/status": 200,
		"/readyz": 503, "/v2/vips": 503, "/v2/records": 503, "/v2/tasks": 503, "/v2/problems": 503, "/v2/explain?q=x": 503,
		"/v2/nothing": 404,
	} {
		if code, body := get(s.Handler(), path); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
	if _, body := get(s.Handler(), "/readyz"); !strings.Contains(body, "not connected") {
		t.Errorf("/readyz does not say why: %q", body)
	}
}

func TestEmptyListsAreEmptyLists(t *testing.T) {
	s := newTestServer(t, Config{}, func() View {
		return View{
			Snapshot: &model.Snapshot{}, Table: &vip.Table{},
			Problems: func() []model.Problem { return nil },
			Status:   func() Status { return Status{Ready: true} },
		}
	})
	for _, path := range []string{"/v2/vips", "/v2/tasks", "/v2/problems", "/v2/records"} {
		if code, body := get(s.Handler(), path); code != 200 || strings.TrimSpace(body) != "[]" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	if code, _ := get(s.Handler(), "/readyz"); code != 200 {
		t.Errorf("/readyz: %d", code)
	}
}

func TestExplainAnswersWhatIsAsked(t *testing.T) {
	s := newTestServer(t, Config{}, func() View {
		return View{Snapshot: &model.Snapshot{}, Explain: func(q string) any { return map[string]string{"query": q} }}
	})
	if code, body := get(s.Handler(), "/v2/explain?q=a%26b+c"); code != 200 || !strings.Contains(body, `"a\u0026b c"`) {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := get(s.Handler(), "/v2/explain"); code != 400 {
		t.Errorf("without a question: %d", code)
	}
}

func TestTheServerChangesNothing(t *testing.T) {
	s := newTestServer(t, Config{}, func() View { return View{Snapshot: &model.Snapshot{}} })
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(method, "/v2/vips", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

func TestClientAndServerMeetOnTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "waggle.sock")
	client := Client{Socket: path}
	var st Status
	if err := client.Get(t.Context(), "/v2/status", &st); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("without a daemon: %v", err)
	}
	view := func() View {
		return View{Status: func() Status { return Status{Version: "v1", Ready: true} }}
	}
	s := newTestServer(t, Config{Socket: path, Listen: "127.0.0.1:0"}, view)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	if err := newTestServer(t, Config{Socket: path}, view).Listen(); err == nil || !strings.Contains(err.Error(), "another waggle") {
		t.Errorf("a second daemon on one socket: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if err := client.Get(t.Context(), "/v2/status", &st); err != nil || st.Version != "v1" {
		t.Errorf("got %+v, %v", st, err)
	}
	if err := client.Get(t.Context(), "/v2/vips", &[]VIP{}); err == nil || !strings.Contains(err.Error(), "no picture") {
		t.Errorf("an error of the daemon is not told: %v", err)
	}
	resp, err := http.Get("http://" + s.Addrs()[1].String() + "/v2/status")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !json.Valid(body) {
		t.Errorf("over TCP: %s", body)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestASocketLeftByADeadDaemonIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "waggle.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newTestServer(t, Config{Socket: path}, func() View { return View{} })
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", fi, err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}
