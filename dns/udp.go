package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

const protoUDP = "udp"

// maxQuery is the longest query read over UDP; what is cut off makes it FORMERR.
const maxQuery = 4096

// udpBuffer is where queries wait while all readers are busy, instead of being
// lost: some 4000 of them, if the system allows so much.
const udpBuffer = 4 << 20

func listenUDP(addr netip.AddrPort) (*net.UDPConn, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadBuffer(udpBuffer); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("set receive buffer: %w", err)
	}
	if addr.Addr().IsUnspecified() {
		if err := tellDestination(conn, addr.Addr().Is6()); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("ask for destination addresses: %w", err)
		}
	}
	return conn, nil
}

// serveUDP answers what arrives on conn until it is closed.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn) error {
	packet, control := make([]byte, maxQuery), make([]byte, 128)
	for {
		n, controlLen, _, client, err := conn.ReadMsgUDPAddrPort(packet, control)
		if err != nil {
			if s.ended(ctx, "read UDP", err) {
				return nil
			}
			continue
		}
		out := s.handle(packet[:n], protoUDP)
		if out == nil {
			continue
		}
		// A client that is gone is none of our business.
		_, _, _ = conn.WriteMsgUDPAddrPort(out, fromDestination(control[:controlLen]), client)
	}
}

// tellDestination makes a socket on all addresses say to which one each packet
// was sent, so that the reply can leave from there: clients drop others.
func tellDestination(conn *net.UDPConn, v6 bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		if v6 {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	})
	if err != nil {
		return err
	}
	return set
}

// fromDestination turns a received control message into the one that sends from
// the same address. They have one form; only the interface is taken out, so
// that the reply is routed and need not leave where the query came in.
func fromDestination(control []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO:
			clear(m.Data[:4]) // in_pktinfo starts with the interface
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO:
			clear(m.Data[16:20]) // in6_pktinfo ends with it
		}
	}
	return control
}
