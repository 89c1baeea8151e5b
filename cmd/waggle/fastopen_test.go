package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
)

// TCP fast open through a VIP is fast open: the second connection carries its
// first byte in the SYN, with the cookie that the backend gave to the first, by
// either way that programs ask for it.
func TestFastOpenSendsWithTheSYN(t *testing.T) {
	n := newNode(t)
	for _, ns := range []*testnet.Namespace{n.Namespace, n.client} {
		shell(t, ns, "sysctl -qw net.ipv4.tcp_fastopen=0x403") // clients, servers, and listeners that do not ask
	}
	path := filepath.Join(n.state, "services.yaml")
	rewrite(t, path, backendOf{"a", "/web:80", n.Echo(t, netip.AddrPortFrom(n.addr, 0)), ""})
	n.start(t, n.verb("run", "--file.paths", path)...)
	at := n.up(t, "web.static", 1)
	for how, connect := range map[string]func(fd int, to unix.Sockaddr) error{
		"MSG_FASTOPEN": func(fd int, to unix.Sockaddr) error { return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, to) },
		"TCP_FASTOPEN_CONNECT": func(fd int, to unix.Sockaddr) error {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
				return err
			}
			if err := unix.Connect(fd, to); err != nil {
				return err
			}
			_, err := unix.Write(fd, []byte("x"))
			return err
		},
	} {
		eventually(t, how+" sends with the SYN", func() bool {
			early, err := opened(n.client, at, connect)
			if err != nil {
				t.Fatalf("%s: %v", how, err)
			}
			return early
		})
	}
}

// opened connects, is echoed, and reports whether the SYN had data that were taken.
func opened(ns *testnet.Namespace, at netip.AddrPort, connect func(int, unix.Sockaddr) error) (early bool, err error) {
	err = ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := connect(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		if _, err := unix.Read(fd, make([]byte, 1)); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		const synData = 0x20 // TCPI_OPT_SYN_DATA
		early = info.Options&synData != 0
		return nil
	})
	return early, err
}
