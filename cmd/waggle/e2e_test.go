package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"waggle/api"
	"waggle/internal/testnet"
)

// The real program, built once, run as a user would.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "waggle-e2e-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // for the test that is nobody
		return "", err
	}
	bin := filepath.Join(dir, "waggle")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == selfTestVerb {
		// A daemon inside a test runs what it takes for itself.
		os.Exit(run(context.Background(), env{args: os.Args[1:], stdout: os.Stdout, stderr: os.Stderr}))
	}
	code := m.Run()
	if bin, err := built(); err == nil {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

func binary(tb testing.TB) string {
	tb.Helper()
	bin, err := built()
	if err != nil {
		tb.Fatal(err)
	}
	return bin
}

// node is a machine of its own: a namespace with an address that the client's
// namespace reaches, and a cgroup that the daemon balances for.
type node struct {
	*testnet.Namespace
	client *testnet.Namespace
	addr   netip.Addr
	cgroup string
	state  string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{Namespace: testnet.New(t), client: testnet.New(t), addr: netip.MustParseAddr("10.99.0.1")}
	var err error
	if n.state, err = os.MkdirTemp("", "waggle-node-"); err != nil { // t.TempDir is closed to nobody
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(n.state) })
	if err := os.Chmod(n.state, 0o755); err != nil {
		t.Fatal(err)
	}
	testnet.Link(t, n.Namespace, netip.MustParsePrefix("10.99.0.1/24"), n.client, netip.MustParsePrefix("10.99.0.2/24"))
	for _, ns := range []*testnet.Namespace{n.Namespace, n.client} {
		ns.Default(t, n.addr.Next()) // a route for VIPs; the rewrite comes before it is used
	}
	n.cgroup = testnet.Cgroup(t)
	testnet.Enter(t, n.cgroup)
	t.Cleanup(func() { n.unload(t) }) // once every process has stopped
	return n
}

// process is a waggle that runs on a node.
type process struct {
	cmd    *exec.Cmd
	out    *lines
	exited chan error
}

// verb is a command line with what the daemons of a test have in common.
func (n *node) verb(name string, args ...string) []string {
	return append([]string{
		name, "--dns.listen", n.addr.String() + ":53", "--http.listen", "", "--http.socket", n.socket(),
		"--lb.pin_dir", n.pins(), "--lb.cgroup", n.cgroup, "--lb.backend", "ebpf", "--log.level", "info",
		"--state.dir", n.archive(), "--dns.forward.on=false",
	}, args...)
}

func (n *node) socket() string  { return filepath.Join(n.state, "waggle.sock") }
func (n *node) archive() string { return filepath.Join(n.state, "lib") }
func (n *node) pins() string {
	return "/sys/fs/bpf/waggle-" + filepath.Base(n.cgroup)
}

// start runs waggle on the node until the test ends.
func (n *node) start(t *testing.T, args ...string) *process {
	t.Helper()
	return n.startCommand(t, append([]string{binary(t)}, args...)...)
}

// startCommand is start for a command line of its own.
func (n *node) startCommand(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(args[0], args[1:]...), out: &lines{}, exited: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	n.Must(t, p.cmd.Start)
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() {
		p.stop(t, syscall.SIGTERM)
		if t.Failed() {
			t.Logf("%s said:\n%s", strings.Join(args, " "), p.out)
		}
	})
	return p
}

// stop ends the process, if it has not ended, and waits for it.
func (p *process) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	_ = p.cmd.Process.Signal(sig) // it may have ended by itself
	select {
	case err := <-p.exited:
		p.exited <- err
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		t.Errorf("waggle did not end within 20 s of %v", sig)
	}
}

func (n *node) unload(t *testing.T) {
	t.Helper()
	out, err := exec.Command(binary(t), "unload", "--lb.pin_dir", n.pins()).CombinedOutput()
	if err != nil {
		t.Errorf("unload: %v: %s", err, out)
	}
	if _, err := os.Stat(n.pins()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there", n.pins())
	}
}

// lines keeps what a process prints.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// eventually polls until ok, for up to 30 s.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("30 s passed without: %s", what)
		}
	}
}

// vips asks the daemon of the node; nothing yet is nil.
func (n *node) vips(t *testing.T) map[string]api.VIP {
	t.Helper()
	var list []api.VIP
	if err := (api.Client{Socket: n.socket()}).Get(t.Context(), "/v2/vips", &list); err != nil {
		return nil
	}
	out := map[string]api.VIP{}
	for _, v := range list {
		out[strings.TrimSuffix(v.Name, ".l4lb.thisdcos.directory.")] = v
	}
	return out
}

// up waits until a VIP has n backends that are up.
func (n *node) up(t *testing.T, name string, backends int) netip.AddrPort {
	t.Helper()
	var at netip.AddrPort
	eventually(t, fmt.Sprintf("%s has %d backends", name, backends), func() bool {
		v, up := n.vips(t)[name], 0
		for _, b := range v.Backends {
			if b.Weight > 0 {
				up++
			}
		}
		at = netip.AddrPortFrom(v.Address, v.Port)
		return up == backends && len(v.Backends) == backends
	})
	return at
}

// query asks the node's DNS for a name, from ns.
func (n *node) query(t *testing.T, ns *testnet.Namespace, name string, kind uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	var reply *dns.Msg
	ns.Must(t, func() (err error) {
		reply, err = dns.Exchange(m, n.addr.String()+":53")
		return err
	})
	return reply
}

// memcachedVersion and memcached's set and get, through a new connection.
func setAndGet(ns *testnet.Namespace, at netip.AddrPort, value string) error {
	return ns.Do(func() error {
		c, err := net.DialTimeout("tcp", at.String(), 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		fmt.Fprintf(c, "set bee 0 0 %d\r\n%s\r\nget bee\r\nquit\r\n", len(value), value)
		got, err := io.ReadAll(c)
		if err != nil {
			return err
		}
		if want := fmt.Sprintf("STORED\r\nVALUE bee 0 %d\r\n%s\r\nEND\r\n", len(value), value); string(got) != want {
			return fmt.Errorf("memcached said %q, want %q", got, want)
		}
		return nil
	})
}

func TestTheSeedsMemcachedIsReachedByNameAndVIP(t *testing.T) {
	n := newNode(t)
	p := n.start(t, n.verb("dev", "--agent-ip", n.addr.String(), "../../examples/memcached.json")...)
	p.said(t, everythingRuns)
	at := n.up(t, "memcached.marathon", 1)
	if at.Port() != 11211 {
		t.Errorf("the VIP is %s, want port 11211", at)
	}
	for name, want := range map[string]string{
		"memcached.marathon.mesos.":                          n.addr.String(),
		"memcached.marathon.l4lb.thisdcos.directory.":        at.Addr().String(),
		"MemCached.marathon.autoip.dcos.thisdcos.directory.": n.addr.String(),
	} {
		r := n.query(t, n.client, name, dns.TypeA)
		if len(r.Answer) != 1 || !r.Authoritative || r.Answer[0].(*dns.A).A.String() != want {
			t.Errorf("%s: %v, want %s", name, r.Answer, want)
		}
	}
	for _, name := range []string{"_memcached._tcp.marathon.mesos.", "_connect._memcached._tcp.marathon.mesos."} {
		r := n.query(t, n.client, name, dns.TypeSRV)
		if len(r.Answer) != 1 || r.Answer[0].(*dns.SRV).Port != 11211 || len(r.Extra) != 1 || r.Extra[0].(*dns.A).A.String() != n.addr.String() {
			t.Errorf("%s: %v %v", name, r.Answer, r.Extra)
		}
	}
	if r := n.query(t, n.client, "memcached.marathon.mesos.", dns.TypeAAAA); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 || len(r.Ns) != 1 {
		t.Errorf("AAAA: %v", r)
	}
	if r := n.query(t, n.client, "nobody.marathon.mesos.", dns.TypeA); r.Rcode != dns.RcodeNameError || len(r.Ns) != 1 {
		t.Errorf("a missing name: %v", r)
	}
	if r := n.query(t, n.client, "example.com.", dns.TypeA); r.Rcode != dns.RcodeRefused {
		t.Errorf("somebody else's name: %v", r)
	}
	why, err := exec.Command(binary(t), "explain", "--socket", n.socket(), "memcached.marathon.l4lb.thisdcos.directory").CombinedOutput()
	if err != nil || !strings.Contains(string(why), "this node balances "+at.String()) || !strings.Contains(string(why), "A "+at.Addr().String()+" from VIP") {
		t.Errorf("explain: %v\n%s", err, why)
	}
	if err := setAndGet(n.Namespace, at, "from the node"); err != nil {
		t.Error("from the node:", err)
	}
	if err := setAndGet(n.client, at, "from a container"); err != nil {
		t.Error("from another network namespace:", err)
	}
	nested := filepath.Join(n.cgroup, "a", "b")
	if err := os.MkdirAll(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	testnet.Enter(t, nested)
	if err := setAndGet(n.Namespace, at, "from a nested cgroup"); err != nil {
		t.Error("from a nested cgroup:", err)
	}
}

// What `waggle dev` says, the last of it once every app has passed its checks.
var (
	marathonAt     = regexp.MustCompile(`Marathon at (http://[^\s]+)`)
	mesosAt        = regexp.MustCompile(`Mesos at http://([^\s,]+)`)
	everythingRuns = regexp.MustCompile(`(Ctrl-C)`)
)

// said waits until the process has printed what re finds, and returns that.
func (p *process) said(t *testing.T, re *regexp.Regexp) string {
	t.Helper()
	var m []string
	eventually(t, "it says "+re.String(), func() bool {
		m = re.FindStringSubmatch(p.out.String())
		return m != nil
	})
	return m[1]
}

// scale changes the number of an app's instances by Marathon's REST.
func (n *node) scale(t *testing.T, marathon, app string, instances int) {
	t.Helper()
	n.Must(t, func() error {
		// A client of its own: connections must be made on this thread.
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: n.dial}}
		req, err := http.NewRequest(http.MethodPut, marathon+"/v2/apps/"+app, strings.NewReader(fmt.Sprintf(`{"instances": %d}`, instances)))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			return errors.New(resp.Status)
		}
		return nil
	})
}

func (n *node) dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// hello asks the example's web server which task answers.
func (n *node) hello(at netip.AddrPort) (string, error) {
	c, err := n.dial(context.Background(), "tcp", at.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	fmt.Fprintf(c, "GET / HTTP/1.0\r\nHost: hello\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %w", resp.Status, err)
	}
	return string(text), nil
}

// load asks hello over and over until stop is called, which returns how many
// questions were asked and the first few failures.
func (n *node) load(at netip.AddrPort) (stop func() (int, []error)) {
	quit, done := make(chan struct{}), make(chan struct{})
	asked, failures := 0, []error(nil)
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
			}
			asked++
			if _, err := n.hello(at); err != nil && len(failures) < 5 {
				failures = append(failures, err)
			}
		}
	}()
	return func() (int, []error) {
		close(quit)
		<-done
		return asked, failures
	}
}

func TestThreeInstancesShareAndComeAndGoWithoutALoss(t *testing.T) {
	n := newNode(t)
	p := n.start(t, n.verb("dev", "--agent-ip", n.addr.String(), "../../examples/hello.json")...)
	marathon := p.said(t, marathonAt)
	at := n.up(t, "hello.marathon", 3)

	answers := map[string]int{}
	for i := range 3000 {
		text, err := n.hello(at)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		answers[text]++
	}
	least, most := 3000, 0
	for _, c := range answers {
		least, most = min(least, c), max(most, c)
	}
	t.Logf("3000 connections: %d to %d an instance, ratio %.2f", least, most, float64(most)/float64(least))
	if len(answers) != 3 || float64(most) > 1.3*float64(least) {
		t.Errorf("3000 connections spread as %v", answers)
	}

	// Kill one behind the scheduler's back; from its event on nobody is sent there.
	victim := n.vips(t)["hello.marathon"].Backends[0]
	if err := syscall.Kill(n.listener(t, victim.Port), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the killed task is gone from the VIP", func() bool {
		for _, b := range n.vips(t)["hello.marathon"].Backends {
			if b.Task == victim.Task {
				return false
			}
		}
		return true
	})
	for i := range 300 {
		if _, err := n.hello(at); err != nil {
			t.Fatalf("connection %d after the event: %v", i, err)
		}
	}
	n.up(t, "hello.marathon", 3)

	stop := n.load(at)
	n.scale(t, marathon, "hello", 10)
	n.up(t, "hello.marathon", 10)
	n.scale(t, marathon, "hello", 3)
	n.up(t, "hello.marathon", 3)
	if asked, failures := stop(); len(failures) > 0 || asked < 50 {
		t.Errorf("%d connections while scaling to 10 and back, failures: %v", asked, failures)
	}
}

// listener returns the process that listens on a port of the node.
func (n *node) listener(t *testing.T, port uint16) int {
	t.Helper()
	var out []byte
	n.Must(t, func() (err error) {
		out, err = exec.Command("ss", "-Hltnp", fmt.Sprintf("sport = :%d", port)).Output()
		return err
	})
	m := regexp.MustCompile(`pid=(\d+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("nobody listens on %d: %s", port, out)
	}
	var pid int
	fmt.Sscan(string(m[1]), &pid)
	return pid
}

func TestAKilledDaemonLeavesConnectionsWorking(t *testing.T) {
	n := newNode(t)
	cluster := n.start(t, "dev", "--agent-ip", n.addr.String(), "--lb.backend", "none",
		"--dns.listen", "127.0.0.1:8053", "--http.socket", filepath.Join(n.state, "dev.sock"), "../../examples/hello.json")
	args := n.verb("run", "--mesos.masters", cluster.said(t, mesosAt))
	daemon := n.start(t, args...)
	at := n.up(t, "hello.marathon", 3)

	established, err := n.dial(t.Context(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer established.Close()
	stop := n.load(at)
	for range 3 {
		daemon.stop(t, syscall.SIGKILL)
		if _, err := n.hello(at); err != nil {
			t.Fatalf("without a daemon: %v", err)
		}
		daemon = n.start(t, args...)
		if again := n.up(t, "hello.marathon", 3); again != at {
			t.Errorf("the VIP was %s, is %s", at, again)
		}
	}
	asked, failures := stop()
	if len(failures) > 0 || asked < 20 {
		t.Errorf("%d connections over three kills, failures: %v", asked, failures)
	}
	fmt.Fprintf(established, "GET / HTTP/1.0\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(established), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the connection from before the kills: %v, %v", resp, err)
	}
}

func TestDevOnTheWholeMachineLeavesNothingBehind(t *testing.T) {
	n := newNode(t)
	p := n.start(t, "dev", "--agent-ip", n.addr.String(), "--dns.listen", n.addr.String()+":53", "--lb.backend", "ebpf",
		"--lb.pin_dir", n.pins(), "--http.socket", n.socket(), "../../examples")
	at := n.up(t, "memcached.marathon", 1)
	p.said(t, everythingRuns)
	said := p.out.String()
	for _, want := range []string{
		"dig +short -p 53 @10.99.0.1 A memcached.marathon.mesos", "nc -N " + at.Addr().String() + " 11211",
		"curl http://", "GPU", "laketide/nordicdata",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if err := setAndGet(n.client, at, "through the root"); err != nil {
		t.Error(err)
	}
	before := n.children(t, p.cmd.Process.Pid)
	if len(before) < 4 {
		t.Errorf("only %d processes run", len(before))
	}
	p.stop(t, syscall.SIGINT)
	err := <-p.exited
	if p.exited <- err; err != nil {
		t.Errorf("Ctrl-C ended it with %v", err)
	}
	for _, pid := range before {
		if alive(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	for _, path := range []string{n.pins(), n.socket()} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", path)
		}
	}
}

// alive reports whether a process runs. One that has ended may stay defunct
// where process 1 reaps nobody.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.HasPrefix(text[bytes.LastIndexByte(text, ')')+1:], []byte(" Z"))
}

// children returns all descendants of a process.
func (n *node) children(t *testing.T, pid int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	parents := map[int]int{}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		var child, parent int
		fmt.Sscan(filepath.Base(filepath.Dir(path)), &child)
		fmt.Sscan(string(bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])[1]), &parent)
		parents[child] = parent
	}
	var out []int
	for child := range parents {
		for at := child; at > 1; at = parents[at] {
			if parents[at] == pid {
				out = append(out, child)
				break
			}
		}
	}
	return out
}

func TestAStartThatFailsLeavesNothingInTheKernel(t *testing.T) {
	n := newNode(t)
	var busy net.PacketConn
	n.Must(t, func() (err error) { busy, err = net.ListenPacket("udp", n.addr.String()+":53"); return err })
	defer busy.Close()
	p := n.start(t, n.verb("dev", "--agent-ip", n.addr.String(), "../../examples/hello.json")...)
	err := <-p.exited
	p.exited <- err
	if err == nil || !strings.Contains(p.out.String(), "address already in use") {
		t.Errorf("ended with %v", err)
	}
	if _, err := os.Stat(n.pins()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there: %v", n.pins(), err)
	}
}

func TestWithoutPrivilegesDNSWorksAndWaggleSaysSo(t *testing.T) {
	n := newNode(t)
	state := filepath.Join(n.state, "nobody")
	if err := errors.Join(os.Mkdir(state, 0o777), os.Chmod(state, 0o777)); err != nil { // past the umask
		t.Fatal(err)
	}
	example, err := os.ReadFile("../../examples/hello.json")
	if err == nil {
		err = os.WriteFile(filepath.Join(n.state, "hello.json"), example, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary(t), "dev", "--agent-ip", n.addr.String(), "--dns.listen", n.addr.String()+":8053",
		"--http.socket", filepath.Join(state, "waggle.sock"), filepath.Join(n.state, "hello.json"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = state
	cmd.Env = append(os.Environ(), "HOME="+state, "TMPDIR="+state)
	p := &process{cmd: cmd, out: &lines{}, exited: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	n.Must(t, cmd.Start)
	go func() { p.exited <- cmd.Wait() }()
	t.Cleanup(func() { p.stop(t, syscall.SIGTERM) })
	p.said(t, regexp.MustCompile(`(DNS only: no VIP works here)`))
	m := new(dns.Msg)
	m.SetQuestion("hello.marathon.mesos.", dns.TypeA)
	n.Must(t, func() error {
		reply, err := dns.Exchange(m, n.addr.String()+":8053")
		if err == nil && len(reply.Answer) == 0 {
			err = fmt.Errorf("no answer: %v", reply)
		}
		return err
	})
	var st api.Status
	if err := (api.Client{Socket: filepath.Join(state, "waggle.sock")}).Get(t.Context(), "/v2/status", &st); err != nil || st.Balancer.Kind != "none" || !st.Ready {
		text, _ := json.Marshal(st)
		t.Errorf("status %s, %v", text, err)
	}
}
