// Package api shows the daemon's state over HTTP: what a node serves, how it
// is, and its metrics. It changes nothing, and knows neither the kernel nor any
// scheduler; what it shows is handed to it as a View.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"waggle/dns"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// Config says where the server listens.
type Config struct {
	// Socket is the path of a Unix socket, made with mode 0660 in a folder
	// made if missing. Empty means none.
	Socket string
	// Listen is a TCP address, "host:port". Empty means none. Everything is
	// readable there without a password, so it should be loopback.
	Listen string
	// DCOS is a TCP address like Listen. Where mesos-dns and DC/OS' daemon answer
	// one path in two ways, Listen and Socket answer as mesos-dns does, and DCOS
	// as the other. Empty means none.
	DCOS string
	// VIPZone is the name below which named VIPs are served.
	VIPZone string
	Version string // of this program
	// MesosDNS is the configuration as /v1/config shows it.
	MesosDNS MesosDNS
	// CryptoID is DC/OS' name of the cluster, its public key in z-base-32. Empty
	// if there is none.
	CryptoID string
	// NodeAddrs are the addresses of this machine, PublicAddrs those at which the
	// outside reaches it.
	NodeAddrs, PublicAddrs []netip.Addr
}

// View is the daemon's state at one moment. Snapshot, Table, Plan and Zone are
// nil before there are any; Problems, Status and Explain are called when they are
// asked for, Explain only while there is a Snapshot.
type View struct {
	Snapshot *model.Snapshot
	Table    *vip.Table
	Plan     *lb.Plan // nil for ever without a balancer
	Zone     *dns.Zone

	Published time.Time // when a source published Snapshot
	Problems  func() []model.Problem
	Status    func() Status
	Explain   func(query string) any // becomes JSON
}

// Server serves Views over HTTP. It is safe for concurrent use.
type Server struct {
	cfg       Config
	view      func() View
	log       *zap.Logger
	gather    prometheus.Gatherer
	handler   http.Handler
	dcos      http.Handler
	listeners []listener
}

// listener is where one of the handlers is served.
type listener struct {
	net.Listener
	handler http.Handler
}

const notYet = "no picture of the cluster yet"

// New returns a Server that shows what view returns at the time of each
// request, and the metrics of gather.
func New(cfg Config, view func() View, gather prometheus.Gatherer, log *zap.Logger) *Server {
	s := &Server{cfg: cfg, view: view, gather: gather, log: log}
	s.handler, s.dcos = s.mux(s.mesosDNSRoutes()), s.mux(s.dcosOwnRoutes())
	return s
}

// mux returns the handler of all paths, with some that depend on the listener.
func (s *Server) mux(own []route) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.gather, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /v2/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.view().Status()) })
	mux.HandleFunc("GET /v2/tasks", s.show(func(v View) any { return Tasks(v.Snapshot) }))
	mux.HandleFunc("GET /v2/vips", s.show(func(v View) any { return VIPs(v.Table, v.Plan, s.cfg.VIPZone) }))
	mux.HandleFunc("GET /v2/records", s.show(func(v View) any { return Records(v.Zone) }))
	mux.HandleFunc("GET /v2/problems", s.show(func(v View) any { return SortedProblems(v.Problems()) }))
	mux.HandleFunc("GET /v2/explain", s.explain)
	old(mux, append(own, s.dcosRoutes()...))
	return mux
}

// Handler returns the handler of all paths on Listen and Socket.
func (s *Server) Handler() http.Handler { return s.handler }

// Listen opens the configured listeners. Run closes them.
func (s *Server) Listen() error {
	if s.cfg.Socket != "" {
		l, err := listenUnix(s.cfg.Socket)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, listener{l, s.handler})
	}
	for _, tcp := range []struct {
		addr    string
		handler http.Handler
	}{{s.cfg.Listen, s.handler}, {s.cfg.DCOS, s.dcos}} {
		if tcp.addr == "" {
			continue
		}
		l, err := net.Listen("tcp", tcp.addr)
		if err != nil {
			return errors.Join(fmt.Errorf("listen for HTTP: %w", err), s.close())
		}
		s.listeners = append(s.listeners, listener{l, tcp.handler})
	}
	return nil
}

// Addrs returns the addresses listened on, the Unix socket's path first,
// then Listen and DCOS.
func (s *Server) Addrs() []net.Addr {
	var out []net.Addr
	for _, l := range s.listeners {
		out = append(out, l.Addr())
	}
	return out
}

// Run serves on what Listen opened until ctx ends, then lets running requests
// finish for up to 2 s and returns ctx's error.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		srv := &http.Server{Handler: l.handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: zap.NewStdLog(s.log)}
		g.Go(func() error {
			if err := srv.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			// The caller's context is over; the requests that run get their own.
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			return srv.Shutdown(grace)
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		return ctx.Err()
	})
	return g.Wait()
}

func (s *Server) close() error {
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// listenUnix takes over path if a daemon that is gone left it behind.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make socket folder: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on %s: another waggle answers there", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	st := s.view().Status()
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

// show serves a list once there is a picture to take it from; before that the
// answer is "not yet", which is not the same as an empty list.
func (s *Server) show(list func(View) any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		v := s.view()
		if v.Snapshot == nil {
			http.Error(w, notYet, http.StatusServiceUnavailable)
			return
		}
		reply(w, list(v))
	}
}

// explain answers ?q=, a task, a name or a VIP.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query().Get("q")
	if q == "" {
		http.Error(w, "nothing asked: ?q=TASK, NAME or VIP", http.StatusBadRequest)
		return
	}
	s.show(func(v View) any { return v.Explain(q) })(w, r)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	// A client that hangs up is the only way this fails, and nobody is left to tell.
	_ = enc.Encode(v)
}
