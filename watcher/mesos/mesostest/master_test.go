package mesostest

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func subscribe(t *testing.T, m *Master) *http.Response {
	t.Helper()
	c := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       10 * time.Second,
	}
	resp, err := c.Post("http://"+m.Addr().String()+"/api/v1", "application/json", strings.NewReader(`{"type":"SUBSCRIBE"}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestAStreamIsThePictureAndWhatIsSentUntilItIsCut(t *testing.T) {
	m := Serve([]byte(`{"type":"SUBSCRIBED"}`))
	defer m.Close()
	resp := subscribe(t, m)
	if err := m.WaitStreams(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	m.Send(Heartbeat())
	m.SendRaw([]byte("100\n{"))
	m.Cut()
	got, err := io.ReadAll(resp.Body)
	if want := "21\n{\"type\":\"SUBSCRIBED\"}20\n{\"type\":\"HEARTBEAT\"}100\n{"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err != io.ErrUnexpectedEOF {
		t.Errorf("the stream ended with %v, as if it were complete", err)
	}
}

func TestSendDoesNotWaitForAClientThatWent(t *testing.T) {
	m := Serve([]byte(`{}`))
	defer m.Close()
	resp := subscribe(t, m)
	if err := m.WaitStreams(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	m.Send(Heartbeat())
	if err := m.WaitStreams(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}

func TestAMasterAnswersAsToldInsteadOfStreaming(t *testing.T) {
	m := Serve([]byte(`{}`))
	defer m.Close()
	m.Redirect("10.0.0.1:5050")
	if resp := subscribe(t, m); resp.StatusCode != 307 || resp.Header.Get("Location") != "//10.0.0.1:5050/api/v1" {
		t.Errorf("redirect is %s to %q", resp.Status, resp.Header.Get("Location"))
	}
	m.Refuse(503, "Master has not finished recovery")
	if resp := subscribe(t, m); resp.StatusCode != 503 {
		t.Errorf("refusal is %s", resp.Status)
	}
	m.SetAnswer(nil)
	if resp := subscribe(t, m); resp.StatusCode != 200 {
		t.Errorf("stream is %s", resp.Status)
	}
}

func TestAMasterThatHangsCanBeClosed(t *testing.T) {
	m := Serve([]byte(`{}`))
	m.Hang()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Millisecond}
	if _, err := c.Post("http://"+m.Addr().String()+"/api/v1", "application/json", strings.NewReader(`{}`)); err == nil {
		t.Error("it answered")
	}
	m.Close()
}
