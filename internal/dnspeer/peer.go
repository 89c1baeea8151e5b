// Package dnspeer starts other DNS servers for tests and measurements, each with
// a configuration of its own in a folder of the test's, on loopback, never as
// the service its package installs. It knows nothing of our own server.
package dnspeer

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Record is one record of a zone, in the form of zone files.
type Record struct {
	Name string // full, with the final dot
	Type string
	TTL  uint32 // seconds
	Data string
}

// Zone is what a server is to serve. Records has one SOA and at least one NS at
// the apex.
type Zone struct {
	Apex    string // with the final dot
	Records []Record
}

// Options say how a server is run.
type Options struct {
	// Friend may transfer the zone, nobody else. Invalid is nobody at all.
	Friend netip.Addr
	// Lean turns off what answers need not have, for measurements: the
	// additional section of NSD.
	Lean bool
	// Cache puts CoreDNS' cache before its zone.
	Cache bool
	// Upstream, if valid, makes Unbound, dnsmasq and CoreDNS ask it for
	// everything, with a cache before it; they have no zone of their own then.
	Upstream netip.AddrPort
	// At is where it listens, 127.0.0.1 if it is not valid.
	At netip.Addr
	// TLS makes Unbound answer by DNS over TLS beside.
	TLS TLS
}

// TLS is where a server answers by DNS over TLS, and as whom: files in PEM form.
type TLS struct {
	Addr      netip.AddrPort
	Cert, Key string
}

// Certificate makes a certificate for a DNS name that is its own authority, and
// returns the files that it and its key are in.
func Certificate(tb testing.TB, name string) (cert, key string) {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, private.Public(), private)
	if err != nil {
		tb.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return cert, key
}

// Server is a running server. It ends with the test.
type Server struct {
	Name string
	Addr netip.AddrPort
	Pid  int // its first process; others may be below it

	kind    Kind
	dir     string
	options Options
}

// Publish makes s serve zone in place of what it was started with: its files
// are written anew and it is told so as its manual says. It does not wait.
func (s *Server) Publish(zone Zone) error {
	if _, err := s.kind.configure(s.dir, s.Addr, zone, s.options); err != nil {
		return err
	}
	return syscall.Kill(s.Pid, syscall.SIGHUP)
}

// Kind is a server that can be started.
type Kind struct {
	Name    string
	Program string // looked up in the path and in /usr/sbin
	// configure writes files into dir and returns the command's arguments.
	configure func(dir string, at netip.AddrPort, zone Zone, o Options) ([]string, error)
}

// Other is a server that this package does not know: args returns the arguments
// to serve on an address.
func Other(name, program string, args func(at netip.AddrPort) []string) Kind {
	return Kind{Name: name, Program: program, configure: func(_ string, at netip.AddrPort, _ Zone, _ Options) ([]string, error) {
		return args(at), nil
	}}
}

// Find returns where the program of k is, or an error that says that it is not
// installed.
func (k Kind) Find() (string, error) {
	path, err := exec.LookPath(k.Program)
	if err != nil && !filepath.IsAbs(k.Program) {
		path, err = exec.LookPath(filepath.Join("/usr/sbin", k.Program))
	}
	if err != nil {
		return "", fmt.Errorf("%s is not installed: %w", k.Name, err)
	}
	return path, nil
}

// started is how long a server may take to load its zone on a busy machine.
const started = time.Minute

// Start runs the server until the test ends and returns it when it answers for
// the zone. It fails the test where the server does not start.
func (k Kind) Start(tb testing.TB, zone Zone, o Options) *Server {
	tb.Helper()
	path, err := k.Find()
	if err != nil {
		tb.Fatal(err)
	}
	// A port that is free now may be taken when the server starts.
	for range 3 {
		var s *Server
		if s, err = k.start(tb, path, zone, o); err == nil {
			return s
		}
	}
	tb.Fatalf("start %s: %v", k.Name, err)
	return nil
}

func (k Kind) start(tb testing.TB, path string, zone Zone, o Options) (*Server, error) {
	if !o.At.IsValid() {
		o.At = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	at, err := freePort(o.At)
	if err != nil {
		return nil, err
	}
	dir := tb.TempDir()
	args, err := k.configure(dir, at, zone, o)
	if err != nil {
		return nil, err
	}
	var output bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a session has a share of the CPU of its own
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := ready(at, zone.Apex, ended); err != nil {
		end(cmd.Process.Pid, ended)
		return nil, fmt.Errorf("%w: %s", err, output.Bytes())
	}
	tb.Cleanup(func() { end(cmd.Process.Pid, ended) })
	return &Server{Name: k.Name, Addr: at, Pid: cmd.Process.Pid, kind: k, dir: dir, options: o}, nil
}

// end stops a process group, politely at first.
func end(pid int, ended chan error) {
	_ = syscall.Kill(-pid, syscall.SIGTERM) // it may be gone already
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		<-ended
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL) // what its children have not taken in
}

// ready waits until the server answers for the apex.
func ready(at netip.AddrPort, apex string, ended chan error) error {
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	query := soaQuery(apex)
	buf := make([]byte, 4096)
	for deadline := time.Now().Add(started); time.Now().Before(deadline); {
		// Until the server listens, writing and reading fail at once.
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := conn.Write(query)
		n := 0
		if err == nil {
			n, err = conn.Read(buf)
		}
		if err == nil && n > 8 && buf[3]&15 == 0 && buf[7] > 0 {
			return nil
		}
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("it ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("no answer within %s", started)
}

func soaQuery(apex string) []byte {
	q := []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0} // with RD: a forwarder asks for nobody else
	for label := range bytes.SplitSeq([]byte(apex), []byte(".")) {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 6, 0, 1)
}

// freePort returns an address with a port that is free for UDP and TCP.
func freePort(addr netip.Addr) (netip.AddrPort, error) {
	var err error
	for range 20 {
		var l net.Listener
		if l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String()); err != nil {
			return netip.AddrPort{}, err
		}
		at := netip.MustParseAddrPort(l.Addr().String())
		var c net.PacketConn
		c, err = net.ListenPacket("udp", at.String())
		_ = l.Close() // either has only been tried
		if err == nil {
			_ = c.Close()
			return at, nil
		}
	}
	return netip.AddrPort{}, err
}

// write makes a file of lines.
func write(path string, lines func(w *bufio.Writer)) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	lines(w)
	if err := w.Flush(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// zoneFile writes zone in the form of RFC 1035 section 5 and returns its path.
func zoneFile(dir string, zone Zone) (string, error) {
	path := filepath.Join(dir, "zone")
	return path, write(path, func(w *bufio.Writer) {
		for _, r := range zone.Records {
			fmt.Fprintf(w, "%s %d IN %s %s\n", r.Name, r.TTL, r.Type, r.Data)
		}
	})
}
