package zktest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// jar is where Debian's zookeeper package has the server; its manifest names
	// what it needs.
	jar = "/usr/share/java/zookeeper.jar"
	// startLimit is generous: a JVM takes 15 s on a loaded machine.
	startLimit = 60 * time.Second
)

// Server is one ZooKeeper server, which may be up or down.
type Server struct {
	tb   testing.TB
	dir  string
	addr string // host:port for clients

	process *os.Process // nil while down
	ended   chan struct{}
}

// Addr returns the host:port that clients use; it survives restarts.
func (s *Server) Addr() string { return s.addr }

// Start runs the server and does not wait until it serves.
func (s *Server) Start() {
	s.tb.Helper()
	if s.process != nil {
		s.tb.Fatal("the ZooKeeper server runs already")
	}
	// A small heap, and no compiler threads that two cores would notice.
	cmd := exec.Command("java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-cp", s.dir+":"+jar, "org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(s.dir, "zoo.cfg"))
	out, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The kernel kills the server when the thread that started it ends, so
		// the thread is kept until then.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is always killed
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		s.tb.Fatal(err)
	}
	s.process, s.ended = cmd.Process, ended
}

// Kill ends the server with SIGKILL, paused or not, and waits until it is gone.
// It does nothing while the server is down.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	s.signal(syscall.SIGKILL)
	<-s.ended
	s.process = nil
}

// Pause stops the server with SIGSTOP: connections stay and nobody answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig os.Signal) {
	s.tb.Helper()
	if err := s.process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.tb.Fatal(err)
	}
}

// mode asks the server what it is: standalone, leader or follower, or empty
// while it does not serve.
func (s *Server) mode() string {
	c, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	// A word sent while it starts may never be answered.
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(c, "srvr"); err != nil {
		return ""
	}
	text, _ := io.ReadAll(c)
	_, mode, _ := strings.Cut(string(text), "Mode: ")
	mode, _, _ = strings.Cut(mode, "\n")
	return mode
}

// down reports whether the server ended by itself.
func (s *Server) down() bool {
	select {
	case <-s.ended:
		return s.process != nil
	default:
		return false
	}
}

// tail is the end of the server's output.
func (s *Server) tail() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return fmt.Sprintf("%s said:\n%s", s.addr, text[max(0, len(text)-2000):])
}
