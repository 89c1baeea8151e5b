package zk

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Member is one candidate of the election.
type Member struct {
	Node     string // its znode's name
	Addr     string // host:port to connect to; the host is an address wherever the node tells one
	Hostname string // as the member calls itself, and in redirects to it; may be empty
	ID       string // new with each process; empty in the oldest form
}

// form is how the data of a node is written.
type form uint8

const (
	formJSON     form = iota // "json.info_0000000001", Mesos 0.24 and later
	formProtobuf             // "info_0000000001", up to 0.23
	formText                 // "0000000001", the oldest
)

// parseNode reads the name of a member's node. ok is false for nodes that are
// none, such as log_replicas.
func parseNode(name string) (f form, number int32, ok bool) {
	label, digits := "", name
	if i := strings.LastIndexByte(name, '_'); i >= 0 {
		label, digits = name[:i], name[i+1:]
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return 0, 0, false
	}
	switch label {
	case "json.info":
		f = formJSON
	case "info":
		f = formProtobuf
	case "":
		f = formText
	default:
		return 0, 0, false
	}
	return f, int32(n), true
}

// masterInfo is what is read of a Mesos MasterInfo.
type masterInfo struct {
	Address struct {
		Hostname string `json:"hostname"`
		IP       string `json:"ip"`
		Port     uint16 `json:"port"`
	} `json:"address"`
	Hostname string `json:"hostname"`
	ID       string `json:"id"`
	IP       uint32 `json:"ip"` // network byte order, read as little-endian
	PID      string `json:"pid"`
	Port     uint16 `json:"port"`
}

func parseMember(node string, f form, data []byte) (Member, error) {
	var info masterInfo
	var err error
	switch f {
	case formJSON:
		err = json.Unmarshal(data, &info)
	case formProtobuf:
		info, err = parseMasterInfo(data)
	case formText:
		info.PID = strings.TrimSpace(string(data))
	}
	m := Member{Node: node, ID: info.ID, Hostname: info.Hostname}
	if err == nil {
		m.Addr, err = info.addr()
	}
	if err != nil {
		return m, fmt.Errorf("read member %s: %w", node, err)
	}
	if m.Hostname == "" {
		m.Hostname = info.Address.Hostname
	}
	return m, nil
}

// addr takes the first that is given of the address, the libprocess address,
// the old number and, last, the name.
func (i masterInfo) addr() (string, error) {
	if a, err := netip.ParseAddr(i.Address.IP); err == nil && i.Address.Port != 0 {
		return netip.AddrPortFrom(a.Unmap(), i.Address.Port).String(), nil
	}
	if _, at, ok := strings.Cut(i.PID, "@"); ok {
		if a, err := netip.ParseAddrPort(at); err == nil && a.Port() != 0 {
			return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String(), nil
		}
	}
	port := i.Port
	if port == 0 {
		port = 5050
	}
	if i.IP != 0 {
		a := netip.AddrFrom4([4]byte{byte(i.IP), byte(i.IP >> 8), byte(i.IP >> 16), byte(i.IP >> 24)})
		return netip.AddrPortFrom(a, port).String(), nil
	}
	if host := i.Hostname; host != "" && !strings.ContainsAny(host, "/@ ") {
		return net.JoinHostPort(host, strconv.Itoa(int(port))), nil
	}
	return "", errors.New("no address in it")
}
