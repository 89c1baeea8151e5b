package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"waggle/dns"
)

// notifier tells the service manager how the daemon is (sd_notify(3)). A nil one
// tells nobody.
type notifier struct {
	to       *net.UnixConn
	watchdog time.Duration // how long the manager waits for a sign of life; 0 for ever
}

// openNotifier reads NOTIFY_SOCKET and WATCHDOG_USEC.
func openNotifier() (*notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	to, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("reach service manager: %w", err)
	}
	n := &notifier{to: to}
	if pid := os.Getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		usec, _ := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64) // garbage is no watchdog
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n, nil
}

// say sends assignments, as in READY=1.
func (n *notifier) say(lines ...string) error {
	if n == nil {
		return nil
	}
	_, err := n.to.Write([]byte(strings.Join(lines, "\n")))
	return err
}

// reloading is what is said before a reload; READY=1 follows it.
func reloading() []string {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return []string{"RELOADING=1"}
	}
	return []string{"RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000)}
}

func (n *notifier) close() error {
	if n == nil {
		return nil
	}
	return n.to.Close()
}

// statusEvery is how often the manager is told the state in words.
const statusEvery = 10 * time.Second

// tell says that the daemon serves, and then again and again how it is, and that
// it lives as long as it answers queries. It returns when ctx ends.
func (d *daemon) tell(ctx context.Context, n *notifier) error {
	if n == nil {
		return nil
	}
	every := statusEvery
	if n.watchdog > 0 {
		every = min(every, n.watchdog/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	say := []string{"READY=1"}
	for {
		if err := n.say(append(say, "STATUS="+d.inWords())...); err != nil {
			d.log.Warn("service manager not reached", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			_ = n.say("STOPPING=1") // it need not know
			return ctx.Err()
		case <-tick.C:
		}
		say = nil
		if err := d.answers(ctx, every); err == nil {
			say = []string{"WATCHDOG=1"}
		} else if ctx.Err() == nil {
			d.log.Error("no answer from our own DNS server", zap.Error(err))
		}
	}
}

// answers reports whether the DNS server answers within patience. What it
// answers does not matter: one that refuses lives.
func (d *daemon) answers(ctx context.Context, patience time.Duration) error {
	addrs := d.dns.Addrs()
	if len(addrs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := dns.Ask(ctx, reachable(addrs[0]), "ready.spartan", "A")
	return err
}

// reachable is where a server that listens on a is reached from this machine.
func reachable(a netip.AddrPort) netip.AddrPort {
	switch a.Addr() {
	case netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	case netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
	}
	return a
}

// inWords is the daemon's state in one line.
func (d *daemon) inWords() string {
	st := d.status(d.agent.State())
	words := fmt.Sprintf("%d names, %d VIPs", st.Counts.Names, st.Counts.VIPs)
	if !st.Ready {
		words = "no picture of the cluster yet"
	}
	if len(st.Reasons) > 0 {
		words += "; " + strings.Join(st.Reasons, "; ")
	}
	return strings.ReplaceAll(words, "\n", " ")
}
