package api

import (
	"embed"
	"net/http"
)

// The status page: plain files, which ask nobody but this server.
//
//go:embed page
var pageFiles embed.FS

// pageRoutes serve the status page.
func pageRoutes() []route {
	file := func(name, kind string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			body, err := pageFiles.ReadFile("page/" + name)
			if err != nil {
				panic(err) // embedded above
			}
			h := w.Header()
			h.Set("Content-Type", kind+"; charset=utf-8")
			h.Set("Cache-Control", "no-cache")
			h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write(body) // a client that is gone is told nothing
		}
	}
	return []route{
		{"/{$}", file("index.html", "text/html")},
		{"/page.css", file("page.css", "text/css")},
		{"/page.js", file("page.js", "text/javascript")},
	}
}

// openAPI describes every path, in OpenAPI 3.1. Tests hold it against the
// handlers and the types.
//
//go:embed openapi.json
var openAPI []byte
