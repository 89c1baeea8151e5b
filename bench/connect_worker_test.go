package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"waggle/internal/testnet"
)

// workerAddrs names the variable that makes the test binary a worker: a client
// in a namespace and cgroup of its own, which connects when it is told.
const workerAddrs = "WAGGLE_BENCH_ADDRS"

func TestMain(m *testing.M) {
	if list := os.Getenv(workerAddrs); list != "" {
		if err := work(strings.Split(list, ",")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// work answers each line "connect N", "rr N" or "bulk N" with the CPU time in ns
// that its thread took for it.
func work(list []string) error {
	runtime.LockOSThread()
	var addrs []netip.AddrPort
	for _, text := range list {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return err
		}
		addrs = append(addrs, a)
	}
	var held net.Conn
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		kind, number, _ := strings.Cut(in.Text(), " ")
		i, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		// A connection of its own for each: where its memory lies shows in the figures.
		if kind != "connect" {
			if held != nil {
				held.Close()
			}
			if held, err = net.Dial("tcp", addrs[0].String()); err != nil {
				return err
			}
		}
		var took time.Duration
		switch kind {
		case "connect":
			// Another process ran before; what it drove out of the caches is
			// not what a client pays that goes on connecting.
			if _, err = cpuOf(addrs, i*batch); err == nil {
				took, err = cpuOf(addrs, (i+1)*batch)
			}
		case "rr":
			took, err = exchange(held, 100, 1)
		case "bulk":
			took, err = exchange(held, 16, 64<<10)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind, addrs[0], err)
		}
		fmt.Println(took.Nanoseconds())
	}
	return in.Err()
}

// exchange sends size bytes and reads them back, so many times.
func exchange(c net.Conn, times, size int) (time.Duration, error) {
	buf := make([]byte, size)
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, err
	}
	before, err := threadCPU()
	if err != nil {
		return 0, err
	}
	for range times {
		if _, err := c.Write(buf); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return 0, err
		}
	}
	after, err := threadCPU()
	return after - before, err
}

// crew is as many workers at one kind of work, one after the other: what chance
// gives one of them, of memory for example, is no other's.
type crew []*worker

const crewSize = 4

// hire starts a crew in ns and, unless it is empty, in cgroup.
func hire(t *testing.T, ns *testnet.Namespace, cgroup string, addrs []netip.AddrPort) (c crew) {
	t.Helper()
	for range crewSize {
		c = append(c, newWorker(t, ns, cgroup, addrs))
	}
	return c
}

// do returns the CPU time that the i-th piece of work took.
func (c crew) do(kind string, i int) (time.Duration, error) { return c[i%len(c)].do(kind, i) }

// worker is such a process.
type worker struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func newWorker(t *testing.T, ns *testnet.Namespace, cgroup string, addrs []netip.AddrPort) *worker {
	t.Helper()
	var list []string
	for _, a := range addrs {
		list = append(list, a.String())
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), workerAddrs+"="+strings.Join(list, ","))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	ns.Must(t, cmd.Start)
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	return &worker{cmd, in, bufio.NewScanner(out)}
}

func (w *worker) do(kind string, i int) (time.Duration, error) {
	if _, err := fmt.Fprintf(w.in, "%s %d\n", kind, i); err != nil {
		return 0, err
	}
	if !w.out.Scan() {
		return 0, fmt.Errorf("worker ended: %v", w.out.Err())
	}
	ns, err := strconv.ParseInt(w.out.Text(), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("worker: %s", w.out.Text())
	}
	return time.Duration(ns), nil
}
