// Package mesostest is a Mesos master that says what it is told: a real HTTP
// server whose event stream, redirects and failures a test decides. It keeps no
// state of a cluster; internal/devcluster is the one that does.
package mesostest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
)

// Master is a fake master on a loopback port. Its methods are safe for
// concurrent use.
type Master struct {
	server *httptest.Server

	mu      sync.Mutex // guards the following
	picture []byte     // first record of a new stream
	answer  http.Handler
	accepts func(*http.Request) bool // nil for everybody
	streams []*stream
	change  chan struct{} // closed and replaced when streams changes
	asked   int
	answers map[string][]byte // of calls by their type, of other requests by path
}

type stream struct {
	bytes chan []byte
	end   chan struct{} // closed to cut the stream
	done  chan struct{} // closed when nobody takes bytes any more
}

func newMaster(picture []byte) *Master {
	return &Master{picture: picture, change: make(chan struct{}), answers: map[string][]byte{}}
}

// Serve starts a Master whose streams begin with picture, the JSON of a
// SUBSCRIBED event. The caller closes it.
func Serve(picture []byte) *Master {
	m := newMaster(picture)
	m.server = httptest.NewServer(http.HandlerFunc(m.serve))
	return m
}

// ServeOn is Serve on a listener of the caller's, of TLS or of another namespace
// say, which the Master closes.
func ServeOn(l net.Listener, picture []byte) *Master {
	m := newMaster(picture)
	m.server = httptest.NewUnstartedServer(http.HandlerFunc(m.serve))
	m.server.Listener.Close()
	m.server.Listener = l
	m.server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that are meant to fail
	m.server.Start()
	return m
}

// Close cuts all streams and stops serving.
func (m *Master) Close() {
	m.Cut()
	m.server.CloseClientConnections()
	m.server.Close()
}

// Addr returns where the master listens.
func (m *Master) Addr() netip.AddrPort {
	return m.server.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// SetPicture changes what new streams begin with.
func (m *Master) SetPicture(picture []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.picture = picture
}

// SetAnswer makes h answer every request instead of the stream; nil undoes it.
func (m *Master) SetAnswer(h http.Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = h
}

// SetGuard makes the Master answer 401 to what accepts refuses, quoting what was
// sent, as a careless server might.
func (m *Master) SetGuard(accepts func(*http.Request) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accepts = accepts
}

// SetDocument sets the JSON that answers a call, "GET_FLAGS" say, or a GET of a
// path such as "/master/state"; nil undoes it. What has none is not found.
func (m *Master) SetDocument(of string, text []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[of] = text
}

// document returns what answers a request that is not for the event stream.
func (m *Master) document(r *http.Request, body []byte) (text []byte, stream bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var call struct {
		Type string `json:"type"`
	}
	switch {
	case r.Method == http.MethodGet:
		return m.answers[r.URL.Path], false
	case r.Method != http.MethodPost || r.URL.Path != "/api/v1" || json.Unmarshal(body, &call) != nil:
		return nil, false
	}
	return m.answers[call.Type], call.Type == "SUBSCRIBE"
}

// Redirect makes the master send everybody on to leader, as one that does not
// lead does: 307 with a scheme-relative location.
func (m *Master) Redirect(leader string) {
	m.SetAnswer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "//"+leader+r.URL.Path)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
}

// Refuse makes the master answer every request with an error, as one that has
// not recovered (503) or does not know us (401, 403).
func (m *Master) Refuse(code int, text string) {
	m.SetAnswer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, code) }))
}

// Hang makes the master take requests and never answer.
func (m *Master) Hang() {
	m.SetAnswer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
}

// Send sends event as one record on every stream.
func (m *Master) Send(event []byte) { m.SendRaw(Record(event)) }

// SendRaw sends bytes as they are on every stream, and returns once each has
// taken them or ended.
func (m *Master) SendRaw(b []byte) {
	m.mu.Lock()
	streams := slices.Clone(m.streams)
	m.mu.Unlock()
	for _, s := range streams {
		select {
		case s.bytes <- b:
		case <-s.done:
		}
	}
}

// Cut ends every stream where it stands.
func (m *Master) Cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.streams {
		close(s.end)
	}
	m.streams = nil
	m.changedLocked()
}

// WaitStreams waits until exactly n streams are open, or ctx ends.
func (m *Master) WaitStreams(ctx context.Context, n int) error {
	for {
		m.mu.Lock()
		have, change := len(m.streams), m.change
		m.mu.Unlock()
		if have == n {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fmt.Errorf("%d streams, waited for %d: %w", have, n, ctx.Err())
		}
	}
}

// Streams returns how many streams are open.
func (m *Master) Streams() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.streams)
}

// Asked returns how many requests there were.
func (m *Master) Asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// Record frames one event.
func Record(event []byte) []byte {
	return append(fmt.Appendf(nil, "%d\n", len(event)), event...)
}

func (m *Master) serve(w http.ResponseWriter, r *http.Request) {
	// net/http notices that a client went only once its body is read.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	m.mu.Lock()
	answer, accepts := m.answer, m.accepts
	m.asked++
	m.mu.Unlock()
	if accepts != nil && !accepts(r) {
		http.Error(w, "not for "+r.Header.Get("Authorization"), http.StatusUnauthorized)
		return
	}
	if answer != nil {
		answer.ServeHTTP(w, r)
		return
	}
	text, isStream := m.document(r, body)
	switch {
	case text != nil:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
		return
	case !isStream:
		http.NotFound(w, r)
		return
	}
	if t := r.Header.Get("Content-Type"); t != "application/json" {
		http.Error(w, "Expecting 'Content-Type' of application/json", http.StatusUnsupportedMediaType)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	flush := w.(http.Flusher).Flush
	s, picture := m.open() // before anything is seen of it, lest an event be missed
	defer m.gone(s)
	if picture != nil {
		_, _ = w.Write(Record(picture))
	}
	flush()
	for {
		select {
		case b := <-s.bytes:
			if _, err := w.Write(b); err != nil {
				return
			}
			flush()
		case <-s.end:
			// Without the final chunk, as a master that died.
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			return
		}
	}
}

// open begins a stream. What is sent after the picture was set goes to it: both
// happen at once here.
func (m *Master) open() (*stream, []byte) {
	s := &stream{bytes: make(chan []byte), end: make(chan struct{}), done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.streams = append(m.streams, s)
	m.changedLocked()
	return s, m.picture
}

func (m *Master) gone(s *stream) {
	close(s.done)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.streams = slices.DeleteFunc(m.streams, func(o *stream) bool { return o == s })
	m.changedLocked()
}

func (m *Master) changedLocked() {
	close(m.change)
	m.change = make(chan struct{})
}
