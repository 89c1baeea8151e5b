package api

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"waggle/dns"
)

// route is a path in the pattern of http.ServeMux, and what answers GET there.
type route struct {
	path   string
	answer http.HandlerFunc
}

// old adds routes to mux with the words that mesos-dns has for what is not
// there. HEAD is answered, which mesos-dns refuses.
func old(mux *http.ServeMux, routes []route) {
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "404: Page Not Found", http.StatusNotFound)
	})
	for _, r := range routes {
		mux.HandleFunc(r.path, func(w http.ResponseWriter, req *http.Request) {
			switch {
			case req.Method != http.MethodGet && req.Method != http.MethodHead:
				w.Header().Set("Allow", "GET, HEAD")
				http.Error(w, "405: Method Not Allowed", http.StatusMethodNotAllowed)
			default:
				r.answer(w, req)
			}
		})
	}
}

// plain serves JSON, and tells a client that wants something else.
func plain(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if accept := strings.Join(r.Header.Values("Accept"), ","); accept != "" && !acceptsJSON(accept) {
			http.Error(w, "406: Not Acceptable", http.StatusNotAcceptable)
			return
		}
		answer(w, r)
	}
}

func acceptsJSON(accept string) bool {
	for kind := range strings.SplitSeq(accept, ",") {
		kind, _, _ = strings.Cut(kind, ";")
		switch strings.TrimSpace(kind) {
		case "application/json", "application/*", "*/*":
			return true
		}
	}
	return false
}

// zoned is plain for what needs a picture of the cluster.
func (s *Server) zoned(answer func(http.ResponseWriter, *http.Request, View)) http.HandlerFunc {
	return plain(func(w http.ResponseWriter, r *http.Request) {
		if v := s.view(); v.Zone != nil {
			answer(w, r, v)
			return
		}
		http.Error(w, notYet, http.StatusServiceUnavailable)
	})
}

// replyOld writes v as mesos-dns does: indented by one blank, no line feed at
// the end, and text as it is.
func replyOld(w http.ResponseWriter, v any) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetIndent("", " ")
	if err := enc.Encode(v); err != nil {
		panic(err) // plain structs of ours
	}
	w.Header().Set("Content-Type", "application/json")
	// A client that hangs up is the only way this fails, and nobody is left to tell.
	_, _ = w.Write([]byte(strings.TrimSuffix(b.String(), "\n")))
}

// addressesOf returns the addresses at name, those of version 4 first.
func addressesOf(z *dns.Zone, name string) []netip.Addr {
	_, _, records := z.Lookup(name)
	var out []netip.Addr
	for _, r := range records {
		if a, err := netip.ParseAddr(r.Data); err == nil && (r.Type == "A" || r.Type == "AAAA") {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// target is what a SRV record points to.
type target struct{ name, port string }

func targetOf(r dns.Record) (target, bool) {
	f := strings.Fields(r.Data)
	if r.Type != "SRV" || len(f) != 4 {
		return target{}, false
	}
	return target{name: f[3], port: f[2]}, true
}

// targetsOf returns what the SRV records at name point to.
func targetsOf(z *dns.Zone, name string) []target {
	_, _, records := z.Lookup(name)
	var out []target
	for _, r := range records {
		if t, ok := targetOf(r); ok {
			out = append(out, t)
		}
	}
	return out
}
