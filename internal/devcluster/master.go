package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"
)

// clientTimeout is how long a client may take to accept what was written.
const clientTimeout = 10 * time.Second

// master is one Mesos master: it answers if it leads, and else says who does.
type master struct {
	c        *Cluster
	index    int
	uuid     string
	started  time.Time
	listener net.Listener
	addr     netip.AddrPort
}

func newMaster(c *Cluster, index int, l net.Listener) *master {
	return &master{c: c, index: index, uuid: newUUID(), started: time.Now(), listener: l, addr: addrOf(l)}
}

// servers returns what serves on each listener.
func (c *Cluster) servers() map[net.Listener]*http.Server {
	server := func(h http.Handler) *http.Server {
		return &http.Server{Handler: h, ReadHeaderTimeout: clientTimeout, ErrorLog: zap.NewStdLog(c.log)}
	}
	out := map[net.Listener]*http.Server{c.marathon: server(c.marathonHandler())}
	for _, m := range c.masters {
		out[m.listener] = server(m.handler())
	}
	return out
}

func serve(srv *http.Server, l net.Listener) error {
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	return nil
}

// stopServing lets requests finish for a second; ctx has ended already.
func stopServing(ctx context.Context, srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close() // its error is that of closing what is in use
	}
}

func (m *master) handler() http.Handler {
	mux := http.NewServeMux()
	for _, prefix := range []string{"", "/master"} {
		mux.HandleFunc(prefix+"/redirect", m.redirect)
		mux.HandleFunc(prefix+"/health", func(http.ResponseWriter, *http.Request) {})
		mux.HandleFunc("GET "+prefix+"/state", m.ifLeading("/master/state", m.serveState))
		mux.HandleFunc(prefix+"/api/v1", m.ifLeading("/master/api/v1", m.serveAPI))
	}
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"version": mesosVersion})
	})
	return mux
}

// leader returns the leading master, or nil.
func (c *Cluster) leader() *master {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.world.leader < 0 {
		return nil
	}
	return c.masters[c.world.leader]
}

// redirect sends the client to the leader, itself included.
func (m *master) redirect(w http.ResponseWriter, _ *http.Request) { m.sendTo(w, m.c.leader(), "") }

// ifLeading answers with h on the leader; others send the client to it.
func (m *master) ifLeading(path string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		l := m.c.leader()
		if l == m {
			h(w, r)
			return
		}
		if r.URL.RawQuery != "" {
			m.sendTo(w, l, path+"?"+r.URL.RawQuery)
			return
		}
		m.sendTo(w, l, path)
	}
}

// sendTo redirects without naming a scheme or giving a body, as Mesos does.
func (m *master) sendTo(w http.ResponseWriter, leader *master, path string) {
	if leader == nil {
		plain(w, http.StatusServiceUnavailable, "No leader elected")
		return
	}
	w.Header().Set("Location", "//"+leader.addr.String()+path)
	w.Header().Set("Content-Length", "0") // for HEAD too
	w.WriteHeader(http.StatusTemporaryRedirect)
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text) // a client that has gone needs no answer
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		plain(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

// serveAPI is the operator API. The media types are compared literally, as
// Mesos compares them; unlike Mesos it speaks JSON only.
func (m *master) serveAPI(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		plain(w, http.StatusMethodNotAllowed, "only POST is allowed here, not "+r.Method)
		return
	}
	switch r.Header.Get("Content-Type") {
	case "application/json":
	case "":
		plain(w, http.StatusBadRequest, "Content-Type is missing")
		return
	default:
		plain(w, http.StatusUnsupportedMediaType, "Content-Type must be application/json")
		return
	}
	var call struct{ Type string }
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&call); err != nil || call.Type == "" {
		plain(w, http.StatusBadRequest, "the body is no call: it has no type, or is not JSON")
		return
	}
	if !acceptsJSON(r.Header) {
		plain(w, http.StatusNotAcceptable, "Accept must allow application/json")
		return
	}
	if call.Type == "SUBSCRIBE" {
		m.serveStream(w, r)
		return
	}
	payload := m.answer(call.Type)
	if payload == nil {
		plain(w, http.StatusNotImplemented, "this embedded master does not know the call "+call.Type)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(message(call.Type, payload)) // a client that has gone needs no answer
}

func acceptsJSON(h http.Header) bool {
	accept := h.Values("Accept")
	for _, v := range strings.Split(strings.Join(accept, ","), ",") {
		v, _, _ = strings.Cut(v, ";")
		switch strings.TrimSpace(v) {
		case "application/json", "application/*", "*/*":
			return true
		}
	}
	return len(accept) == 0
}

// answer returns the payload of a call, or nil for one that is not known.
func (m *master) answer(call string) any {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	st := m.c.stateLocked()
	switch call {
	case "GET_STATE":
		return st
	case "GET_TASKS":
		return st.GetTasks
	case "GET_AGENTS":
		return st.GetAgents
	case "GET_FRAMEWORKS":
		return st.GetFrameworks
	case "GET_EXECUTORS":
		return st.GetExecutors
	case "GET_HEALTH":
		return map[string]bool{"healthy": true}
	case "GET_VERSION":
		return map[string]any{"version_info": map[string]string{"version": mesosVersion}}
	case "GET_MASTER":
		return map[string]any{
			"master_info":  m.info(),
			"start_time":   timestamp(m.started),
			"elected_time": timestamp(m.c.world.elected),
		}
	}
	return nil
}

// masterInfo is mesos.v1.MasterInfo without the deprecated ip.
type masterInfo struct {
	ID           string        `json:"id"`
	Port         uint16        `json:"port"`
	PID          string        `json:"pid"`
	Hostname     string        `json:"hostname"`
	Version      string        `json:"version"`
	Address      masterAddress `json:"address"`
	Capabilities []capability  `json:"capabilities"`
}

type masterAddress struct {
	Hostname string `json:"hostname"`
	IP       string `json:"ip"`
	Port     uint16 `json:"port"`
}

func (m *master) info() masterInfo {
	host := m.addr.Addr().String()
	return masterInfo{
		ID: m.uuid, Port: m.addr.Port(), PID: "master@" + m.addr.String(), Hostname: host, Version: mesosVersion,
		Address:      masterAddress{host, host, m.addr.Port()},
		Capabilities: []capability{{"AGENT_UPDATE"}, {"AGENT_DRAINING"}, {"QUOTA_V2"}},
	}
}

// serveStream is SUBSCRIBE: the whole picture, a heartbeat, then what happens,
// until the client leaves, falls too far behind, or this master leads no more.
func (m *master) serveStream(w http.ResponseWriter, r *http.Request) {
	first, s, ok := m.c.subscribe(m.index)
	if !ok {
		m.sendTo(w, m.c.leader(), "/master/api/v1")
		return
	}
	defer m.c.unsubscribe(s)
	w.Header().Set("Content-Type", "application/json")
	out := http.NewResponseController(w)
	send := func(msg []byte) bool {
		if err := out.SetWriteDeadline(time.Now().Add(clientTimeout)); err != nil {
			return false
		}
		_, err := w.Write(record(msg))
		return err == nil && out.Flush() == nil
	}
	heartbeat := message("HEARTBEAT", nil)
	if !send(first) || !send(heartbeat) {
		return
	}
	ticker := time.NewTicker(m.c.cfg.Heartbeat)
	defer ticker.Stop()
	for {
		msg, open := heartbeat, true
		select {
		case <-r.Context().Done():
			return
		case msg, open = <-s.events:
		case <-ticker.C:
		}
		if !open || !send(msg) {
			return
		}
	}
}
