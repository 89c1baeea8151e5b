package dns

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"waggle/dns/wire"
)

const protoUDP = "udp"

// maxQuery is the longest query read over UDP; what is cut off makes it FORMERR.
const maxQuery = 4096

// udpBuffer is where queries wait while all readers are busy, instead of being
// lost: some 4000 of them, if the system allows so much.
const udpBuffer = 4 << 20

// Loop says how UDP sockets are read.
type Loop string

// The loops there are.
const (
	// LoopAuto is LoopRaw where the runtime can interrupt a waiting thread, else
	// LoopPlain.
	LoopAuto Loop = "auto"
	// LoopRaw reads and writes many packets with one system call, on a thread of
	// its own for each reader.
	LoopRaw Loop = "raw"
	// LoopPlain reads and writes one packet at a time by the network poller: a
	// third slower, and it asks nothing of the runtime.
	LoopPlain Loop = "plain"
)

// Raw reports whether it is the raw loop that l comes to.
func (l Loop) Raw() bool { return l == LoopRaw || l != LoopPlain && wire.Preemptible() }

// udpPort is one UDP address that is listened on, by as many sockets as there
// are readers. The kernel spreads clients over them.
type udpPort struct {
	addr  netip.AddrPort
	conns []*net.UDPConn // of the plain loop
	raw   []*wire.Socket // of the raw loop
}

// newUDPPort makes conns, all of one address, what loop reads.
func newUDPPort(conns []*net.UDPConn, loop Loop, borrowed bool) (*udpPort, error) {
	p := &udpPort{addr: conns[0].LocalAddr().(*net.UDPAddr).AddrPort(), conns: conns}
	if !loop.Raw() {
		return p, nil
	}
	for i, conn := range conns {
		s, err := wire.NewSocket(conn, p.addr.Addr().IsUnspecified())
		if err != nil {
			p.conns = conns[i:]
			p.close()
			return nil, err
		}
		if borrowed {
			s.Borrow()
		}
		p.raw = append(p.raw, s)
	}
	p.conns = nil
	return p, nil
}

func setSocket(conn *net.UDPConn, level, option, value int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return setRaw(raw, level, option, value)
}

func setRaw(raw syscall.RawConn, level, option, value int) error {
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), level, option, value) }); err != nil {
		return err
	}
	return set
}

// shut ends the readers.
func (p *udpPort) shut() {
	for _, s := range p.raw {
		s.Shut()
	}
	for _, conn := range p.conns {
		// Sockets that only read have nothing to lose when closing fails.
		_ = conn.Close()
	}
}

// close closes the sockets, which nobody may read any more.
func (p *udpPort) close() {
	p.shut()
	for _, s := range p.raw {
		_ = s.Close()
	}
}

// serveUDP answers what arrives at p until it is shut.
func (s *Server) serveUDP(ctx context.Context, p *udpPort) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, sock := range p.raw {
		g.Go(func() error { return s.serveRaw(ctx, sock, p.addr) })
	}
	for _, conn := range p.conns {
		g.Go(func() error { return s.servePlain(ctx, conn) })
	}
	return g.Wait()
}

func (s *Server) serveRaw(ctx context.Context, sock *wire.Socket, listen netip.AddrPort) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := newResponder(s, s.metrics.newTally(protoUDP), wire.BatchSize)
	keep := newKeeper(s, listen)
	late, foreign, out := make([]int, 0, wire.BatchSize), make([]int, 0, wire.BatchSize), &wire.Outbox{}
	for {
		n, err := sock.Receive()
		if err != nil {
			if err == wire.ErrClosed || s.ended(ctx, "read UDP", err) {
				return nil
			}
			continue
		}
		late, foreign = late[:0], foreign[:0]
		keep.begin()
		r.prepare(sock, n)
		for i := range n {
			client := sock.Client(i)
			reply, by := r.answer(i, sock.Room(i), sock.Packet(i), client)
			switch {
			case by == wire.Slow:
				late = append(late, i)
			case by == wire.Foreign:
				foreign = append(foreign, i)
			case reply != nil:
				sock.Reply(i, reply)
				keep.answered(sock, i, client.Addr(), r, reply)
			}
		}
		sock.Send()
		keep.flush()
		for _, i := range late {
			s.later(letter(sock, i))
		}
		// Asking waits for nothing, so no other thread is woken for it.
		for _, i := range foreign {
			s.forwardBy(out, letter(sock, i), r.tally)
		}
		out.Send()
	}
}

// letter makes packet i of those received last a job.
func letter(sock *wire.Socket, i int) job {
	l := sock.Take(i)
	return job{packet: l.Packet, client: l.Client, reply: l.Reply}
}

func (s *Server) servePlain(ctx context.Context, conn *net.UDPConn) error {
	r := newResponder(s, s.metrics.newTally(protoUDP), 1)
	packet, control, room, out := make([]byte, maxQuery), make([]byte, 128), make([]byte, 0, wire.MaxUDP), &wire.Outbox{}
	for {
		n, controlLen, _, client, err := conn.ReadMsgUDPAddrPort(packet, control)
		if err != nil {
			if s.ended(ctx, "read UDP", err) {
				return nil
			}
			continue
		}
		reply, by := r.answerNow(room, packet[:n], client)
		wire.FromDestination(control[:controlLen])
		switch {
		case by != wire.Answered:
			control := slices.Clone(control[:controlLen])
			// A client that is gone is none of our business.
			j := job{packet: slices.Clone(packet[:n]), client: client, reply: func(_ *wire.Outbox, reply []byte) {
				if reply != nil {
					_, _, _ = conn.WriteMsgUDPAddrPort(reply, control, client)
				}
			}}
			if by == wire.Foreign {
				s.forwardBy(out, j, r.tally)
				out.Send()
			} else {
				s.later(j)
			}
		case reply != nil:
			_, _, _ = conn.WriteMsgUDPAddrPort(reply, control[:controlLen], client)
		}
	}
}
