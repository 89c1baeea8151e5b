// Package zktest runs real ZooKeeper servers, those of Debian's package, for
// tests: alone or as an ensemble, on free ports of the loopback, with their data
// in the test's folder.
package zktest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waggle/internal/testnet"
)

// Ensemble is one or more servers that serve the same data.
type Ensemble struct {
	Servers []*Server

	tb testing.TB
}

// Start starts n servers, 1 or an odd number, and waits until all of them
// serve. They end with the test. It skips the test where ZooKeeper is not
// installed.
func Start(tb testing.TB, n int) *Ensemble {
	tb.Helper()
	if _, err := os.Stat(jar); err != nil {
		testnet.Skip(tb, fmt.Sprintf("ZooKeeper is not installed: %v", err))
	}
	if _, err := exec.LookPath("java"); err != nil {
		testnet.Skip(tb, fmt.Sprintf("ZooKeeper is not installed: %v", err))
	}
	for range 5 { // a port may be taken between being found and being used
		e := &Ensemble{tb: tb}
		e.configure(n)
		for _, s := range e.Servers {
			s.Start()
		}
		tb.Cleanup(func() {
			for _, s := range e.Servers {
				s.Kill()
			}
		})
		if e.wait() {
			return e
		}
		for _, s := range e.Servers {
			tb.Log(s.tail())
			s.Kill()
		}
	}
	tb.Fatal("ZooKeeper does not start")
	return nil
}

// URL is the zk:// URL of path in the ensemble.
func (e *Ensemble) URL(path string) string { return "zk://" + e.addrs() + path }

// AuthURL is that of a client with credentials, "user:password".
func (e *Ensemble) AuthURL(auth, path string) string { return "zk://" + auth + "@" + e.addrs() + path }

func (e *Ensemble) addrs() string {
	var all []string
	for _, s := range e.Servers {
		all = append(all, s.addr)
	}
	return strings.Join(all, ",")
}

// Kill kills all servers that run.
func (e *Ensemble) Kill() {
	for _, s := range e.Servers {
		s.Kill()
	}
}

// Restart starts all servers that are down and waits until they serve.
func (e *Ensemble) Restart() {
	e.tb.Helper()
	for _, s := range e.Servers {
		if s.process == nil {
			s.Start()
		}
	}
	if !e.wait() {
		for _, s := range e.Servers {
			e.tb.Log(s.tail())
		}
		e.tb.Fatal("ZooKeeper does not start again")
	}
}

// wait waits until every server serves; it returns false if that will not be.
func (e *Ensemble) wait() bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(startLimit)
	for _, s := range e.Servers {
		for s.mode() == "" {
			select {
			case <-tick.C:
			case <-deadline:
				return false
			}
			if s.down() {
				return false
			}
		}
	}
	return true
}

// configure writes the servers' folders. Ticks are short, so that sessions may
// be, 1 s at least.
func (e *Ensemble) configure(n int) {
	e.tb.Helper()
	ports := freePorts(e.tb, 3*n)
	var peers strings.Builder
	for i := range n {
		fmt.Fprintf(&peers, "server.%d=127.0.0.1:%d:%d\n", i+1, ports[n+2*i], ports[n+2*i+1])
	}
	if n == 1 {
		peers.Reset()
	}
	for i := range n {
		s := &Server{tb: e.tb, dir: e.tb.TempDir(), addr: fmt.Sprintf("127.0.0.1:%d", ports[i])}
		e.write(s, "zoo.cfg", fmt.Sprintf(`tickTime=500
initLimit=40
syncLimit=10
dataDir=%s
clientPort=%d
clientPortAddress=127.0.0.1
admin.enableServer=false
4lw.commands.whitelist=srvr
maxClientCnxns=0
minSessionTimeout=1000
maxSessionTimeout=60000
%s`, s.dir, ports[i], peers.String()))
		e.write(s, "myid", fmt.Sprint(i+1))
		e.write(s, "log4j.properties", "log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\n"+
			"log4j.appender.out.layout=org.apache.log4j.PatternLayout\nlog4j.appender.out.layout.ConversionPattern=%d{ISO8601} %p %c{1} %m%n\n")
		e.Servers = append(e.Servers, s)
	}
}

func (e *Ensemble) write(s *Server, name, text string) {
	e.tb.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		e.tb.Fatal(err)
	}
}

// freePorts returns n ports that nobody listened on just now.
func freePorts(tb testing.TB, n int) []int {
	tb.Helper()
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}
