package wire

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// told remembers what it is told.
type told []error

func (l *told) Lost(err error) { *l = append(*l, err) }

func TestPacketsOfSeveralSocketsArriveInTheirOrder(t *testing.T) {
	var out Outbox
	a, atA := connected(t)
	b, atB := connected(t)
	for round := range 2 {
		for i := range 40 {
			out.Add(a, fmt.Appendf(nil, "a%d.%d", round, i), nil)
			if i%3 == 0 {
				out.Add(b, fmt.Appendf(nil, "b%d.%d", round, i), nil)
			}
		}
		out.Send()
		for i := range 40 {
			if got := receive(t, atA); got != fmt.Sprintf("a%d.%d", round, i) {
				t.Fatalf("round %d: %q is packet %d", round, got, i)
			}
			if i%3 == 0 {
				if got := receive(t, atB); got != fmt.Sprintf("b%d.%d", round, i) {
					t.Fatalf("round %d: %q is packet %d of the other", round, got, i)
				}
			}
		}
	}
}

func TestWhatCannotBeSentKeepsNothingElseBack(t *testing.T) {
	var out Outbox
	var lost, fine told
	h, at := connected(t)
	shut, _ := connected(t)
	if err := shut.Close(); err != nil {
		t.Fatal(err)
	}
	out.Add(h, []byte("first"), &fine)
	out.Add(h, make([]byte, 70_000), &lost)
	out.Add(shut, []byte("nowhere"), &lost)
	out.Add(h, []byte("second"), &fine)
	out.Add(h, make([]byte, 70_000), nil)
	out.Send()
	for _, want := range []string{"first", "second"} {
		if got := receive(t, at); got != want {
			t.Errorf("%q arrives, not %q", got, want)
		}
	}
	if len(lost) != 2 || !errors.Is(lost[0], unix.EMSGSIZE) || !errors.Is(lost[1], net.ErrClosed) || fine != nil {
		t.Errorf("told of %v, and of %v", lost, fine)
	}
	out.Send() // there is nothing left
}

func TestAMarkLastsUntilItsPacketsAreSent(t *testing.T) {
	var out Outbox
	h, _ := connected(t)
	seen := map[uint32]bool{}
	for range 5 {
		mark := out.Mark()
		for range 3 {
			out.Add(h, []byte("x"), nil)
			if again := out.Mark(); again != mark {
				t.Fatalf("mark %d becomes %d", mark, again)
			}
		}
		seen[mark] = true
		out.Send()
	}
	if len(seen) < 2 {
		t.Errorf("the mark is always the same: %v", seen)
	}
}

func TestManyRepliesLeaveTogether(t *testing.T) {
	for _, control := range []bool{false, true} {
		s, at := open(t, "udp4", control)
		var out Outbox
		var conns []*net.UDPConn
		for i := range 5 {
			conns = append(conns, dial(t, at))
			send(t, conns[i], fmt.Sprint(i))
			if n, err := s.Receive(); err != nil || n != 1 {
				t.Fatal(n, err)
			}
			l := s.Take(0)
			l.Reply(&out, append([]byte("to "), l.Packet...))
		}
		out.Send()
		for i, conn := range conns {
			if got := receive(t, conn); got != fmt.Sprint("to ", i) {
				t.Errorf("client %d is sent %q", i, got)
			}
		}
	}
}
