package ebpf

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"waggle/internal/hostnet"
	"waggle/lb"
)

// mostDoomed is how many drains are looked for in one pass over the sockets.
const mostDoomed = 1 << 14

// What bpf/kill.c is told of a backend.
const (
	doomedRemembered = 1 + iota
	doomedAll
)

// killer ends sockets by programs that run over all of them.
type killer struct {
	loaded chan struct{} // closed when the rest is there, or err
	err    error         // why this kernel has no such programs
	doomed *ebpf.Map
	ended  *ebpf.Variable
	coll   *ebpf.Collection
	links  []*link.Iter

	mu sync.Mutex // one pass at a time: they share the maps
}

// newKiller starts to load the programs, which look into the memory of sockets
// that maps are, and into the backends. That needs the types of the kernel, 0.3 s
// of work for a daemon that is in a hurry to start.
func newKiller(maps map[string]*ebpf.Map, log *zap.Logger) *killer {
	k := &killer{loaded: make(chan struct{})}
	go func() {
		defer close(k.loaded)
		if k.err = k.load(maps); k.err != nil {
			k.err = errors.Join(k.err, k.free())
			log.Info("sock_diag ends sockets to removed backends, which cannot tell services apart", zap.Error(k.err))
		}
	}()
	return k
}

func (k *killer) load(maps map[string]*ebpf.Map) error {
	spec, err := loadKill()
	if err != nil {
		return err
	}
	shared := map[string]*ebpf.Map{}
	for name := range spec.Maps {
		switch name {
		case killMapTcpPeer, killMapUdpPeers, killMapBackends:
			shared[name] = maps[name]
			spec.Maps[name].MaxEntries = maps[name].MaxEntries()
		default:
			if _, ok := maps[name]; ok {
				delete(spec.Maps, name) // in a header, and not used
			}
		}
	}
	spec.Maps[killMapDoomed].MaxEntries = 2 * mostDoomed
	k.coll, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return fmt.Errorf("load programs that end sockets: %w", err)
	}
	k.doomed, k.ended = k.coll.Maps[killMapDoomed], k.coll.Variables[killVarEnded]
	for _, name := range []string{killProgKillTcp, killProgKillUdp} {
		l, err := link.AttachIter(link.IterOptions{Program: k.coll.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach program %s: %w", name, err)
		}
		k.links = append(k.links, l)
	}
	return nil
}

// ready waits for the programs and returns why there are none.
func (k *killer) ready() error {
	<-k.loaded
	return k.err
}

// close frees what is loaded. Of a nil killer nothing is.
func (k *killer) close() error {
	if k == nil || k.ready() != nil {
		return nil
	}
	return k.free()
}

func (k *killer) free() error {
	var err error
	for _, l := range k.links {
		err = errors.Join(err, l.Close())
	}
	if k.coll != nil {
		k.coll.Close()
	}
	return err
}

// disconnect ends the sockets of drains in every network namespace and returns
// how many there were.
func (k *killer) disconnect(drains []lb.Drain) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	for part := range slices.Chunk(drains, mostDoomed) {
		if err = k.pass(part); err != nil {
			break
		}
	}
	var n uint64
	err = errors.Join(err, k.ended.Get(&n), k.ended.Set(uint64(0)))
	return int(n), err
}

func (k *killer) pass(drains []lb.Drain) error {
	values := doomedPairs(drains)
	var err error
	for key, value := range values {
		if err = k.doomed.Put(key, value); err != nil {
			err = fmt.Errorf("name sockets to be ended: %w", err)
			break
		}
	}
	if err == nil {
		err = hostnet.InEverySpace(k.run)
	}
	for key := range values {
		if e := k.doomed.Delete(key); e != nil && !errors.Is(e, ebpf.ErrKeyNotExist) {
			err = errors.Join(err, fmt.Errorf("forget sockets to be ended: %w", e))
		}
	}
	return err
}

// doomedPairs says drains as bpf/kill.c reads them.
func doomedPairs(drains []lb.Drain) map[killDoomedKey]uint32 {
	out := make(map[killDoomedKey]uint32, 2*len(drains))
	for _, d := range drains {
		key := killDoomedKey{Backend: words(d.Backend.Addr()), BackendPort: swap(d.Backend.Port()), Proto: uint32(d.Frontend.Proto)}
		whom := uint32(doomedAll)
		if d.Shared {
			whom = doomedRemembered
		}
		out[key] = max(out[key], whom)
		key.Vip, key.VipPort = words(d.Frontend.Addr.Addr()), swap(d.Frontend.Addr.Port())
		out[key] = doomedRemembered
	}
	return out
}

// run runs the programs over the sockets of the thread's network namespace.
func (k *killer) run() error {
	for _, l := range k.links {
		r, err := l.Open()
		if err != nil {
			return fmt.Errorf("look through sockets: %w", err)
		}
		err = unix.EAGAIN
		for errors.Is(err, unix.EAGAIN) { // after a million sockets
			_, err = io.Copy(io.Discard, r)
		}
		if err = errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("look through sockets: %w", err)
		}
	}
	return nil
}

// Disconnect ends the sockets, in every network namespace, that are connected
// to a backend of a service whose drain is over: their owners get ECONNABORTED,
// and for UDP may connect anew. It returns how many there were.
//
// A socket that remembers its VIP is ended if that is the drain's. One that
// remembers none is ended by its far end alone, and so only where the drain is
// not Shared. Below Linux 6.5 all are taken for such. It keeps no Apply waiting.
func (d *Dataplane) Disconnect(ended []lb.Drain) (int, error) {
	if d.killer.ready() == nil {
		return d.killer.disconnect(ended)
	}
	peers := map[hostnet.Peer]bool{}
	for _, e := range ended {
		if !e.Shared {
			peers[hostnet.Peer{Proto: e.Frontend.Proto, Addr: e.Backend}] = true
		}
	}
	return hostnet.Disconnect(peers)
}
