package hostnet

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Holder says which process has a socket bound to addr, or to all addresses with
// that port, as "name (pid N)", for an error that an address is in use. network
// is udp or tcp. It returns an empty string where that cannot be found out.
func Holder(network string, addr netip.AddrPort) string {
	inode := ""
	for _, table := range []string{network, network + "6"} {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if err != nil {
			continue
		}
		for sc := bufio.NewScanner(f); inode == "" && sc.Scan(); {
			fields := strings.Fields(sc.Text())
			if len(fields) < 10 {
				continue
			}
			// A connected socket does not keep others from binding.
			bound, ok := parseSocketAddr(fields[1])
			far, _ := parseSocketAddr(fields[2])
			if ok && far.Port() == 0 && bound.Port() == addr.Port() && (bound.Addr() == addr.Addr().Unmap() || bound.Addr().IsUnspecified() || addr.Addr().IsUnspecified()) {
				inode = fields[9]
			}
		}
		_ = f.Close()
	}
	if inode == "" {
		return ""
	}
	return process("socket:[" + inode + "]")
}

// process returns who has a descriptor of the given kind open.
func process(link string) string {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != link {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid)
	}
	return ""
}

// parseSocketAddr reads an address of /proc/net/udp or tcp: 32 bits at a time in
// the machine's order, then the port.
func parseSocketAddr(text string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	p, portErr := hex.DecodeString(port)
	if !ok || err != nil || portErr != nil || len(p) != 2 || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(p)), ok
}
