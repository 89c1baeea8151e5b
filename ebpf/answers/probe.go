package answers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dns"
)

const (
	probeWait  = 300 * time.Millisecond // for what arrives before the question is sent, mostly
	probeTries = 3
	probeName  = "\x05probe\x06waggle\x07invalid\x00" // RFC 6761: nobody's
)

// probe is two sockets: one asks the other, which is never read. Only the kernel
// can answer. It is opened when it is used.
type probe struct {
	asker, asked *net.UDPConn // nil while closed
	id           uint16
}

func (p *probe) open() (err error) {
	if p.asker != nil {
		return nil
	}
	if p.asked, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		return fmt.Errorf("listen for the probe of the kernel's answers: %w", err)
	}
	if p.asker, err = net.DialUDP("udp4", nil, p.asked.LocalAddr().(*net.UDPAddr)); err != nil {
		p.close()
		return fmt.Errorf("probe the kernel's answers: %w", err)
	}
	return nil
}

func (p *probe) close() {
	for _, c := range []*net.UDPConn{p.asker, p.asked} {
		if c != nil {
			_ = c.Close() // it has nothing to lose
		}
	}
	p.asker, p.asked = nil, nil
}

// errSilent says that the kernel's answer has not come.
var errSilent = errors.New("a query of our own got no answer from the kernel")

// probe has the kernel answer a question of ours, and waits for it. The question
// is for an address, the answer has no records but OPT. They are of no generation,
// since another one may begin at any time.
func (a *Answers) probe(ctx context.Context, p *probe) error {
	if err := p.open(); err != nil {
		return err
	}
	server := p.asked.LocalAddr().(*net.UDPAddr).AddrPort()
	for range probeTries {
		p.id++
		query := binary.BigEndian.AppendUint16(nil, p.id)
		query = append(query, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
		query = append(append(query, probeName...), 0, 1, 0, 1)
		reply := append(append([]byte{}, query...), 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0)
		reply[2] |= 0x80
		reply[headerSize-1] = 1
		a.Keep(&dns.Kept{
			Client: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Server: server,
			Query: query, Reply: reply, Name: []byte(probeName), For: probeTries * probeWait, Counter: dns.KernelCounters, // which is none
		})
		if err := p.ask(ctx, query, reply); !errors.Is(err, errSilent) {
			return err
		}
	}
	return errSilent
}

func (p *probe) ask(ctx context.Context, query, want []byte) error {
	asker := p.asker // what AfterFunc runs may still do so when it is closed
	defer context.AfterFunc(ctx, func() { _ = asker.SetReadDeadline(time.Unix(1, 0)) })()
	if err := p.asker.SetReadDeadline(time.Now().Add(probeWait)); err != nil {
		return err
	}
	if _, err := p.asker.Write(query); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	var got [512]byte
	for {
		n, err := p.asker.Read(got[:])
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("%w: %w", errSilent, err)
		case string(got[:n]) == string(want):
			return nil
		}
	}
}
