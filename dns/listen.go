package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"waggle/internal/hostnet"
)

// Activated returns the sockets that the service manager has opened for this
// process (sd_listen_fds(3)), and takes them out of the environment, so that no
// child takes them for its own. The caller closes them.
func Activated() []*os.File {
	pid, n := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, key := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(key) // which fails for bad keys only
	}
	count, err := strconv.Atoi(n)
	if err != nil || pid != strconv.Itoa(os.Getpid()) {
		return nil
	}
	const firstFD = 3
	var out []*os.File
	for fd := firstFD; fd < firstFD+count; fd++ {
		unix.CloseOnExec(fd)
		out = append(out, os.NewFile(uintptr(fd), "socket "+strconv.Itoa(fd)))
	}
	return out
}

// Listen opens the sockets, all or none. Run closes them. An address that the
// machine does not have yet is listened on all the same. The error of one that
// is in use says who uses it.
func (s *Server) Listen() error {
	err := s.inherit()
	for _, addr := range s.cfg.Listen {
		if err == nil {
			err = s.complete(addr)
		}
	}
	if err != nil {
		s.close()
		s.sockets = nil
	}
	return err
}

// complete opens what was not inherited of addr.
func (s *Server) complete(addr netip.AddrPort) error {
	udp, tcp := false, false
	for _, sock := range s.sockets {
		udp = udp || sock.udp != nil && sock.udp.addr == addr
		tcp = tcp || sock.tcp != nil && sock.tcp.Addr().(*net.TCPAddr).AddrPort() == addr
	}
	var sock socket
	var err error
	switch {
	case udp && tcp:
		return nil
	case udp:
		if sock.tcp, err = s.listenTCP(addr); err != nil {
			err = inUse(protoTCP, addr, err)
		}
	case tcp:
		if sock.udp, err = s.listenUDP(addr); err != nil {
			err = inUse(protoUDP, addr, err)
		}
	default:
		sock, err = s.listen(addr)
	}
	if err == nil {
		s.sockets = append(s.sockets, sock)
	}
	return err
}

// listen opens both sockets of addr. A port that the kernel chose for UDP may
// be taken for TCP, so that is tried again.
func (s *Server) listen(addr netip.AddrPort) (socket, error) {
	if a := addr.Addr(); !a.IsUnspecified() && !hostnet.IsLocal(a) {
		s.log.Warn("no address of this machine yet", zap.Stringer("address", a))
	}
	var err error
	for range 8 {
		var sock socket
		if sock.udp, err = s.listenUDP(addr); err != nil {
			return socket{}, inUse(protoUDP, addr, err)
		}
		if sock.tcp, err = s.listenTCP(sock.udp.addr); err == nil {
			return sock, nil
		}
		err = inUse(protoTCP, sock.udp.addr, err)
		sock.udp.close()
		if addr.Port() != 0 {
			break
		}
	}
	return socket{}, err
}

// inUse says where listening failed, and who listens there.
func inUse(network string, addr netip.AddrPort, err error) error {
	if who := hostnet.Holder(network, addr); who != "" && errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("%w by %s", err, who)
	}
	return fmt.Errorf("listen for DNS on %s over %s: %w", addr, strings.ToUpper(network), err)
}

// listenUDP opens as many sockets as there are readers. The first is bound
// alone, so that an address in use is an error even if whoever uses it would
// share, unless it may be the Server before us. Then it admits the others.
func (s *Server) listenUDP(addr netip.AddrPort) (*udpPort, error) {
	first, err := openUDP(addr, false)
	if s.cfg.Handover && errors.Is(err, unix.EADDRINUSE) {
		first, err = openUDP(addr, true)
	}
	if err != nil {
		return nil, err
	}
	conns := []*net.UDPConn{first}
	readers := max(1, s.cfg.Readers)
	if readers > 1 || s.cfg.Handover {
		err = setSocket(first, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	bound := first.LocalAddr().(*net.UDPAddr).AddrPort()
	for err == nil && len(conns) < readers {
		var next *net.UDPConn
		if next, err = openUDP(bound, true); err == nil {
			conns = append(conns, next)
		}
	}
	if err != nil {
		for _, c := range conns {
			_ = c.Close()
		}
		return nil, err
	}
	return newUDPPort(conns, s.cfg.Loop, false)
}

// openUDP opens one socket, on an address that others have too if it is shared.
func openUDP(addr netip.AddrPort, shared bool) (*net.UDPConn, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp"
	}
	lc := net.ListenConfig{Control: control(addr.Addr().Is6(), shared)}
	pc, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, err
	}
	conn := pc.(*net.UDPConn)
	if err := setUp(conn, addr.Addr()); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// setUp gives a UDP socket its buffer, has replies leave in one piece whatever
// ICMP says of the path (RFC 9715: MaxUDP fits any that matters, and what says
// otherwise may be forged), and makes it tell where packets were sent to: clients
// drop a reply from another address than the one they asked.
func setUp(conn *net.UDPConn, addr netip.Addr) error {
	err := errors.Join(conn.SetReadBuffer(udpBuffer), setSocket(conn, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE))
	if addr.Is6() {
		err = errors.Join(err, setSocket(conn, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE))
	}
	switch {
	case err != nil || !addr.IsUnspecified():
	case addr.Is6():
		err = setSocket(conn, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	default:
		err = setSocket(conn, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if err != nil {
		return fmt.Errorf("set up socket: %w", err)
	}
	return nil
}

// control prepares a socket before it is bound.
func control(v6, shared bool) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		// Addresses of links may come and go while we listen.
		err := setRaw(raw, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
		if v6 {
			err = setRaw(raw, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
		}
		if shared && err == nil {
			err = setRaw(raw, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		return err
	}
}

func (s *Server) listenTCP(addr netip.AddrPort) (*net.TCPListener, error) {
	open := func(shared bool) (net.Listener, error) {
		lc := net.ListenConfig{Control: control(addr.Addr().Is6(), shared)}
		return lc.Listen(context.Background(), tcpNetwork(addr), addr.String())
	}
	l, err := open(false)
	if s.cfg.Handover && errors.Is(err, unix.EADDRINUSE) {
		l, err = open(true)
	}
	if err != nil {
		return nil, err
	}
	tcp := l.(*net.TCPListener)
	if !s.cfg.Handover {
		return tcp, nil
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = setRaw(raw, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	return tcp, nil
}

// inherit makes sockets of what was inherited and closes the files.
func (s *Server) inherit() error {
	var errs []error
	for _, f := range s.cfg.Inherited {
		sock, err := s.adopt(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("use inherited %s: %w", f.Name(), err))
		} else {
			s.sockets = append(s.sockets, sock)
		}
		_ = f.Close() // sockets have duplicates
	}
	return errors.Join(errs...)
}

// adopt makes f, a UDP socket or a TCP listener, a socket of ours.
func (s *Server) adopt(f *os.File) (sock socket, err error) {
	l, err := net.FileListener(f)
	if err == nil {
		tcp, ok := l.(*net.TCPListener)
		if !ok {
			return sock, errors.Join(errors.New("neither UDP nor TCP"), l.Close())
		}
		return socket{tcp: tcp}, nil
	}
	var conns []*net.UDPConn
	for range max(1, s.cfg.Readers) {
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return sock, err
		}
		conn, ok := pc.(*net.UDPConn)
		if !ok {
			return sock, errors.Join(errors.New("neither UDP nor TCP"), pc.Close())
		}
		if err := setUp(conn, conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()); err != nil {
			return sock, errors.Join(err, conn.Close())
		}
		conns = append(conns, conn)
	}
	sock.udp, err = newUDPPort(conns, s.cfg.Loop, true)
	return sock, err
}
