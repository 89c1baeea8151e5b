// Package api shows the daemon's state over HTTP: what a node serves, how it
// is, and its metrics. It changes nothing, and knows neither the kernel nor any
// scheduler; what it shows is handed to it as a View.
package api

import (
	"context"
	"crypto/tls"
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
	// Listen is a TCP address, "host:port". Empty means none. On loopback all may
	// read; elsewhere Access says who, and there is TLS.
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
	Access                 Access
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
	// Next is closed once there is a later View; nil is never.
	Next <-chan struct{}
}

// Server serves Views over HTTP. It is safe for concurrent use.
type Server struct {
	cfg       Config
	view      func() View
	log       *zap.Logger
	gather    prometheus.Gatherer
	feed      *feed
	metrics   *metrics
	meter     *meter
	patience  time.Duration // for a client to take what it is sent
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
// request, and the metrics of reg, its own among them.
func New(cfg Config, view func() View, reg *prometheus.Registry, log *zap.Logger) *Server {
	s := &Server{
		cfg: cfg, view: view, log: log, gather: reg, feed: newFeed(cfg.VIPZone), meter: &meter{gather: reg},
		patience: 10 * time.Second,
	}
	s.metrics = newMetrics(reg, s.feed)
	s.handler, s.dcos = s.mux(s.mesosDNSRoutes()), s.mux(s.dcosOwnRoutes())
	return s
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
		s.listeners = append(s.listeners, listener{l, s.metrics.counted(s.handler)})
	}
	for _, tcp := range []struct {
		addr    string
		handler http.Handler
	}{{s.cfg.Listen, s.handler}, {s.cfg.DCOS, s.dcos}} {
		if tcp.addr == "" {
			continue
		}
		l, err := s.listenTCP(tcp.addr, tcp.handler)
		if err != nil {
			return errors.Join(fmt.Errorf("listen for HTTP on %s: %w", tcp.addr, err), s.close())
		}
		s.listeners = append(s.listeners, l)
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
	g.Go(func() error { return s.feed.run(ctx, s.view) })
	for _, l := range s.listeners {
		srv := &http.Server{
			Handler: l.handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: zap.NewStdLog(s.log),
			BaseContext: func(net.Listener) context.Context { return ctx }, // streams end with it
		}
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
	return g.Wait()
}

func (s *Server) close() error {
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// listenTCP listens for this machine alone, or by TLS for those who may.
func (s *Server) listenTCP(addr string, h http.Handler) (listener, error) {
	own, err := Loopback(addr)
	if err != nil {
		return listener{}, err
	}
	if own {
		l, err := net.Listen("tcp", addr)
		return listener{l, s.metrics.counted(local(h))}, err
	}
	g := newGuard(s.cfg.Access)
	secure, err := g.tls()
	if err != nil {
		return listener{}, fmt.Errorf("not loopback, so it %w", err)
	}
	l, err := tls.Listen("tcp", addr, secure)
	return listener{l, s.metrics.counted(g.protect(h))}, err
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
