package ebpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
	"go.uber.org/zap"

	"waggle/model"
	"waggle/vip"
)

// What an Event tells of.
const (
	NoBackend     = "no backend" // refused: the service has none
	Denied        = "denied"     // the client may not connect
	FailedConnect = "failed"     // a backend did not answer, or refused
)

// Event is something rare that the kernel told, at most once a second for each
// service and CPU.
type Event struct {
	At      time.Time      `json:"at"`
	What    string         `json:"what"`
	VIP     vip.Frontend   `json:"vip"`
	Backend netip.AddrPort `json:"backend,omitzero"` // of FailedConnect
	Cgroup  uint64         `json:"cgroup,omitempty"` // id of the client's cgroup, but for FailedConnect
}

// keptEvents is how many of the last events are shown.
const keptEvents = 100

// events reads what the programs tell.
type events struct {
	plane  *Dataplane
	reader *ringbuf.Reader
	done   chan struct{}

	// mu guards what follows.
	mu     sync.Mutex
	last   []Event // newest last
	counts map[string]uint64
}

func openEvents(d *Dataplane) (*events, error) {
	r, err := ringbuf.NewReader(d.objs.Events)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	e := &events{plane: d, reader: r, done: make(chan struct{}), counts: map[string]uint64{}}
	go e.run()
	return e, nil
}

func (e *events) run() {
	defer close(e.done)
	var rec ringbuf.Record
	var refreshed time.Time
	for {
		err := e.reader.ReadInto(&rec)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil || len(rec.RawSample) < int(unsafe.Sizeof(bpfEvent{})) {
			continue
		}
		ev := decodeEvent((*bpfEvent)(unsafe.Pointer(&rec.RawSample[0])), time.Now())
		e.note(ev)
		// A container that has just started may not be known yet.
		if ev.What == Denied && ev.At.Sub(refreshed) > time.Second {
			refreshed = ev.At
			e.plane.refresh()
		}
	}
}

func decodeEvent(b *bpfEvent, at time.Time) Event {
	what := map[uint8]string{1: NoBackend, 2: Denied, 3: FailedConnect}[b.Kind]
	ev := Event{At: at, What: what, Cgroup: b.Cgroup}
	ev.VIP = vip.Frontend{Addr: addrPort(b.Vip, b.VipPort), Proto: model.Proto(b.Proto)}
	if what == FailedConnect {
		ev.Backend = addrPort(b.Backend, b.BackendPort)
	}
	return ev
}

func (e *events) note(ev Event) {
	e.plane.log.Info("connection "+ev.What, zap.Stringer("vip", ev.VIP.Addr), zap.Stringer("protocol", ev.VIP.Proto),
		zap.Stringer("backend", ev.Backend), zap.Uint64("cgroup", ev.Cgroup))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.counts[ev.What]++
	if len(e.last) == keptEvents {
		e.last = slices.Delete(e.last, 0, 1)
	}
	e.last = append(e.last, ev)
}

func (e *events) close() error {
	if e == nil {
		return nil
	}
	err := e.reader.Close()
	<-e.done
	return err
}

// Events returns the last events, at most 100, oldest first.
func (d *Dataplane) Events() []Event {
	d.events.mu.Lock()
	defer d.events.mu.Unlock()
	return slices.Clone(d.events.last)
}

// refresh is refreshLocked for who has no lock.
func (d *Dataplane) refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.services == nil {
		return
	}
	if err := d.refreshLocked(); err != nil {
		d.log.Error("who may connect is not up to date", zap.Error(err))
	}
}
