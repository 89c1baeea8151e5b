package answers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"waggle/dns"
	"waggle/internal/capability"
)

// Config says how much is kept.
type Config struct {
	// Most is how many answers are kept at a time, about 800 octets each; those
	// that have not been asked for lately give way.
	Most int
}

// DefaultConfig keeps more answers than the processes of one machine ask for
// often.
func DefaultConfig() Config { return Config{Most: 16384} }

const (
	// lease is for how long the kernel goes on if it does not hear of the daemon,
	// which may be stopped and so knows nothing of what has changed.
	lease = 5 * time.Second
	// turnEvery is how often the kernel hears of it, and it is seen that what the
	// kernel sends arrives, which takes 20 µs.
	turnEvery = time.Second
	// forgetEvery is after how many turns all is learned anew: somebody else
	// may have come to listen on an address that was ours among all others.
	forgetEvery = 60
)

// Answers is a dns.Kernel. Its methods are safe for concurrent use. Of a nil one
// Forget and Err do nothing.
type Answers struct {
	cfg Config
	log *zap.Logger
	now atomic.Uint32 // generation, 0 while what the kernel sends is not known to arrive
	err atomic.Pointer[error]

	mu         sync.Mutex         // guards the following
	objs       *bpfObjects        // nil where the program is not loaded
	serial     uint64             // of the last answer kept
	generation uint32             // as the kernel has it
	on         bool               // what the kernel sends is known to arrive
	paths      map[bpfPath]uint32 // that the kernel has, by generation
	failed     bool               // to do what cannot fail, which has been logged
}

// New returns Answers that the kernel gives while Run runs. reg may be nil.
func New(cfg Config, log *zap.Logger, reg prometheus.Registerer) *Answers {
	a := &Answers{cfg: cfg, log: log, paths: map[bpfPath]uint32{}}
	a.show(reg)
	return a
}

// Run loads the program, which takes 70 ms, attaches it to lo of this network
// namespace, tells it that the daemon lives and sees that what it sends arrives,
// until ctx ends; then it lets go of all and returns ctx's error. Where the kernel
// cannot do that the log says so, and nothing is kept.
func (a *Answers) Run(ctx context.Context) error {
	detach, err := a.attach()
	defer detach()
	if err != nil {
		a.log.Info("no answers in the kernel, the daemon gives all", zap.Error(err))
		<-ctx.Done()
		return ctx.Err()
	}
	var p probe
	defer p.close()
	again := time.NewTicker(turnEvery)
	defer again.Stop()
	for turn := 0; ; turn++ {
		a.live()
		if turn%forgetEvery == forgetEvery-1 {
			a.Forget()
		}
		a.note(a.probe(ctx, &p))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		}
	}
}

// attach loads and attaches the program. detach undoes it, or what there is of it.
func (a *Answers) attach() (detach func(), err error) {
	var lo link.Link
	objs := &bpfObjects{}
	detach = func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.objs = nil
		a.now.Store(0)
		// What is closed is only let go of.
		if lo != nil {
			_ = lo.Close()
		}
		if objs.Answers != nil {
			_ = objs.Close()
		}
	}
	if err := a.load(objs); err != nil {
		return detach, fmt.Errorf("load program: %w%s", err, capability.Why(err, capability.BPF, capability.Perfmon, capability.NetAdmin))
	}
	device, err := net.InterfaceByName("lo")
	if err != nil {
		return detach, err
	}
	lo, err = link.AttachTCX(link.TCXOptions{Interface: device.Index, Program: objs.AnswerQuery, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return detach, fmt.Errorf("attach to lo: %w%s", err, capability.Why(err, capability.NetAdmin))
	}
	a.use(objs)
	return detach, nil
}

// use makes objs what answers are kept in.
func (a *Answers) use(objs *bpfObjects) {
	a.mu.Lock()
	a.objs = objs
	a.mu.Unlock()
	a.Forget()
}

func (a *Answers) load(objs *bpfObjects) error {
	spec, err := loadBpf()
	if err != nil {
		return err
	}
	// Each processor may keep so many elements idle for itself (LOCAL_FREE_TARGET,
	// kernel/bpf/bpf_lru_list.c).
	const idle = 128
	spec.Maps[bpfMapAnswers].MaxEntries = uint32(a.cfg.Most + idle*ebpf.MustPossibleCPU())
	spec.Maps[bpfMapCounts].MaxEntries = uint32(dns.KernelCounters)
	var opts ebpf.CollectionOptions
	// Where netfilter is a module, what a connection looks like is told apart.
	if conntrack, err := btf.LoadKernelModuleSpec("nf_conntrack"); err == nil {
		opts.Programs.ExtraRelocationTargets = []*btf.Spec{conntrack}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return spec.LoadAndAssign(objs, &opts)
}

// Generation is for dns.Kernel.
func (a *Answers) Generation() uint32 { return a.now.Load() }

// Forget makes the kernel give none of the answers it has: something has changed
// that they may depend on. It takes about a µs.
func (a *Answers) Forget() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.objs == nil {
		return
	}
	if a.generation++; a.generation == 0 { // which would mean that none is wanted
		a.generation++
	}
	a.must(a.objs.Generation.Set(a.generation))
	a.tellLocked()
}

// tellLocked says which generation answers are to be of.
func (a *Answers) tellLocked() {
	if a.on {
		a.now.Store(a.generation)
	} else {
		a.now.Store(0)
	}
}

// live tells the kernel that the daemon lives.
func (a *Answers) live() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.must(a.objs.AliveUntil.Set(uint64(monotonic() + lease)))
}

// must logs, once, what cannot fail while the program is loaded.
func (a *Answers) must(err error) {
	if err != nil && !a.failed {
		a.failed = true
		a.log.Error("answers in the kernel", zap.Error(err))
	}
}

// Keep is for dns.Kernel. An answer that is too long for the kernel is left to
// the daemon.
func (a *Answers) Keep(k *dns.Kept) {
	question, value, ok := encode(k, monotonic())
	if !ok {
		return
	}
	path := pathOf(k.Client, k.Server)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.objs == nil || k.Generation != 0 && k.Generation != a.generation {
		return
	}
	a.serial++
	value.Serial = a.serial
	a.must(a.objs.Answers.Update(question, value, ebpf.UpdateAny))
	if had, ok := a.paths[path]; ok && had == k.Generation {
		return
	}
	if len(a.paths) >= int(a.objs.Paths.MaxEntries()) {
		clear(a.paths)
	}
	a.paths[path] = k.Generation
	a.must(a.objs.Paths.Update(&path, &k.Generation, ebpf.UpdateAny))
}

// Counts is for dns.Kernel.
func (a *Answers) Counts() []uint64 {
	out, processors := make([]uint64, dns.KernelCounters), ebpf.MustPossibleCPU()
	each := make([]uint64, len(out)*processors)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.objs == nil {
		return nil
	}
	var cursor ebpf.MapBatchCursor
	if _, err := a.objs.Counts.BatchLookup(&cursor, make([]uint32, len(out)), each, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		a.must(err)
		return nil
	}
	for i, n := range each {
		out[i/processors] += n
	}
	return out
}

// show registers metrics.
func (a *Answers) show(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	reg.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "waggle_dns_kernel_answers_total", Help: "Queries over UDP that the kernel answered by itself. They are in waggle_dns_requests_total too.",
		}, func() (sum float64) {
			for _, n := range a.Counts() {
				sum += float64(n)
			}
			return sum
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "waggle_dns_kernel_on", Help: "Whether the kernel answers queries by itself: 1, or 0 where its answers do not arrive.",
		}, func() float64 {
			if a.now.Load() == 0 {
				return 0
			}
			return 1
		}))
}

// note takes in how a probe went.
func (a *Answers) note(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	if err != nil {
		err = fmt.Errorf("the kernel's DNS answers do not arrive, so the daemon gives all (does a firewall drop what comes in by lo?): %w", err)
	}
	first := a.err.Swap(&err) == nil
	a.mu.Lock()
	was := a.on
	a.on = err == nil
	a.tellLocked()
	a.mu.Unlock()
	switch {
	case was == (err == nil) && !first:
	case err == nil:
		a.log.Info("the kernel gives answers that are asked for often")
	default:
		a.Forget()
		a.log.Warn("no answers in the kernel", zap.Error(err))
	}
}

// Err returns why the kernel is given no answers, nil if it is, or if nothing is
// known yet.
func (a *Answers) Err() error {
	if a == nil || a.err.Load() == nil {
		return nil
	}
	return *a.err.Load()
}

// monotonic is the time by the clock that programs in the kernel have.
func monotonic() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // which every kernel has
	return time.Duration(now.Nano())
}
