package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Config is how a Cluster behaves. The zero value is not useful: start from
// DefaultConfig.
type Config struct {
	// Listen is where the first master listens ("127.0.0.1:0": any free port).
	// Further masters take any free port of the same address.
	Listen string
	// MarathonListen is where Marathon's REST listens.
	MarathonListen string
	// Masters is how many masters there are; the first one leads.
	Masters int
	// AgentAddr is the address tasks are said to run at, and where their health
	// is checked. It must be one of this machine's.
	AgentAddr netip.Addr
	// Ports is where ports come from that a definition leaves open.
	Ports PortRange
	// WorkDir holds a sandbox for each task, with its stdout and stderr. Empty
	// means a temporary folder that is removed when Run returns.
	WorkDir string
	// User is who tasks run as whose app names nobody. It matters only to root:
	// without privileges every task runs as ourselves.
	User string
	// Heartbeat is the time between two HEARTBEATs of a SUBSCRIBE stream.
	Heartbeat time.Duration
	// KillDelay lies between TASK_KILLING and SIGTERM when a single task is
	// killed: balancers have that long to send new connections elsewhere. Too
	// short and scaling down loses connections; longer only takes longer.
	KillDelay time.Duration
	// KillGrace lies between SIGTERM and SIGKILL, unless the app's
	// taskKillGracePeriodSeconds says otherwise.
	KillGrace time.Duration
	// ReregisterDelay is how long after an election the agent and its tasks are
	// unknown to the new leader.
	ReregisterDelay time.Duration
}

// PortRange is an inclusive range of ports.
type PortRange struct{ First, Last uint16 }

func (r PortRange) size() int { return int(r.Last) - int(r.First) + 1 }

// DefaultConfig is a cluster with one master on free loopback ports.
func DefaultConfig() Config {
	return Config{
		Listen:         "127.0.0.1:0",
		MarathonListen: "127.0.0.1:0",
		Masters:        1,
		AgentAddr:      netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		Ports:          PortRange{31000, 32000},
		User:           "nobody",
		Heartbeat:      15 * time.Second,
		KillDelay:      time.Second,
		KillGrace:      3 * time.Second,
	}
}

func (c Config) check() error {
	switch {
	case c.Masters < 1:
		return fmt.Errorf("masters: %d; at least one is needed", c.Masters)
	case !c.AgentAddr.IsValid():
		return errors.New("agent address: missing")
	case c.Ports.First == 0 || c.Ports.size() < 1:
		return fmt.Errorf("ports: %d to %d is no range", c.Ports.First, c.Ports.Last)
	case c.Heartbeat <= 0:
		return fmt.Errorf("heartbeat: %s is not above 0", c.Heartbeat)
	}
	return nil
}

// Cluster is an embedded cluster. All its methods are safe for concurrent use.
type Cluster struct {
	cfg          Config
	log          *zap.Logger
	masters      []*master
	marathon     net.Listener
	marathonAddr netip.AddrPort
	executable   string
	workDir      string // set by Run

	run      runFunc // starts processes; tests without processes replace it
	obstacle func(*App) string
	dirty    chan struct{} // one slot: the scheduler has something to look at

	mu          sync.Mutex // guards everything below
	world       world
	apps        map[string]*appState
	generations int           // how many appState.generation were given out
	changed     chan struct{} // closed and replaced when anything changes
}

// New binds the listeners. Call Run to serve and to start apps, or Close if it
// is never to run.
func New(cfg Config, log *zap.Logger) (*Cluster, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("read cluster settings: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	c := newCluster(cfg, log)
	c.executable = self
	c.obstacle = obstacleHere
	for i := range cfg.Masters {
		l, err := net.Listen("tcp", masterListen(cfg.Listen, i))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for master %d: %w", i, err), c.Close())
		}
		c.masters = append(c.masters, newMaster(c, i, l))
	}
	if c.marathon, err = net.Listen("tcp", cfg.MarathonListen); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for marathon: %w", err), c.Close())
	}
	c.marathonAddr = addrOf(c.marathon)
	return c, nil
}

// newCluster is the part that needs no network.
func newCluster(cfg Config, log *zap.Logger) *Cluster {
	return &Cluster{
		cfg:      cfg,
		log:      log,
		obstacle: func(*App) string { return "" },
		dirty:    make(chan struct{}, 1),
		world:    world{uuid: newUUID(), elected: time.Now(), streams: map[*stream]struct{}{}},
		apps:     map[string]*appState{},
		changed:  make(chan struct{}),
	}
}

func masterListen(listen string, i int) string {
	if host, _, err := net.SplitHostPort(listen); err == nil && i > 0 {
		return net.JoinHostPort(host, "0")
	}
	return listen
}

func addrOf(l net.Listener) netip.AddrPort {
	a := l.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Masters returns the addresses of the masters, the first leader's first.
func (c *Cluster) Masters() []netip.AddrPort {
	var out []netip.AddrPort
	for _, m := range c.masters {
		out = append(out, m.addr)
	}
	return out
}

// MarathonAddr returns the address of Marathon's REST.
func (c *Cluster) MarathonAddr() netip.AddrPort { return c.marathonAddr }

// Close releases the listeners of a Cluster that does not run.
func (c *Cluster) Close() error {
	var errs []error
	for _, m := range c.masters {
		errs = append(errs, m.listener.Close())
	}
	if c.marathon != nil {
		errs = append(errs, c.marathon.Close())
	}
	return errors.Join(errs...)
}

// Run serves and keeps apps running until ctx ends, and returns ctx's error.
// By then every process it started is gone, whatever it took.
func (c *Cluster) Run(ctx context.Context) (err error) {
	if c.workDir = c.cfg.WorkDir; c.workDir == "" {
		if c.workDir, err = temporaryDir(); err != nil {
			return errors.Join(err, c.Close())
		}
		defer os.RemoveAll(c.workDir)
	}
	if c.executable, err = withinReach(c.executable, c.workDir); err != nil {
		return errors.Join(err, c.Close())
	}
	spawner, err := newSpawner()
	if err != nil {
		return errors.Join(err, c.Close())
	}
	c.run = spawner.run
	defer func() { err = errors.Join(err, spawner.close()) }()

	g, ctx := errgroup.WithContext(ctx)
	servers := c.servers()
	for l, srv := range servers {
		g.Go(func() error { return serve(srv, l) })
	}
	g.Go(func() error {
		err := c.schedule(ctx)
		c.unregister()
		for _, srv := range servers {
			stopServing(ctx, srv)
		}
		return err
	})
	return g.Wait()
}

// temporaryDir makes a folder that tasks of other users can pass through.
func temporaryDir() (string, error) {
	dir, err := os.MkdirTemp("", "waggle-dev-")
	if err != nil {
		return "", fmt.Errorf("make a folder for sandboxes: %w", err)
	}
	return dir, os.Chmod(dir, 0o711)
}

// withinReach returns a path of the executable that tasks of other users can
// run even if it lies below a folder that is closed to them, as /root is.
func withinReach(executable, dir string) (string, error) {
	path := filepath.Join(dir, "waggle")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of an earlier run
		return "", err
	}
	if os.Link(executable, path) == nil {
		return path, nil
	}
	// Another file system.
	in, err := os.Open(executable)
	if err != nil {
		return "", fmt.Errorf("copy own executable: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return "", fmt.Errorf("copy own executable: %w", err)
	}
	if _, err := io.Copy(out, in); err != nil {
		return "", errors.Join(fmt.Errorf("copy own executable: %w", err), out.Close())
	}
	return path, out.Close()
}
