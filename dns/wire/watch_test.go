package wire

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// connected returns a socket with a peer, outside Go's poller, and the peer.
func connected(t testing.TB) (*Handle, *net.UDPConn) {
	t.Helper()
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	conn, err := net.DialUDP("udp4", nil, peer.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	h, err := Detach(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if err := peer.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return h, peer
}

func write(t testing.TB, h *Handle, text string) {
	t.Helper()
	h.Use(func(fd int) {
		if _, err := unix.Write(fd, []byte(text)); err != nil {
			t.Fatal(err)
		}
	})
}

// waiter runs w on a thread of its own and returns what it tells of, until it is
// shut.
func waiter(w *Watch) (ready chan int32) {
	ready = make(chan int32)
	go func() {
		defer close(ready)
		runtime.LockOSThread()
		for {
			tags, err := w.Wait()
			if err != nil {
				return
			}
			for _, tag := range tags {
				ready <- tag
			}
		}
	}()
	return ready
}

func newWatch(t testing.TB, eager bool) *Watch {
	t.Helper()
	w, err := NewWatch(eager)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func TestAWatchTellsWhereThereIsSomethingToRead(t *testing.T) {
	for _, eager := range []bool{false, true} {
		w, in := newWatch(t, eager), NewInbox()
		var handles [3]*Handle
		var peers [3]*net.UDPConn
		for i := range handles {
			handles[i], peers[i] = connected(t)
			// Both ways, for the peer to know whom to send to.
			write(t, handles[i], "hello")
			if err := w.Add(handles[i], int32(i)); err != nil {
				t.Fatal(err)
			}
		}
		var froms [3]*net.UDPAddr
		for i, peer := range peers {
			_, from, err := peer.ReadFromUDP(make([]byte, 10))
			if err != nil {
				t.Fatal(err)
			}
			froms[i] = from
		}
		ready := waiter(w)
		for round := range 60 {
			i := round % 3
			if _, err := peers[i].WriteToUDP(fmt.Append(nil, round), froms[i]); err != nil {
				t.Fatal(err)
			}
			if got := <-ready; got != int32(i) {
				t.Fatalf("eager %v: told of %d, not %d", eager, got, i)
			}
			n, errno := in.Receive(handles[i])
			if n != 1 || errno != 0 || string(in.Packet(0)) != fmt.Sprint(round) {
				t.Fatalf("%d packets, %v", n, errno)
			}
			if _, errno := in.Receive(handles[i]); errno != unix.EAGAIN {
				t.Fatalf("then %v", errno)
			}
			runtime.GC() // gets its turn
		}
		handles[0].Close()
		if _, errno := in.Receive(handles[0]); errno != unix.EBADF {
			t.Errorf("a closed socket is read with %v", errno)
		}
		w.Shut()
		if tag, ok := <-ready; ok {
			t.Errorf("told of %d after Shut", tag)
		}
	}
}

func TestARefusalIsToldToo(t *testing.T) {
	w := newWatch(t, true)
	h, peer := connected(t)
	peer.Close()
	if err := w.Add(h, 7); err != nil {
		t.Fatal(err)
	}
	ready := waiter(w)
	write(t, h, "hello")
	if got := <-ready; got != 7 {
		t.Errorf("told of %d", got)
	}
	if _, errno := NewInbox().Receive(h); errno != unix.ECONNREFUSED {
		t.Errorf("%v is what there is to read", errno)
	}
	w.Shut()
	<-ready
}

func TestAWatchThatIsClosedTakesNothing(t *testing.T) {
	w := newWatch(t, false)
	h, _ := connected(t)
	w.Shut()
	if _, err := w.Wait(); err != ErrClosed {
		t.Errorf("Wait returns %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	w.Shut() // does nothing any more
	if diff := cmp.Diff([]error{ErrClosed, nil}, []error{w.Add(h, 1), w.Close()}, cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })); diff != "" {
		t.Error(diff)
	}
}
