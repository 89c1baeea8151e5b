package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// newRoutes are the paths that are waggle's own, all of them for GET.
func (s *Server) newRoutes() []route {
	return []route{
		{"/metrics", promhttp.HandlerFor(s.gather, promhttp.HandlerOpts{}).ServeHTTP},
		{"/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }},
		{"/readyz", s.readyz},
		{"/v2/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.view().Status()) }},
		{"/v2/tasks", page(s, s.tasks())},
		{"/v2/vips", page(s, s.vips())},
		{"/v2/vips/{vip}", s.viewed(s.oneVIP)},
		{"/v2/records", page(s, s.records())},
		{"/v2/records/{name}", s.viewed(s.oneName)},
		{"/v2/problems", s.viewed(func(w http.ResponseWriter, _ *http.Request, v View) { reply(w, SortedProblems(v.Problems())) })},
		{"/v2/explain", s.viewed(s.explain)},
		{changesPath, s.changes},
		{"/v2/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(openAPI) // a client that is gone is told nothing
		}},
	}
}

// mux returns the handler of all paths, with some that depend on the listener.
func (s *Server) mux(own []route) http.Handler {
	mux := http.NewServeMux()
	for _, r := range append(s.newRoutes(), pageRoutes()...) {
		mux.HandleFunc("GET "+r.path, r.answer)
	}
	mux.HandleFunc("GET /v2/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "there is nothing at %s", r.URL.Path)
	})
	old(mux, append(own, s.dcosRoutes()...))
	return mux
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	st := s.view().Status()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !st.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, r := range st.Reasons {
		fmt.Fprintln(w, r)
	}
	if st.Ready {
		fmt.Fprintln(w, "ready")
	}
}

// viewed answers once there is a picture to answer from; before that the answer
// is "not yet", which is not the same as an empty list. With the answer goes the
// position in the stream of changes from which nothing is missed.
func (s *Server) viewed(answer func(http.ResponseWriter, *http.Request, View)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		at := s.feed.now()
		v := s.view()
		if v.Snapshot == nil {
			refuse(w, http.StatusServiceUnavailable, "%s", notYet)
			return
		}
		w.Header().Set("Waggle-Sequence", s.feed.id(at))
		answer(w, r, v)
	}
}

// explain answers ?q=, a task, a name or a VIP.
func (s *Server) explain(w http.ResponseWriter, r *http.Request, v View) {
	q := r.URL.Query().Get("q")
	if q == "" {
		refuse(w, http.StatusBadRequest, "nothing asked: ?q=TASK, NAME or VIP")
		return
	}
	reply(w, v.Explain(q))
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	// A client that hangs up is the only way this fails, and nobody is left to tell.
	_ = enc.Encode(v)
}
