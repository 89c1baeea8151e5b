package ebpf

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"
)

// hook is where a program goes. Without those that are needed nothing is
// balanced; without others something is left out.
type hook struct {
	name   string
	at     ebpf.AttachType
	needed bool
}

// hooks returns them in the order to attach: first what only looks, so that
// nothing is rewritten that could not be shown as the VIP or be counted.
func hooks(watch bool) []hook {
	all := []hook{
		{bpfProgGetpeername4, ebpf.AttachCgroupInet4GetPeername, false},
		{bpfProgGetpeername6, ebpf.AttachCgroupInet6GetPeername, false},
		{bpfProgRecvmsg4, ebpf.AttachCGroupUDP4Recvmsg, false},
		{bpfProgRecvmsg6, ebpf.AttachCGroupUDP6Recvmsg, false},
		{bpfProgSockRelease, ebpf.AttachCgroupInetSockRelease, false},
		{bpfProgWatch, ebpf.AttachCGroupSockOps, false},
		{bpfProgSendmsg4, ebpf.AttachCGroupUDP4Sendmsg, false},
		{bpfProgSendmsg6, ebpf.AttachCGroupUDP6Sendmsg, false},
		{bpfProgConnect4, ebpf.AttachCGroupInet4Connect, true},
		{bpfProgConnect6, ebpf.AttachCGroupInet6Connect, true},
	}
	if !watch {
		all = slices.DeleteFunc(all, func(h hook) bool { return h.name == bpfProgWatch })
	}
	return all
}

// objects are the maps and programs in the kernel, and our links.
type objects struct {
	bpfMaps
	programs map[string]*ebpf.Program
	missing  map[string]error // programs that this kernel does not take, and why
	links    map[string]link.Link
}

// has reports whether all the programs are loaded.
func (o *objects) has(names ...string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return o.programs[n] == nil })
}

// Close lets go of all; what is pinned stays.
func (o *objects) Close() error {
	var err error
	for _, l := range o.links {
		err = errors.Join(err, l.Close())
	}
	for _, p := range o.programs {
		err = errors.Join(err, p.Close())
	}
	if o.Services != nil {
		err = errors.Join(err, o.bpfMaps.Close())
	}
	*o = objects{}
	return err
}

// load loads the programs with the maps that are pinned, and pins those that
// are not.
func (p *pins) load(cfg Config, o *objects, log *zap.Logger) error {
	spec, err := loadBpf()
	if err != nil {
		return err
	}
	if features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnGetCurrentAncestorCgroupId) != nil {
		if err := spec.Variables[bpfVarNoAncestors].Set(uint8(1)); err != nil {
			return err
		}
	}
	p.setSizes(cfg, spec, log)
	wanted := map[string]*ebpf.ProgramSpec{}
	for _, h := range hooks(cfg.Watch) {
		wanted[h.name] = spec.Programs[h.name]
	}
	spec.Programs = wanted
	opts := ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: p.dir}}
	coll, err := ebpf.NewCollectionWithOptions(spec, opts)
	o.missing = map[string]error{}
	if err != nil {
		coll, err = loadOneByOne(spec, opts, o.missing, hooks(cfg.Watch))
	}
	if err != nil {
		return explain("load programs", err)
	}
	defer coll.Close()
	if err := coll.Assign(&o.bpfMaps); err != nil {
		return err
	}
	o.programs, coll.Programs = coll.Programs, nil
	for _, name := range slices.Sorted(maps.Keys(o.missing)) {
		log.Warn("this kernel does not take a program; what it does is left out",
			zap.String("program", name), zap.Error(o.missing[name]))
	}
	return nil
}

// setSizes gives maps the configured sizes, or those they are pinned with.
func (p *pins) setSizes(cfg Config, spec *ebpf.CollectionSpec, log *zap.Logger) {
	for name, size := range map[string]int{
		bpfMapVip4: cfg.Services, bpfMapVip6: cfg.Services,
		bpfMapDescriptors: cfg.Services, bpfMapServices: cfg.Services, bpfMapCounts: cfg.Services,
		bpfMapSlots: (cfg.Slots + 1) / 2, bpfMapBackends: cfg.Backends, bpfMapClients: cfg.Clients + reserved(), bpfMapAllow: cfg.Allow,
	} {
		spec.Maps[name].MaxEntries = uint32(size)
		pinned, err := ebpf.LoadPinnedMap(filepath.Join(p.dir, name), nil)
		if err != nil {
			continue // not there, or loading says what is wrong with it
		}
		if n := pinned.MaxEntries(); n != uint32(size) {
			log.Warn("pinned map keeps its size until `waggle unload`",
				zap.String("map", name), zap.Uint32("size", n), zap.Int("configured", size))
			spec.Maps[name].MaxEntries = n
		}
		pinned.Close()
	}
}

// reserved is how many elements of an LRU map its processors may keep idle for
// themselves. Each takes LOCAL_FREE_TARGET (kernel/bpf/bpf_lru_list.c) at a time;
// where nothing is left for the others, they recycle the element they used last,
// however much room their neighbours have. Linux 6.17 takes less at a time.
func reserved() int {
	const target = 128
	return target * ebpf.MustPossibleCPU()
}

// loadOneByOne loads the programs that are needed, and of the others those that
// this kernel takes. Which these are is found out by trying.
func loadOneByOne(spec *ebpf.CollectionSpec, opts ebpf.CollectionOptions, missing map[string]error, hooks []hook) (*ebpf.Collection, error) {
	all := spec.Programs
	spec = spec.Copy()
	spec.Programs = map[string]*ebpf.ProgramSpec{}
	for _, h := range hooks {
		if h.needed {
			spec.Programs[h.name] = all[h.name].Copy()
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		return nil, err
	}
	for _, h := range hooks {
		if h.needed {
			continue
		}
		spec.Programs = map[string]*ebpf.ProgramSpec{h.name: all[h.name].Copy()}
		one, err := ebpf.NewCollectionWithOptions(spec, opts)
		if err != nil {
			missing[h.name] = err
			continue
		}
		coll.Programs[h.name] = one.DetachProgram(h.name)
		one.Close()
	}
	return coll, nil
}
