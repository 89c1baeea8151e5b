package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Hello is a small HTTP server for examples: it listens on an address like
// ":8080" until ctx ends, says on out where, and answers any GET with its app,
// its task and that address as text, /health with 200. When ctx ends it goes on
// serving for the time it lingers, as one does that waits for its clients to be
// told; requests that still run then get 2 s, and Hello returns nil.
func Hello(ctx context.Context, listen string, linger time.Duration, out io.Writer) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	text := fmt.Sprintf("hello from app %s, task %s, at %s\n", os.Getenv("MARATHON_APP_ID"), os.Getenv("MESOS_TASK_ID"), l.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, text) })
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: clientTimeout}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	fmt.Fprintf(out, "listening on %s\n", l.Addr())
	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", listen, err)
	case <-ctx.Done():
	}
	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", listen, err)
	case <-time.After(linger):
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err = srv.Shutdown(grace)
	if stopped := <-served; !errors.Is(stopped, http.ErrServerClosed) {
		err = errors.Join(err, stopped)
	}
	return err
}
