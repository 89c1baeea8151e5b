package ebpf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

const (
	// probeVIP is of TEST-NET-1 (RFC 5737): nothing answers there but for us.
	probeVIP = "192.0.2.1:1"
	// probeCgroup is where the self-test's process runs, below the cgroup that
	// is balanced, as a container would.
	probeCgroup = "waggle-selftest"
	probeEvery  = time.Minute
	probeFirst  = time.Second // while there is nothing to test yet, and between tries
	// probeTries is how often in a row it must fail to count: until a Snapshot that
	// is whole has come, the listener of the daemon before is a backend too.
	probeTries = 5
	probeLimit = 10 * time.Second
)

// errNotYet says that there is no Plan in the kernel yet.
var errNotYet = errors.New("nothing is programmed yet")

// SelfTest is how the last self-test went.
type SelfTest struct {
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"` // empty if it worked
}

// probe is the service that the self-test connects to: a VIP of our own that
// leads to a listener of our own.
type probe struct {
	command  []string
	service  *lb.Service
	listener net.Listener
	done     chan struct{}

	mu   sync.Mutex
	last *SelfTest // guarded by mu; nil before the first
}

// newProbe listens. No command means no probe.
func newProbe(command []string) (*probe, error) {
	if len(command) == 0 {
		return nil, nil
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the self-test: %w", err)
	}
	p := &probe{command: command, listener: l, done: make(chan struct{})}
	p.service = &lb.Service{
		Frontend: vip.Frontend{Addr: netip.MustParseAddrPort(probeVIP), Proto: model.TCP},
		Backends: []lb.Backend{{Addr: netip.MustParseAddrPort(l.Addr().String()), Weight: 1}},
	}
	go func() {
		defer close(p.done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return p, nil
}

func (p *probe) is(f vip.Frontend) bool { return p != nil && p.service.Frontend == f }

func (p *probe) close() error {
	if p == nil {
		return nil
	}
	err := p.listener.Close()
	<-p.done
	return err
}

// Run tests every minute, as Config.SelfTest says, until ctx ends: a process in
// a cgroup of its own connects to a VIP of ours. The programs may be attached
// and yet not run there, which nothing else would show. It returns ctx's error.
func (d *Dataplane) Run(ctx context.Context) error {
	if d.probe == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	wait := time.NewTimer(probeFirst)
	defer wait.Stop()
	failed := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait.C:
		}
		err := d.selfTest(ctx)
		if errors.Is(err, errNotYet) {
			wait.Reset(probeFirst)
			continue
		}
		if failed++; err == nil {
			failed = 0
		}
		if failed > 0 && failed < probeTries {
			wait.Reset(probeFirst)
			continue
		}
		if ctx.Err() == nil {
			d.noteSelfTest(err)
		}
		wait.Reset(probeEvery)
	}
}

func (d *Dataplane) noteSelfTest(err error) {
	result := &SelfTest{At: time.Now()}
	if err != nil {
		result.Error = err.Error()
	}
	p := d.probe
	p.mu.Lock()
	before := p.last
	p.last = result
	p.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error != result.Error):
		d.log.Error("self-test: a process of another cgroup is not balanced", zap.Error(err))
	case err == nil && before != nil && before.Error != "":
		d.log.Info("self-test: processes of other cgroups are balanced again")
	}
}

// selfTest runs the command in the cgroup of the probe.
func (d *Dataplane) selfTest(ctx context.Context) error {
	d.mu.Lock()
	ready := d.services != nil && d.v4.holds(d.probe.service.Frontend)
	d.mu.Unlock()
	if !ready {
		return errNotYet
	}
	cgroup, err := d.makeProbeCgroup()
	if err != nil {
		return err
	}
	defer os.Remove(cgroup) // or the next one uses it
	procs, err := os.OpenFile(filepath.Join(cgroup, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open cgroup %s: %w", probeCgroup, err)
	}
	defer procs.Close()
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.probe.command[0], append(slices.Clone(d.probe.command[1:]), probeVIP)...)
	cmd.ExtraFiles = []*os.File{procs} // 3, the first behind the standard ones
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("connect to %s from cgroup %s: %w: %s", probeVIP, probeCgroup, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// JoinProbe is the first thing that the command of the self-test does: it moves
// this process into the cgroup of the probe. The daemon cannot have it start
// there, since clone3 is forbidden to a service whose namespaces are restricted.
func JoinProbe() error {
	procs := os.NewFile(3, "cgroup.procs")
	if procs == nil {
		return errors.New("join the cgroup of the self-test: no file was handed over")
	}
	defer procs.Close()
	if _, err := procs.WriteString("0"); err != nil {
		return fmt.Errorf("join the cgroup of the self-test: %w", err)
	}
	return nil
}

// makeProbeCgroup makes the cgroup of the probe, unless it is there, and returns
// its path: below the cgroup that is balanced or, where we may not make one, which
// takes CAP_DAC_OVERRIDE at the root, below our own.
func (d *Dataplane) makeProbeCgroup() (string, error) {
	balanced := openPath(d.cgroup)
	path := filepath.Join(balanced, probeCgroup)
	err := os.Mkdir(path, 0o755)
	if errors.Is(err, fs.ErrPermission) {
		text, _ := os.ReadFile("/proc/self/cgroup") // without it the error says enough
		path = filepath.Join(balanced, ownCgroup(string(text)), probeCgroup)
		err = os.Mkdir(path, 0o755)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make cgroup %s: %w", probeCgroup, err)
	}
	return path, nil
}

// ownCgroup reads what the kernel says of a process' cgroups: where it is in
// version 2, from the root; empty if it is in none.
func ownCgroup(text string) string {
	for line := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path)
		}
	}
	return ""
}

// Status is how the Dataplane is, beyond what Apply returns.
type Status struct {
	Missing  map[string]string `json:"missing,omitempty"` // programs that the kernel does not take, and its words
	SelfTest *SelfTest         `json:"self_test,omitempty"`
	Events   []Event           `json:"events,omitempty"`   // the last, at most 100, oldest first
	Warnings []string          `json:"warnings,omitempty"` // about how the kernel is set up, a sentence each
}

// Status returns how the Dataplane is.
func (d *Dataplane) Status() Status {
	s := Status{Events: d.Events(), SelfTest: d.probe.result(), Warnings: warnings()}
	for name, err := range d.objs.missing {
		if s.Missing == nil {
			s.Missing = map[string]string{}
		}
		s.Missing[name] = err.Error()
	}
	return s
}

func (p *probe) result() *SelfTest {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// warnings tells what of this kernel's settings is a danger to what we do.
func warnings() []string {
	// Where there is no such setting nothing can be turned on by it.
	value, _ := os.ReadFile("/proc/sys/kernel/unprivileged_bpf_disabled")
	if strings.TrimSpace(string(value)) != "0" {
		return nil
	}
	return []string{"kernel.unprivileged_bpf_disabled is 0: every user may load eBPF programs, which can read what they should not on many processors; set it to 2"}
}
