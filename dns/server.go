package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"waggle/dns/guard"
)

// ServerConfig says where a Server listens and what it puts up with.
type ServerConfig struct {
	// Listen are the addresses to answer on, UDP and TCP each. Port 0 is any
	// port that both have free.
	Listen []netip.AddrPort
	// Readers is how many sockets, with a goroutine each, answer on each UDP
	// address, and how many goroutines answer what needs more than copying. More
	// than there are CPUs gain nothing; fewer leave CPUs to the rest of the node.
	Readers int
	// Loop is how UDP sockets are read.
	Loop Loop
	// Inherited are sockets that were opened before the process started. Those
	// on an address of Listen are used for it, others beside it. The Server
	// closes all. They outlive it elsewhere, so no query is lost at a restart.
	Inherited []*os.File
	// Handover lets the next Server of the same user listen before this one has
	// ended, and this one before the last has: then, too, no query over UDP is
	// lost. Two that go on side by side get half of the queries each.
	Handover bool
	// Allow are the networks that are answered, all others get REFUSED and
	// nothing else; nil is everybody.
	Allow []netip.Prefix
	// Forward answers names that no zone has. Nil refuses them.
	Forward Forwarder
	// Kernel gives answers that are asked for often. Nil gives none. Whoever
	// changes a Zone or the Forwarder tells it so, or SetAccess has been called.
	Kernel Kernel
	// Transfer are the networks that may have whole zones (AXFR).
	Transfer []netip.Prefix
	// Limit is how many replies over UDP a network gets, Unlimited those that
	// get as many as they ask for.
	Limit     guard.LimitConfig
	Unlimited []netip.Prefix
	// CookieSecrets are what DNS cookies are made with, the first, and proven
	// by, all of them. None makes up a secret, and a new one each day.
	CookieSecrets []guard.Secret

	// Connections is how many TCP connections may be open at a time, over all
	// addresses; one more is closed at once. An idle one costs about 10 kB.
	// ConnectionsEach is how many of them one client address may hold.
	Connections, ConnectionsEach int
	// Idle is how long a TCP connection may go without a whole query, and how
	// long a client may take to take an answer. While three quarters of the
	// connections are taken it is a tenth of that.
	Idle time.Duration

	// Log says which queries are logged.
	Log QueryLogConfig
}

// maxDefaultReaders is enough for a million queries a second.
const maxDefaultReaders = 8

// DefaultServerConfig returns a ServerConfig without addresses, with a reader
// for each of the first eight CPUs, that answers everybody and limits replies to
// networks other than this machine.
func DefaultServerConfig() ServerConfig {
	return ServerConfig{
		Readers: min(runtime.NumCPU(), maxDefaultReaders), Loop: LoopAuto, Connections: 1024, ConnectionsEach: 128, Idle: 10 * time.Second,
		Limit:     guard.DefaultLimitConfig(),
		Unlimited: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}
}

// Server answers DNS queries from a Zone.
type Server struct {
	cfg     ServerConfig
	zone    func() *Zone
	log     *zap.Logger
	metrics *metrics
	gate    *gate
	queries *queryLog
	sockets []socket
	jobs    chan job
}

// socket is what answers on one address, either nil if only the other was
// inherited.
type socket struct {
	udp *udpPort
	tcp *net.TCPListener
}

// NewServer returns a Server that answers each query from what zone returns at
// that moment: SERVFAIL for nil, which means that nothing is known yet. zone is
// called from many goroutines. A nil reg counts without showing.
func NewServer(cfg ServerConfig, zone func() *Zone, log *zap.Logger, reg prometheus.Registerer) *Server {
	s := &Server{cfg: cfg, zone: zone, log: log, gate: newGate(cfg), jobs: make(chan job, jobsWaiting)}
	s.metrics = newMetrics(reg, func() []string { return apexes(zone()) }, cfg.Kernel)
	s.queries = newQueryLog(cfg.Log, log.Named("query"), s.metrics.lost.Inc)
	return s
}

// apexes names the domains of z, in the order in which they are counted.
func apexes(z *Zone) (out []string) {
	if z != nil {
		for _, d := range z.layout.domains {
			out = append(out, d.apex)
		}
	}
	return out
}

// Addrs returns the addresses listened on, in the order configured, with their
// real ports.
func (s *Server) Addrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, sock := range s.sockets {
		if sock.udp != nil {
			out = append(out, sock.udp.addr)
		}
	}
	return out
}

// Run answers on what Listen opened until ctx ends, then closes it, waits for
// the queries it has read and returns ctx's error. It is called once.
func (s *Server) Run(ctx context.Context) error {
	// A reader that waits for packets may hold on to a slot of the scheduler.
	if s.cfg.Loop.Raw() {
		readers := max(1, s.cfg.Readers) * len(s.sockets)
		if s.cfg.Forward != nil {
			readers++ // of answers from upstreams
		}
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + readers)
		defer func() { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) - readers) }()
	}
	defer s.close()
	g, ctx := errgroup.WithContext(ctx)
	for _, sock := range s.sockets {
		if sock.udp != nil {
			g.Go(func() error { return s.serveUDP(ctx, sock.udp) })
		}
		if sock.tcp != nil {
			g.Go(func() error { return s.serveTCP(ctx, sock.tcp, s.metrics.newTally(protoTCP)) })
		}
	}
	var workers sync.WaitGroup
	for range max(1, s.cfg.Readers) {
		workers.Go(func() { s.work(s.metrics.newTally(protoUDP)) })
	}
	g.Go(func() error { return s.queries.run(ctx) })
	g.Go(func() error { return s.rollCookies(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		s.shut()
		return ctx.Err()
	})
	err := g.Wait()
	close(s.jobs) // nobody reads any more
	workers.Wait()
	return err
}

// shut ends whoever reads.
func (s *Server) shut() {
	for _, sock := range s.sockets {
		if sock.udp != nil {
			sock.udp.shut()
		}
		if sock.tcp != nil {
			_ = sock.tcp.Close()
		}
	}
}

func (s *Server) close() {
	s.shut()
	for _, sock := range s.sockets {
		if sock.udp != nil {
			sock.udp.close()
		}
	}
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
