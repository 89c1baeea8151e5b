package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"waggle/internal/capability"
	"waggle/internal/hostnet"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// space is IPVS in one network namespace. It is for one goroutine at a time.
type space struct {
	name   string // for people: "host", or the file that named it
	ns     netns.NsHandle
	ipvs   *ipvs.Handle
	routes *routes
	guard  *guard // nil in containers: only the machine has port mappings

	known    bool // held and foreign are what IPVS holds
	held     map[vip.Frontend]service
	foreign  map[vip.Frontend]service // put there by somebody else
	applied  model.Groups[vip.Frontend, *lb.Service]
	compared bool // what differs from applied is all there is to do
}

// openSpace opens IPVS in the namespace at path; empty is that of the process.
func openSpace(name, path string, cfg Config, log *zap.Logger) (*space, error) {
	if err := present(); err != nil {
		return nil, err
	}
	need := []capability.Capability{capability.NetAdmin, capability.SysAdmin}
	if len(capability.Missing(need...)) > 0 {
		return nil, fmt.Errorf("enter a network namespace: %w: %w%s", ErrNotSupported, unix.EPERM, capability.Why(unix.EPERM, need...))
	}
	var ns netns.NsHandle
	var err error
	if path == "" {
		ns, err = netns.Get()
	} else {
		ns, err = netns.GetFromPath(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	s := &space{name: name, ns: ns}
	if s.ipvs, err = ipvs.New(path); err != nil {
		s.close()
		return nil, explain("open IPVS", err)
	}
	if s.routes, err = openRoutes(ns, path == "", cfg); err != nil {
		s.close()
		return nil, err
	}
	if path == "" {
		s.guard = newGuard(ns, log)
	}
	if err := s.read(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// present loads IPVS into the kernel if it is a module that is not loaded yet.
// The library would go on without it and fail at the first change.
func present() error {
	_, err := netlink.GenlFamilyGet("IPVS")
	if err == nil {
		return nil
	}
	out, loading := exec.Command("modprobe", "ip_vs").CombinedOutput()
	if _, err = netlink.GenlFamilyGet("IPVS"); err == nil {
		return nil
	}
	return fmt.Errorf("the kernel has no IPVS (modprobe ip_vs: %v%s): %w", loading, strings.TrimSuffix(" "+strings.TrimSpace(string(out)), " "), ErrNotSupported)
}

// explain marks err as ErrNotSupported if it says that the kernel lacks IPVS or
// that we lack the right to it.
func explain(doing string, err error) error {
	for _, sign := range []error{unix.ENOENT, unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT} {
		if errors.Is(err, sign) {
			return fmt.Errorf("%s: %w: %w%s", doing, ErrNotSupported, err, capability.Why(err, capability.NetAdmin))
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// tune sets what IPVS does beside balancing; the names are those of
// Documentation/networking/ipvs-sysctl.
func tune(host bool) error {
	settings := map[string]int{
		// A backend that has left gives its connections up instead of leaving
		// clients to time out.
		"expire_nodest_conn": 1, "expire_quiescent_template": 1,
		// Since 5.9 a client's port that is used again costs no second.
		"conn_reuse_mode": 1,
	}
	if host {
		settings["conntrack"] = 1 // for the guard's rules to see where a connection meant to go
	}
	for name, value := range settings {
		path := setting(name)
		if err := os.WriteFile(path, []byte(strconv.Itoa(value)), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set %s: %w", path, err)
		}
	}
	return nil
}

// setting returns the file of a setting, in the namespace of the calling thread.
func setting(name string) string { return filepath.Join("/proc/sys/net/ipv4/vs", name) }

func (s *space) close() {
	if s.ipvs != nil {
		s.ipvs.Close()
	}
	if s.routes != nil {
		s.routes.close()
	}
	s.ns.Close()
}

// apply brings the namespace to p. keep leaves what p does not have.
func (s *space) apply(ctx context.Context, p *lb.Plan, takeOver bool) ([]*lb.ServiceError, error) {
	if !s.known {
		if err := s.read(); err != nil {
			return nil, err
		}
	}
	keep := p.Partial
	changes := s.changes(p)
	idle := map[vip.Frontend][]lb.Backend{}
	for _, d := range p.Draining() {
		idle[d.Frontend] = append(idle[d.Frontend], lb.Backend{Addr: d.Backend, Inner: d.Inner})
	}
	now := p.Services
	var failed []*lb.ServiceError
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			s.compared = false
			return nil, err
		}
		if c.service == nil && keep {
			continue
		}
		if err := s.set(c, append(idle[c.frontend], p.Idle(c.frontend)...), takeOver); err != nil {
			failed = append(failed, &lb.ServiceError{Frontend: c.frontend, Err: err})
		}
	}
	if len(failed) > 0 || keep {
		edit := now.Edit()
		for _, e := range failed {
			edit.Delete(e.Frontend)
		}
		now = edit.Groups()
	}
	s.applied, s.compared = now, s.known && !keep
	return failed, nil
}

// change is what a frontend is to become; a nil service means nothing.
type change struct {
	frontend vip.Frontend
	service  *lb.Service
}

func (s *space) changes(p *lb.Plan) (out []change) {
	if s.compared {
		for c := range model.Diff(s.applied, p.Services) {
			out = append(out, change{c.Key, c.New})
		}
		for _, d := range p.Ended { // what was kept for its old connections goes
			if svc, ok := p.Services.Get(d.Frontend); ok {
				out = append(out, change{d.Frontend, svc})
			}
		}
		return out
	}
	for f := range s.held {
		if _, ok := p.Services.Get(f); !ok {
			out = append(out, change{f, nil})
		}
	}
	for f, svc := range p.Services.All() {
		out = append(out, change{f, svc})
	}
	return out
}

// set brings one frontend to what it is to become. Its address is guarded and
// routed before IPVS has it and longer than IPVS has it.
func (s *space) set(c change, idle []lb.Backend, takeOver bool) error {
	var old, new *service
	ours, entered := s.held[c.frontend]
	theirs, foreign := s.foreign[c.frontend]
	switch {
	case entered:
		old = &ours
	case foreign && c.service == nil:
		return nil
	case foreign && !takeOver:
		return ErrForeign
	case foreign:
		old = &theirs
	}
	if c.service != nil {
		w, err := wanted(c.service, idle, s.guard != nil)
		if err != nil {
			return err
		}
		new = &w
	}
	addr := c.frontend.Addr.Addr()
	if !entered && new != nil {
		s.guard.enter(addr)
		if err := s.routes.enter(addr); err != nil {
			s.known = false
			return err
		}
	}
	for _, e := range edits(old, new) {
		if err := s.perform(c.frontend, e, old, new); err != nil {
			s.known = false // somebody has been here: it is read anew before the next try
			return err
		}
	}
	delete(s.foreign, c.frontend)
	if new != nil {
		s.held[c.frontend] = *new
		return nil
	}
	delete(s.held, c.frontend)
	if !entered {
		return nil
	}
	err := s.routes.leave(addr)
	s.guard.leave(addr)
	return err
}

func (s *space) perform(f vip.Frontend, e edit, old, new *service) error {
	shape := new
	if shape == nil {
		shape = old
	}
	k := kernelService(f, shape)
	switch e.kind {
	case addService:
		return s.ipvs.NewService(k)
	case setService:
		return s.ipvs.UpdateService(k)
	case addDest:
		return s.ipvs.NewDestination(k, kernelDest(e.dest, e.weight))
	case setDest:
		return s.ipvs.UpdateDestination(k, kernelDest(e.dest, e.weight))
	case delDest:
		return s.ipvs.DelDestination(k, kernelDest(e.dest, 0))
	}
	return s.ipvs.DelService(k)
}

// read takes what IPVS holds for the truth, and makes its settings ours.
func (s *space) read() error {
	if err := inside(s.ns, func() error { return tune(s.guard != nil) }); err != nil {
		return err
	}
	all, err := s.ipvs.GetServices()
	if err != nil {
		return explain("read IPVS services", err)
	}
	s.held, s.foreign, s.compared = map[vip.Frontend]service{}, map[vip.Frontend]service{}, false
	for _, k := range all {
		f, svc, ok := fromKernel(k)
		if !ok {
			continue
		}
		dests, err := s.ipvs.GetDestinations(k)
		if err != nil {
			return fmt.Errorf("read destinations of %s: %w", f.Addr, err)
		}
		for _, d := range dests {
			if a, ok := netip.AddrFromSlice(d.Address); ok {
				svc.dests[netip.AddrPortFrom(a.Unmap(), d.Port)] = d.Weight
			}
		}
		if svc.flags&mark == 0 {
			s.foreign[f] = svc
		} else {
			s.held[f] = svc
		}
	}
	var ours []netip.Addr
	for f := range s.held {
		ours = append(ours, f.Addr.Addr())
	}
	s.guard.adopt(ours)
	if err := s.routes.adopt(ours); err != nil {
		return err
	}
	s.known = true
	return nil
}

// inside runs do on a thread of its own in ns.
func inside(ns netns.NsHandle, do func() error) error {
	return hostnet.OnThread(func() error {
		if err := netns.Set(ns); err != nil {
			return err
		}
		return do()
	})
}

// netlinkAt opens routing netlink in ns.
func netlinkAt(ns netns.NsHandle) (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, explain("open routing netlink", err)
	}
	return h, nil
}
