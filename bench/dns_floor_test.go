package bench

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"waggle/dns/wire"
	"waggle/internal/dnspeer"
)

const (
	floorName = "receive and send"
	floorArg  = "floor:" // starts the argument that says where it listens
)

// floor is a server that has one answer to everything, so all it costs is what
// receiving and sending do: no server that uses sockets costs less. It is a
// process of its own, this test binary.
func floor(tb testing.TB) dnspeer.Kind {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return dnspeer.Other(floorName, self, func(at netip.AddrPort) []string {
		return []string{"-test.run", "^TestFloor$", "-test.timeout", "0", "-test.v", floorArg + at.String()}
	})
}

// TestFloor is no test: run by floor it serves until it is stopped.
func TestFloor(t *testing.T) {
	at, ok := strings.CutPrefix(os.Args[len(os.Args)-1], floorArg)
	if !ok {
		t.Skip("runs as a process of its own in make bench-dns only")
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conn.SyscallConn()
	var set error
	if err == nil { // as the program does
		err = raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		})
	}
	if err := errors.Join(err, set); err != nil {
		t.Fatal(err)
	}
	s, err := wire.NewSocket(conn, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, s.Shut)()
	runtime.LockOSThread()
	for {
		n, err := s.Receive()
		if errors.Is(err, wire.ErrClosed) {
			return
		}
		for i := range n {
			s.Reply(i, sameAnswer(s.Room(i), s.Packet(i)))
		}
		s.Send()
	}
}

// sameAnswer appends a reply with one address to room.
func sameAnswer(room, query []byte) []byte {
	end := 12
	for end < len(query) && query[end] != 0 {
		end += 1 + int(query[end])
	}
	out := append(room, query[:min(end+5, len(query))]...)
	copy(out[2:], []byte{0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0})
	return append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1)
}
