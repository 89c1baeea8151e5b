//go:build vmtest

package ebpf

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What ONC RPC (RFC 5531) answers to a call: done, or that there is no such program.
const (
	rpcSuccess     = 0
	rpcUnavailable = 1
	rpcReply       = 1
	lastFragment   = 1 << 31
)

// rpcServer accepts connections at a in the bed's namespace and answers the calls of
// procedure 0, by which clients find out whether it is there. Other calls are told
// to asked, with their connection, and answered if refuse says so: that there is no
// such program.
func (b *bed) rpcServer(t *testing.T, a string, refuse bool, asked chan<- net.Conn) netip.AddrPort {
	t.Helper()
	var l net.Listener
	b.ns.Must(t, func() (err error) { l, err = net.Listen("tcp", a); return err })
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close() // with the listener
			all.Go(func() { serveRPC(c, refuse, asked) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return addr(l.Addr().String())
}

// serveRPC ends with the connection.
func serveRPC(c net.Conn, refuse bool, asked chan<- net.Conn) {
	for {
		var head [4]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		call := make([]byte, binary.BigEndian.Uint32(head[:])&^uint32(lastFragment))
		if _, err := io.ReadFull(c, call); err != nil || len(call) < 24 {
			return
		}
		status := uint32(rpcSuccess)
		if procedure := binary.BigEndian.Uint32(call[20:]); procedure != 0 {
			select {
			case asked <- c:
			default:
			}
			if !refuse {
				continue
			}
			status = rpcUnavailable
		}
		// Length; then id, reply, accepted, a verifier of no kind and no length, status.
		out := binary.BigEndian.AppendUint32(nil, lastFragment|24)
		out = append(out, call[:4]...)
		for _, word := range []uint32{rpcReply, 0, 0, 0, status} {
			out = binary.BigEndian.AppendUint32(out, word)
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// TestA03_13_AClientInTheKernelFollowsTheVIP is row 13: NFS, whose client is the
// kernel, connects to a VIP and connects to it again when its connection is lost. A
// kernel whose kernel_connect hands the hooks the address that the client keeps would
// go to the first backend again, whatever has become of it.
func TestA03_13_AClientInTheKernelFollowsTheVIP(t *testing.T) {
	b := newBed(t)
	b.cfg.Cgroup = "" // the kernel's own threads are at the root
	d := b.open(t)
	atFirst, atSecond := make(chan net.Conn, 1), make(chan net.Conn, 1)
	first, second := b.rpcServer(t, "127.0.0.1:0", false, atFirst), b.rpcServer(t, "127.0.0.1:0", true, atSecond)
	apply(t, d, service(vip4, first))

	target, mounted := t.TempDir(), make(chan error, 1)
	go func() {
		mounted <- b.ns.Do(func() error {
			return unix.Mount("11.0.0.1:/", target, "nfs", 0, "vers=4.0,proto=tcp,soft,timeo=600,retrans=2,sec=sys,port=80,addr=11.0.0.1,clientaddr=127.0.0.1")
		})
	}()
	wait := func(what string, from <-chan net.Conn) net.Conn {
		t.Helper()
		select {
		case c := <-from:
			return c
		case err := <-mounted:
			t.Fatalf("%s: the mount ended: %v", what, err)
		case <-time.After(2 * time.Minute):
			t.Fatalf("%s: nothing came", what)
		}
		return nil
	}
	lost := wait("the VIP leads to the first backend", atFirst)
	apply(t, d, service(vip4, second))
	lost.Close()
	wait("the next connection leads to the second", atSecond)
	if err := <-mounted; err == nil {
		t.Error("mounted what nobody exports")
		_ = unix.Unmount(target, unix.MNT_DETACH)
	}
}
