package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"waggle/model"
)

// Peer is the far end of a socket.
type Peer struct {
	Proto model.Proto
	Addr  netip.AddrPort // unmapped
}

// Disconnect ends every socket, in every network namespace, that is connected
// to one of peers or is connecting there: its owner gets ECONNABORTED, and for
// UDP may connect it anew. It returns how many there were. It asks sock_diag
// (Linux 4.9 for both protocols, with INET_DIAG_DESTROY) and needs CAP_NET_ADMIN
// and CAP_SYS_ADMIN. A kernel that cannot is an error.
func Disconnect(peers map[Peer]bool) (ended int, err error) {
	if len(peers) == 0 {
		return 0, nil
	}
	err = InEverySpace(func() error {
		n, err := disconnectHere(peers)
		ended += n
		return err
	})
	return ended, err
}

// The parts of struct inet_diag_req_v2 and inet_diag_msg of linux/inet_diag.h:
// both end in a struct inet_diag_sockid.
const (
	sockDestroy  = 21 // SOCK_DESTROY
	sizeofSockID = 48
	sizeofReq    = 8 + sizeofSockID
	allStates    = 0xffffffff
)

func disconnectHere(peers map[Peer]bool) (ended int, err error) {
	var errs []error
	for proto, number := range map[model.Proto]uint8{model.TCP: unix.IPPROTO_TCP, model.UDP: unix.IPPROTO_UDP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			n, err := disconnectOf(family, number, func(a netip.AddrPort) bool { return peers[Peer{proto, a}] })
			ended += n
			errs = append(errs, err)
		}
	}
	return ended, errors.Join(errs...)
}

func disconnectOf(family, proto uint8, wanted func(netip.AddrPort) bool) (ended int, err error) {
	var doomed [][]byte
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddRawData(diagRequest(family, proto, allStates, nil))
	err = req.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(msg []byte) bool {
		if len(msg) < 4+sizeofSockID {
			return true
		}
		if id := msg[4 : 4+sizeofSockID]; wanted(remoteOf(family, id)) {
			doomed = append(doomed, append([]byte(nil), id...))
		}
		return true
	})
	if err != nil {
		return 0, fmt.Errorf("list sockets: %w", err)
	}
	if len(doomed) == 0 {
		return 0, nil
	}
	// One socket for all, or each would open its own.
	s, err := nl.Subscribe(unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, fmt.Errorf("open sock_diag: %w", err)
	}
	defer s.Close()
	for _, id := range doomed {
		kill := nl.NewNetlinkRequest(sockDestroy, unix.NLM_F_ACK)
		kill.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_INET_DIAG: {Socket: s}}
		kill.AddRawData(diagRequest(family, proto, 0, id))
		if _, kerr := kill.Execute(unix.NETLINK_INET_DIAG, 0); kerr != nil {
			// ENOENT: it has ended by itself.
			if !errors.Is(kerr, unix.ENOENT) {
				err = errors.Join(err, fmt.Errorf("end socket to %s: %w", remoteOf(family, id), kerr))
			}
			continue
		}
		ended++
	}
	return ended, err
}

func diagRequest(family, proto uint8, states uint32, id []byte) []byte {
	b := make([]byte, sizeofReq)
	b[0], b[1] = family, proto
	binary.NativeEndian.PutUint32(b[4:], states)
	copy(b[8:], id)
	return b
}

// remoteOf reads the far end out of a struct inet_diag_sockid: two ports, the
// near and the far address of 16 bytes each, interface and cookie.
func remoteOf(family uint8, id []byte) netip.AddrPort {
	addr := id[4+16 : 4+32]
	if family == unix.AF_INET {
		addr = addr[:4]
	}
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(id[2:]))
}
