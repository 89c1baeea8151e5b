package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// load is what one run of a client saw.
type load struct {
	answered, lost int
	rate           float64 // answers a second
	cpu, client    time.Duration
}

// perQuery is the server's CPU time for one answer, and the client's, in µs. What
// is answered in the kernel is answered on the client's time.
func (l load) perQuery() (server, client float64) {
	n := float64(max(1, l.answered))
	return l.cpu.Seconds() * 1e6 / n, l.client.Seconds() * 1e6 / n
}

var (
	completed = regexp.MustCompile(`Queries completed:\s+(\d+)`)
	lost      = regexp.MustCompile(`Queries lost:\s+(\d+)`)
	perSecond = regexp.MustCompile(`Queries per second:\s+([\d.]+)`)
)

// dnsperf runs the neutral client against a server for a while, as fast as that
// answers or at a rate, and returns what it saw with the server's CPU time.
func dnsperf(c *contender, queries string, rate int, length time.Duration) (load, error) {
	args := []string{
		"-s", c.addr.Addr().String(), "-p", fmt.Sprint(c.addr.Port()), "-d", queries,
		"-l", fmt.Sprint(length.Seconds()), "-c", "16", "-q", "100", "-t", "1",
	}
	if rate > 0 {
		args = append(args, "-Q", fmt.Sprint(rate))
	}
	pin(c.pid, serverCPU)
	cmd := exec.Command("dnsperf", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var out outputBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	before := cpuOfTree(c.pid)
	if err := cmd.Start(); err != nil {
		return load{}, err
	}
	pin(cmd.Process.Pid, clientCPU)
	if err := cmd.Wait(); err != nil {
		return load{}, fmt.Errorf("dnsperf: %w: %s", err, out)
	}
	l := load{cpu: cpuOfTree(c.pid) - before, client: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	for re, to := range map[*regexp.Regexp]*int{completed: &l.answered, lost: &l.lost} {
		m := re.FindSubmatch(out)
		if m == nil {
			return load{}, fmt.Errorf("dnsperf says %s", out)
		}
		*to, _ = strconv.Atoi(string(m[1]))
	}
	if m := perSecond.FindSubmatch(out); m != nil {
		l.rate, _ = strconv.ParseFloat(string(m[1]), 64)
	}
	return l, nil
}

type outputBuffer []byte

func (b *outputBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// latencies sends queries at random times, at a rate on average whatever the
// answers do, and returns how long each answer took. Both sides spin, so that
// the client's own wake-ups do not count.
func latencies(to netip.AddrPort, queries [][]byte, rate int, length time.Duration) (sample, error) {
	conn, err := net.Dial("udp", to.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var out sample
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its priority
		var set unix.CPUSet
		set.Set(clientCPU)
		_ = unix.SchedSetaffinity(0, &set)
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
		var err error
		if ctl := raw.Control(func(fd uintptr) { out, err = openLoop(int(fd), queries, rate, length) }); ctl != nil {
			err = ctl
		}
		done <- err
	}()
	err = <-done
	return out, err
}

func openLoop(fd int, queries [][]byte, rate int, length time.Duration) (sample, error) {
	const idle = -1
	var sent [1 << 16]time.Duration
	for i := range sent {
		sent[i] = idle
	}
	var out sample
	rng := rand.New(rand.NewPCG(1, uint64(rate)))
	buf := make([]byte, 4096)
	start := time.Now()
	next, id := time.Duration(0), uint16(0)
	for now := time.Duration(0); now < length+200*time.Millisecond; now = time.Since(start) {
		if now >= next && now < length {
			q := queries[rng.IntN(len(queries))]
			q[0], q[1] = byte(id>>8), byte(id)
			sent[id] = next // not now: waiting to be sent is waiting
			id++
			if _, err := unix.Write(fd, q); err != nil {
				return nil, err
			}
			next += time.Duration(-math.Log(1-rng.Float64()) / float64(rate) * float64(time.Second))
		}
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err != nil || n < 2 {
			continue
		}
		got := int(buf[0])<<8 | int(buf[1])
		if sent[got] != idle {
			out = append(out, time.Since(start)-sent[got])
			sent[got] = idle
		}
	}
	return out, nil
}
