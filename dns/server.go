package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// ServerConfig says where a Server listens and what it puts up with.
type ServerConfig struct {
	// Listen are the addresses to answer on, UDP and TCP each. Port 0 is any
	// port that both have free.
	Listen []netip.AddrPort
	// Readers is how many goroutines answer on each UDP socket. More than there
	// are CPUs gain nothing; fewer leave CPUs to the rest of the node.
	Readers int
	// Connections is how many TCP connections may be open at a time, over all
	// addresses; one more is closed at once. An idle one costs about 10 kB.
	Connections int
	// Idle is how long a TCP connection may go without a whole query, and how
	// long a client may take to take an answer.
	Idle time.Duration
}

// DefaultServerConfig returns a ServerConfig without addresses.
func DefaultServerConfig() ServerConfig {
	return ServerConfig{Readers: 2, Connections: 1024, Idle: 10 * time.Second}
}

// Server answers DNS queries from a Zone.
type Server struct {
	cfg     ServerConfig
	zone    func() *Zone
	log     *zap.Logger
	metrics *metrics
	sockets []socket
	slots   chan struct{} // one taken for each TCP connection
}

// socket is what answers on one address.
type socket struct {
	udp *net.UDPConn
	tcp *net.TCPListener
}

// NewServer returns a Server that answers each query from what zone returns at
// that moment: SERVFAIL for nil, which means that nothing is known yet. zone is
// called from many goroutines. A nil reg counts without showing.
func NewServer(cfg ServerConfig, zone func() *Zone, log *zap.Logger, reg prometheus.Registerer) *Server {
	return &Server{
		cfg: cfg, zone: zone, log: log, metrics: newMetrics(reg),
		slots: make(chan struct{}, cfg.Connections),
	}
}

// Listen opens the sockets, all or none. Run closes them.
func (s *Server) Listen() error {
	for _, addr := range s.cfg.Listen {
		sock, err := listen(addr)
		if err != nil {
			s.close()
			s.sockets = nil
			return fmt.Errorf("listen for DNS on %s: %w", addr, err)
		}
		s.sockets = append(s.sockets, sock)
	}
	return nil
}

// listen opens both sockets of addr. A port that the kernel chose for UDP may
// be taken for TCP, so that is tried again.
func listen(addr netip.AddrPort) (socket, error) {
	var err error
	for range 8 {
		var sock socket
		if sock.udp, err = listenUDP(addr); err != nil {
			return socket{}, err
		}
		same := sock.udp.LocalAddr().(*net.UDPAddr)
		sock.tcp, err = net.ListenTCP(tcpNetwork(addr), &net.TCPAddr{IP: same.IP, Port: same.Port, Zone: same.Zone})
		if err == nil {
			return sock, nil
		}
		err = errors.Join(err, sock.udp.Close())
		if addr.Port() != 0 {
			break
		}
	}
	return socket{}, err
}

// Addrs returns the addresses listened on, in the order configured, with their
// real ports.
func (s *Server) Addrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, sock := range s.sockets {
		out = append(out, sock.udp.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return out
}

// Run answers on what Listen opened until ctx ends, then closes it, waits for
// the queries it has read and returns ctx's error.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, sock := range s.sockets {
		for range max(1, s.cfg.Readers) {
			g.Go(func() error { return s.serveUDP(ctx, sock.udp) })
		}
		g.Go(func() error { return s.serveTCP(ctx, sock.tcp) })
	}
	g.Go(func() error {
		<-ctx.Done()
		s.close()
		return ctx.Err()
	})
	return g.Wait()
}

func (s *Server) close() {
	for _, sock := range s.sockets {
		// Sockets that only read have nothing to lose when closing fails.
		_ = sock.udp.Close()
		_ = sock.tcp.Close()
	}
}

// handle returns the reply to packet, ready to send, nil for none.
func (s *Server) handle(packet []byte, proto string) []byte {
	start := time.Now()
	r := s.answer(packet, proto == protoTCP)
	s.metrics.count(proto, r, time.Since(start))
	if r == nil {
		return nil
	}
	out, err := r.Pack()
	if err != nil {
		s.log.Error("answer cannot be packed", zap.String("proto", proto), zap.Error(err))
		out, _ = refusal(r, dns.RcodeServerFailure).Pack()
	}
	return out
}

// answer keeps what goes wrong with one query from ending all others.
func (s *Server) answer(packet []byte, tcp bool) (r *dns.Msg) {
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			s.log.Error("panic while answering", zap.Any("panic", p), zap.Binary("query", packet), zap.ByteString("stack", debug.Stack()))
			if q, _ := parse(packet); q != nil {
				r = refusal(q, dns.RcodeServerFailure)
			}
		}
	}()
	return reply(s.zone(), packet, tcp, rand.Uint32())
}

// pause is how long a socket rests after an error that is not its end, such as
// running out of memory or descriptors.
const pause = 10 * time.Millisecond

// ended logs a socket's error and reports whether its loop is over.
func (s *Server) ended(ctx context.Context, what string, err error) bool {
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return true
	}
	s.log.Warn("DNS socket", zap.String("doing", what), zap.Error(err))
	select {
	case <-ctx.Done():
		return true
	case <-time.After(pause):
		return false
	}
}
