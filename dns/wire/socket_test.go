package wire

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what should happen at once.
const patience = time.Minute

// open returns a Socket on loopback, which is closed when the test ends, and
// where it is.
func open(t testing.TB, network string, control bool) (*Socket, netip.AddrPort) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	conn, err := net.ListenUDP(network, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if control {
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) }); err != nil {
			t.Fatal(err)
		}
	}
	at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s, err := NewSocket(conn, control)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Shut()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, at
}

func dial(t testing.TB, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func send(t testing.TB, conn *net.UDPConn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, conn *net.UDPConn) string {
	t.Helper()
	b := make([]byte, 1500)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestManyPacketsAreAnsweredAtOnce(t *testing.T) {
	for _, control := range []bool{false, true} {
		s, at := open(t, "udp4", control)
		conn := dial(t, at)
		from := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		for round := range 3 {
			// More than a batch, then fewer, so that sizes of the one before show.
			packets := []int{BatchSize + 5, 2, 1}[round]
			for range packets {
				send(t, conn, "packet"[:3+round])
			}
			for got := 0; got < packets; {
				n, err := s.Receive()
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					if s.Client(i) != from || string(s.Packet(i)) != "packet"[:3+round] {
						t.Fatalf("%q from %v", s.Packet(i), s.Client(i))
					}
					s.Reply(i, append(s.Room(i), s.Packet(i)...))
				}
				s.Send()
				got += n
			}
			for range packets {
				if got := receive(t, conn); got != "packet"[:3+round] {
					t.Errorf("reply is %q", got)
				}
			}
		}
	}
}

func TestAReplyThatCannotBeSentDoesNotHoldUpOthers(t *testing.T) {
	s, at := open(t, "udp4", false)
	conn := dial(t, at)
	for range 3 {
		send(t, conn, "q")
	}
	for got := 0; got < 3; {
		n, err := s.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if got+i == 1 {
				s.msgs[i].hdr.Namelen = 1 // no address: sending fails
			}
			s.Reply(i, []byte("r"))
		}
		s.Send()
		got += n
	}
	if got := receive(t, conn) + receive(t, conn); got != "rr" {
		t.Errorf("replies are %q", got)
	}
}

func TestALetterIsAnsweredLaterOrNotAtAll(t *testing.T) {
	s, at := open(t, "udp4", false)
	conn := dial(t, at)
	var letters []*Letter
	for _, text := range []string{"first", "second"} {
		send(t, conn, text)
		n, err := s.Receive()
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		letters = append(letters, s.Take(0))
	}
	if string(letters[0].Packet) != "first" || letters[0].Client != conn.LocalAddr().(*net.UDPAddr).AddrPort() {
		t.Errorf("letter is %+v", letters[0])
	}
	letters[0].Reply(nil, []byte("one"))
	if got := receive(t, conn); got != "one" {
		t.Errorf("reply is %q", got)
	}
	s.Shut()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	letters[1].Reply(nil, []byte("two"))
}

func TestShutEndsReceive(t *testing.T) {
	for _, packets := range []int{0, 3} { // from the start, and while it waits eagerly
		s, at := open(t, "udp4", false)
		conn := dial(t, at)
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() {
			runtime.LockOSThread()
			for got := 0; got < packets; {
				n, err := s.Receive()
				if err != nil {
					done <- err
					return
				}
				got += n
			}
			close(ready)
			_, err := s.Receive()
			done <- err
		}()
		for range packets {
			send(t, conn, "q")
		}
		<-ready
		s.Shut()
		select {
		case err := <-done:
			if !errors.Is(err, ErrClosed) {
				t.Errorf("Receive returned %v", err)
			}
		case <-time.After(patience):
			t.Fatal("Receive does not return")
		}
	}
}

// TestTheCollectorGetsItsTurn has a reader wait without the scheduler knowing,
// on every slot there is.
func TestTheCollectorGetsItsTurn(t *testing.T) {
	s, at := open(t, "udp4", false)
	conn := dial(t, at)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		for {
			n, err := s.Receive()
			if err != nil {
				return
			}
			for i := range n {
				s.Reply(i, []byte("r"))
			}
			s.Send()
		}
	}()
	for range 50 {
		send(t, conn, "q")
		receive(t, conn)
		runtime.GC()
	}
	s.Shut()
	<-done
}

func TestReceivingAndSendingAllocatesNothing(t *testing.T) {
	s, at := open(t, "udp4", true)
	conn := dial(t, at)
	text, back := []byte("q"), make([]byte, 100)
	got := testing.AllocsPerRun(200, func() {
		if _, err := conn.Write(text); err != nil {
			t.Fatal(err)
		}
		n, err := s.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if s.Client(i).IsValid() {
				s.Reply(i, append(s.Room(i), s.Packet(i)...))
			}
		}
		s.Send()
		if _, err := conn.Read(back); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations for each packet", got)
	}
}

func TestWithoutPreemptionASocketTellsTheScheduler(t *testing.T) {
	t.Setenv("GODEBUG", "asyncpreemptoff=1")
	s, at := open(t, "udp4", false)
	conn := dial(t, at)
	for range 5 {
		send(t, conn, "q")
		if _, err := s.Receive(); err != nil {
			t.Fatal(err)
		}
		if s.waiting {
			t.Error("the Socket waits without the scheduler knowing")
		}
	}
}

func TestClientsOfEitherFamilyAreRead(t *testing.T) {
	four := []byte{0, 0, 0x12, 0x34, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	six := make([]byte, unix.SizeofSockaddrInet6)
	copy(six, []byte{0, 0, 0x12, 0x34, 0, 0, 0, 0, 0xfd, 1})
	six[23] = 7
	mapped := make([]byte, unix.SizeofSockaddrInet6)
	copy(mapped[2:], []byte{0x12, 0x34})
	copy(mapped[18:], []byte{0xff, 0xff, 10, 0, 0, 1})
	four[0], six[0], mapped[0] = unix.AF_INET, unix.AF_INET6, unix.AF_INET6
	for _, c := range []struct {
		sockaddr []byte
		want     string
	}{{four, "10.0.0.1:4660"}, {six, "[fd01::7]:4660"}, {mapped, "10.0.0.1:4660"}, {four[:4], "invalid AddrPort"}} {
		if got := addrPort(c.sockaddr); got.String() != c.want {
			t.Errorf("%x is %v, want %s", c.sockaddr, got, c.want)
		}
	}
}
