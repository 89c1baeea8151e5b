package feature

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// patience bounds waits for what must happen, impatience those for what should
// not.
const (
	patience   = time.Minute
	impatience = 2 * time.Second
)

var (
	nodeAddr  = netip.MustParsePrefix("10.77.0.1/24")
	awayAddr  = netip.MustParsePrefix("10.77.0.2/24")
	node6     = netip.MustParsePrefix("fd77::1/64")
	away6     = netip.MustParsePrefix("fd77::2/64")
	toGuest   = netip.MustParsePrefix("10.78.0.1/24")
	guestAddr = netip.MustParsePrefix("10.78.0.2/24")
	vip4      = vip.Frontend{Addr: netip.MustParseAddrPort("11.0.0.1:80"), Proto: model.TCP}
	vip6      = vip.Frontend{Addr: netip.MustParseAddrPort("[fd01:c::1]:80"), Proto: model.TCP}
)

// world is a machine with a balancer, another with backends, and a container.
type world struct {
	testing.TB
	node, away, guest *testnet.Namespace
	containers        string // folder in which they are registered
	bed               Bed
	wait              time.Duration // for what may take time
	plane             lb.Dataplane
	cfg               lb.Config
	rows              map[vip.Frontend]*vip.Service
	plan              *lb.Plan
	now               time.Time
}

func newWorld(tb testing.TB, bed func(testing.TB, Setting) Bed, wait time.Duration) *world {
	tb.Helper()
	w := &world{
		TB: tb, node: testnet.New(tb), away: testnet.New(tb), guest: testnet.New(tb), containers: tb.TempDir(), wait: wait,
		cfg: lb.DefaultConfig(), rows: map[vip.Frontend]*vip.Service{}, now: time.Now(),
	}
	testnet.Link(tb, w.node, nodeAddr, w.away, awayAddr)
	w.node.Addr(tb, "wt1", node6)
	w.away.Addr(tb, "wt1", away6)
	testnet.Link(tb, w.node, toGuest, w.guest, guestAddr)
	w.guest.Default(tb, toGuest.Addr())
	w.away.Default(tb, nodeAddr.Addr())
	w.node.Must(tb, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	w.bed = bed(tb, Setting{Node: w.node, Containers: w.containers})
	w.plane = w.bed.Open(tb)
	tb.Cleanup(func() { w.close() })
	return w
}

func (w *world) close() {
	if err := w.plane.Close(); err != nil {
		w.Error(err)
	}
}

// serve applies a Plan in which f has these backends; after is how much later
// than the last one that is.
func (w *world) serve(f vip.Frontend, after time.Duration, o vip.Options, backends ...vip.Backend) error {
	w.rows[f] = &vip.Service{Frontend: f, Options: o, Backends: backends}
	rows := model.Groups[vip.Frontend, *vip.Service]{}.Edit()
	for f, row := range w.rows {
		rows.Set(f, row)
	}
	w.now = w.now.Add(after)
	w.plan = lb.Build(w.plan, &vip.Table{Services: rows.Groups()}, w.cfg, w.now)
	return w.plane.Apply(w.Context(), w.plan)
}

// backend serves TCP at addr, away: each client is told the backend's address
// and its own, and then what it says.
func (w *world) backend(addr netip.Addr) vip.Backend {
	w.Helper()
	at := w.away.Serve(w, netip.AddrPortFrom(addr, 0), func(c net.Conn) {
		fmt.Fprintf(c, "%s %s\n", c.LocalAddr(), c.RemoteAddr())
		_, _ = io.Copy(c, c) // a client may go at any time
	})
	return vip.Backend{Addr: at, Weight: 1}
}

// conn is a connection to a backend.
type conn struct {
	net.Conn
	in   *bufio.Reader
	to   netip.AddrPort // the backend
	seen netip.Addr     // who it sees
}

// dial connects from ns and hears who answers. The caller closes it.
func (w *world) dial(ns *testnet.Namespace, to netip.AddrPort) (*conn, error) {
	c := &conn{}
	err := ns.Do(func() (err error) {
		c.Conn, err = net.DialTimeout("tcp", to.String(), w.wait)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.in = bufio.NewReader(c.Conn)
	if err := c.hear(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *conn) hear() error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	line, err := c.in.ReadString('\n')
	if err != nil {
		return err
	}
	return c.parse(line)
}

// parse reads "BACKEND CLIENT".
func (c *conn) parse(line string) error {
	to, seen, _ := strings.Cut(strings.TrimSpace(line), " ")
	var err error
	if c.to, err = netip.ParseAddrPort(to); err != nil {
		return err
	}
	from, err := netip.ParseAddrPort(seen)
	c.seen = from.Addr()
	return err
}

// echo reports whether the connection still works.
func (c *conn) echo() error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x\n")); err != nil {
		return err
	}
	line, err := c.in.ReadString('\n')
	if err == nil && line != "x\n" {
		err = fmt.Errorf("heard %q", line)
	}
	return err
}

// ask connects, hears who answers and hangs up.
func (w *world) ask(ns *testnet.Namespace, to netip.AddrPort) (*conn, error) {
	c, err := w.dial(ns, to)
	if err != nil {
		return nil, err
	}
	return c, c.Close()
}

// reaches returns an error unless the VIP leads to the backend.
func (w *world) reaches(f vip.Frontend, b vip.Backend) error {
	c, err := w.ask(w.node, f.Addr)
	if err == nil && c.to != b.Addr {
		err = fmt.Errorf("%s answers, not %s", c.to, b.Addr)
	}
	return err
}

// shares connects often and returns how often each backend answered.
func (w *world) shares(f vip.Frontend, times int) (map[netip.AddrPort]int, error) {
	got := map[netip.AddrPort]int{}
	for range times {
		c, err := w.ask(w.node, f.Addr)
		if err != nil {
			return nil, err
		}
		got[c.to]++
	}
	return got, nil
}

// register makes a container known as DC/OS' CNI plugin does.
func (w *world) register(ns *testnet.Namespace) error {
	return os.WriteFile(filepath.Join(w.containers, "guest"), []byte(ns.File(w)), 0o600)
}

// within tries until it works or the time for it is over.
func (w *world) within(try func() error) (err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(w.wait); ; <-tick.C {
		if err = try(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// disagree is the error of a proof that comes out otherwise.
func disagree(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

var errNotOffered = errors.New("not offered")
