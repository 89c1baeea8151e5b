package ebpf

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// walker makes Plans at random, each from the one before.
type walker struct {
	r        *rand.Rand
	services model.Groups[vip.Frontend, *lb.Service]
}

func newWalker(seed uint64) *walker { return &walker{r: rand.New(rand.NewPCG(seed, 2))} }

func (w *walker) next() *lb.Plan {
	e := w.services.Edit()
	for range 1 + w.r.IntN(6) {
		s := w.service()
		if w.r.IntN(3) == 0 {
			e.Delete(s.Frontend)
		} else {
			e.Set(s.Frontend, s)
		}
	}
	w.services = e.Groups()
	return &lb.Plan{Services: w.services}
}

func (w *walker) service() *lb.Service {
	six := w.r.IntN(2) == 0
	at := func(net byte, host, port int) netip.AddrPort {
		if six {
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, net, 15: byte(host)}), uint16(port))
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{net, 0, 0, byte(host)}), uint16(port))
	}
	s := &lb.Service{Frontend: tcp(at(11, w.r.IntN(10), 80)), Peername: w.r.IntN(3) == 0}
	if w.r.IntN(3) == 0 {
		s.Frontend.Proto = model.UDP
	}
	s.Choice = lb.Choice(w.r.IntN(2))
	if by := lb.By(w.r.IntN(4)); by != lb.ByNothing {
		s.Affinity = lb.Affinity{By: by, Timeout: time.Duration(1+w.r.IntN(9)) * time.Second}
	}
	if w.r.IntN(2) == 0 { // cookies of namespaces, in order
		for c := range 9 {
			if w.r.IntN(3) == 0 {
				s.Allow = append(s.Allow, lb.Client{Namespace: fmt.Sprint(1 + c)})
			}
		}
	}
	uneven := w.r.IntN(2) == 0
	for i := range w.r.IntN(12) {
		// The first has weight 1, so that weights have no common divisor.
		weight := 1
		if i > 0 && uneven {
			weight += w.r.IntN(4)
		}
		s.Backends = append(s.Backends, lb.Backend{Addr: at(10, i, 1+w.r.IntN(100)), Weight: uint16(weight)})
	}
	return s
}

// checkRoom fails if slots, backends or service ids were lost, or are used
// twice.
func checkRoom(t *testing.T, d *Dataplane) {
	t.Helper()
	slots, backends := 0, map[uint32]bool{}
	sum := 0
	for _, id := range d.heldLocked() {
		slots += int(d.services.load(id).slots().n)
		for _, i := range d.services.listed(d.services.load(id), nil) {
			backends[i] = true
			sum++
		}
	}
	allowed := 0
	for _, s := range kernelState(t, d) {
		allowed += len(s.Allow)
	}
	for what, have := range map[string][2]int{
		"clients that may connect": {d.services.allow.n, allowed},
		"service ids":              {d.services.freeIDs.room(), len(d.services.elems) - len(d.v4.held) - len(d.v6.held)},
		"slots":                    {d.services.freeSlots.room(), len(d.services.slots) - slots},
		"backends":                 {d.services.freeBackends.room(), len(d.services.backends) - len(backends)},
		"backends used once":       {len(backends), sum},
	} {
		if have[0] != have[1] {
			t.Fatalf("%d %s, want %d", have[0], what, have[1])
		}
	}
}

func TestAWalkEndsWhereAFreshStartDoes(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			b := newBed(t)
			w := newWalker(seed)
			d := plainNames(b.open(t))
			var last *lb.Plan
			for range 60 {
				last = w.next()
				if err := d.Apply(t.Context(), last); err != nil {
					t.Fatal(err)
				}
				sameState(t, wantState(last), kernelState(t, d))
				checkRoom(t, d)
				if w.r.IntN(20) == 0 {
					if err := d.Close(); err != nil {
						t.Fatal(err)
					}
					d = plainNames(b.open(t))
					sameState(t, wantState(last), kernelState(t, d))
				}
			}
			fresh := plainNames(newBed(t).open(t))
			apply(t, fresh)
			if err := fresh.Apply(t.Context(), last); err != nil {
				t.Fatal(err)
			}
			sameState(t, kernelState(t, fresh), kernelState(t, d))
		})
	}
}

// TestAWalkThroughFullMaps expects each service to be as the Plan has it or, if
// it is named in the error, as it was before.
func TestAWalkThroughFullMaps(t *testing.T) {
	b := newBed(t)
	b.cfg.Services, b.cfg.Slots, b.cfg.Backends, b.cfg.Allow = 12, 120, 70, 8
	d := plainNames(b.open(t))
	w := newWalker(4)
	want := map[vip.Frontend]lb.Service{}
	failures := 0
	for range 80 {
		p := w.next()
		failed := serviceErrors(t, d.Apply(t.Context(), p))
		failures += len(failed)
		next := wantState(p)
		for f := range failed {
			delete(next, f)
			if old, ok := want[f]; ok {
				next[f] = old
			}
		}
		want = next
		sameState(t, want, kernelState(t, d))
		checkRoom(t, d)
	}
	if failures < 20 {
		t.Errorf("only %d failures: the maps were hardly ever full", failures)
	}
	// With room again, nothing of all that is left behind.
	small := plan(service(vip4, addr("10.0.0.1:1")), service(vip6, addr("[fd00::1]:1")))
	if err := d.Apply(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	sameState(t, wantState(small), kernelState(t, d))
}

func serviceErrors(t *testing.T, err error) map[vip.Frontend]error {
	t.Helper()
	out := map[vip.Frontend]error{}
	if err == nil {
		return out
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("not a joined error: %v", err)
	}
	for _, e := range joined.Unwrap() {
		var failed *lb.ServiceError
		if !errors.As(e, &failed) || !strings.Contains(e.Error(), failed.Frontend.Addr.String()) {
			t.Fatalf("not a ServiceError that names its frontend: %v", e)
		}
		out[failed.Frontend] = e
	}
	return out
}

func TestAServiceThatDoesNotFitIsTriedAgain(t *testing.T) {
	b := newBed(t)
	b.cfg.Services = 2
	d := b.open(t)
	one, two, three := service("11.0.0.1:80"), service("11.0.0.2:80"), service("11.0.0.3:80")
	p := plan(one, two, three)
	if failed := serviceErrors(t, d.Apply(t.Context(), p)); len(failed) != 1 {
		t.Fatalf("%d services failed, want 1", len(failed))
	}
	if failed := serviceErrors(t, d.Apply(t.Context(), p)); len(failed) != 1 {
		t.Fatalf("%d services failed at the second try, want 1", len(failed))
	}
	p = plan(two, three)
	if err := d.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	sameState(t, wantState(p), kernelState(t, d))
}

// TestWhatWasAdoptedAndThenFailedStillGoes: a service that was only ever
// adopted, since its first Apply failed, is no part of what Apply remembers.
func TestWhatWasAdoptedAndThenFailedStillGoes(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	apply(t, d, service(vip4, addr("10.0.0.1:1")))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = b.open(t)
	bad := service(vip4, addr("[fd00::1]:1"))
	if failed := serviceErrors(t, d.Apply(t.Context(), plan(bad))); len(failed) != 1 {
		t.Fatalf("%d services failed, want 1", len(failed))
	}
	sameState(t, wantState(plan(service(vip4, addr("10.0.0.1:1")))), kernelState(t, d))
	apply(t, d)
	sameState(t, nil, kernelState(t, d))
}

func TestACancelledApplyIsMadeUpForByTheNext(t *testing.T) {
	d := newBed(t).open(t)
	before := plan(service(vip4, addr("10.0.0.1:1")), service(vip6, addr("[fd00::1]:1")))
	if err := d.Apply(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	after := plan(service(vip4, addr("10.0.0.2:1")), service("11.0.0.2:80"))
	for calls := range 4 {
		ctx := &doomed{Context: t.Context(), calls: calls}
		if err := d.Apply(ctx, after); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at call %d: %v", calls, err)
		}
		checkRoom(t, d)
	}
	if err := d.Apply(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	sameState(t, wantState(after), kernelState(t, d))
}

// doomed is cancelled after some calls of Err.
type doomed struct {
	context.Context
	calls int
}

func (d *doomed) Err() error {
	if d.calls--; d.calls < 0 {
		return context.Canceled
	}
	return nil
}

func TestAnUnchangedServiceIsNotWritten(t *testing.T) {
	b := newBed(t)
	d := b.open(t)
	web := service(vip4, addr("10.0.0.1:1"))
	apply(t, d, web)
	before := d.v4.held[web.Frontend]
	again := *web // another pointer that says the same
	apply(t, d, &again)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = b.open(t)
	apply(t, d, web)
	if after := d.v4.held[web.Frontend]; after != before {
		t.Errorf("id and slots were %+v, are %+v", before, after)
	}
}

// damages are what somebody else may do to the maps; all but the one to IPv6
// leave the third service alone. The first two have slots, the last is a row.
func damages(services []*lb.Service) map[string]func(d *Dataplane) error {
	first, second, row := services[0].Frontend, services[1].Frontend, services[3].Frontend
	put := func(d *Dataplane, of vip.Frontend, word descriptor) error {
		return d.objs.Descriptors.Put(d.v4.held[of].id, uint64(word))
	}
	return map[string]func(d *Dataplane) error{
		"a VIP removed":     func(d *Dataplane) error { return d.objs.Vip4.Delete(d.v4.key(first)) },
		"an IPv6 VIP gone":  func(d *Dataplane) error { return d.objs.Vip6.Delete(d.v6.key(services[2].Frontend)) },
		"a descriptor gone": func(d *Dataplane) error { return put(d, first, 0) },
		"a descriptor that points beyond the slots": func(d *Dataplane) error {
			return put(d, first, newDescriptor(extent{uint32(len(d.services.slots)) - 1, 9}, 0))
		},
		"a descriptor that points to another's slots": func(d *Dataplane) error {
			return put(d, first, d.v4.held[second].descriptor)
		},
		"a descriptor with another flag": func(d *Dataplane) error {
			return put(d, first, d.v4.held[first].descriptor|flagPeername<<48)
		},
		"a row that ends beyond the backends": func(d *Dataplane) error {
			return put(d, row, newDescriptor(extent{uint32(len(d.services.backends)) - 1, 9}, flagRow))
		},
		"a row that ends beyond all numbers": func(d *Dataplane) error {
			return put(d, row, newDescriptor(extent{1<<32 - 2, 9}, flagRow))
		},
		"a row of another's backends": func(d *Dataplane) error {
			return put(d, row, newDescriptor(extent{d.services.slots[d.v4.held[first].descriptor.slots().base], 2}, flagRow))
		},
		"a row that is too short": func(d *Dataplane) error {
			return put(d, row, d.v4.held[row].descriptor-1<<32)
		},
		"slots taken for a row": func(d *Dataplane) error {
			return put(d, first, d.v4.held[first].descriptor|flagRow<<48)
		},
		"a row taken for slots": func(d *Dataplane) error {
			return put(d, row, d.v4.held[row].descriptor&^(flagRow<<48))
		},
		"a slot overwritten": func(d *Dataplane) error {
			d.services.slots[d.v4.held[first].descriptor.slots().base] = 77
			return nil
		},
		"a slot beyond the backends": func(d *Dataplane) error {
			d.services.slots[d.v4.held[first].descriptor.slots().base] = 1 << 31
			return nil
		},
		"a slot with another's backend": func(d *Dataplane) error {
			mine, other := d.v4.held[first].descriptor.slots().base, d.v4.held[second].descriptor.slots().base
			d.services.slots[mine] = d.services.slots[other]
			return nil
		},
		"a backend overwritten": func(d *Dataplane) error {
			i := d.services.slots[d.v4.held[first].descriptor.slots().base]
			return d.objs.Backends.Put(i, bpfBackend{})
		},
		"a backend at another address": func(d *Dataplane) error {
			i := d.services.slots[d.v4.held[first].descriptor.slots().base]
			d.services.backends[i].Port++
			return nil
		},
		"a VIP that leads to another's service": func(d *Dataplane) error {
			return d.objs.Vip4.Put(d.v4.key(first), d.v4.held[second].id)
		},
		"a VIP that leads beyond the services": func(d *Dataplane) error {
			return d.objs.Vip4.Put(d.v4.key(first), uint32(len(d.services.elems)))
		},
		"a VIP that nobody made":  func(d *Dataplane) error { return d.objs.Vip4.Put(bpfVip4Key{Addr: 7}, uint32(50)) },
		"a scope that nobody has": func(d *Dataplane) error { return d.objs.Vip4.Put(bpfVip4Key{Addr: 7, Scope: 1}, uint32(50)) },
		"everything removed": func(d *Dataplane) error {
			return errors.Join(d.objs.Vip4.Delete(d.v4.key(first)), d.objs.Vip4.Delete(d.v4.key(second)), put(d, first, 0))
		},
	}
}

func TestDamageIsRepaired(t *testing.T) {
	services := []*lb.Service{
		service("11.0.0.1:80", addr("10.0.0.1:1"), addr("10.0.0.2:2")),
		service("11.0.0.2:80", addr("10.0.0.3:3"), addr("10.0.0.4:4")),
		service(vip6, addr("[fd00::1]:1")),
		service("11.0.0.3:80", addr("10.0.0.5:5"), addr("10.0.0.6:6")),
	}
	services[0].Backends[1].Weight, services[1].Backends[1].Weight = 2, 2 // so they have slots
	b, whole := newBed(t), t
	d := b.open(whole)
	p := plan(services...)
	var moved []*lb.Service // all but the third have a backend less and another more
	for i, s := range services {
		m := *s
		if i != 2 {
			m.Backends = append(slices.Clone(s.Backends[:1]), lb.Backend{Addr: addr(fmt.Sprintf("10.0.1.%d:1", i)), Weight: 3})
		}
		moved = append(moved, &m)
	}
	for name, damage := range damages(services) {
		// Each repairs, and returns what the kernel is to hold then.
		repair := map[string]func(t *testing.T) *lb.Plan{
			"by Repair": func(t *testing.T) *lb.Plan {
				if err := d.Repair(t.Context()); err != nil {
					t.Fatal(err)
				}
				return p
			},
			"by Repair after a change": func(t *testing.T) *lb.Plan {
				apply(t, d, moved...)
				if err := d.Repair(t.Context()); err != nil {
					t.Fatal(err)
				}
				return plan(moved...)
			},
			"by a restart": func(t *testing.T) *lb.Plan {
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				d = b.open(whole) // lasts longer than this subtest
				apply(t, d, services...)
				return p
			},
		}
		for how, do := range repair {
			t.Run(name+" "+how, func(t *testing.T) {
				if err := d.Apply(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				before := maps.Clone(d.heldLocked())
				if err := damage(d); err != nil {
					t.Fatal(err)
				}
				for f, b := range d.BackendStats() { // which damage must not end
					if !b.Addr.IsValid() {
						t.Errorf("%v has a backend without an address", f)
					}
				}
				want := do(t)
				sameState(t, wantState(want), kernelState(t, d))
				checkRoom(t, d)
				if id, was := d.heldLocked()[services[2].Frontend], before[services[2].Frontend]; id != was && !strings.Contains(name, "IPv6") {
					t.Errorf("a service without damage has id %d now, had %d", id, was)
				}
			})
		}
	}
}

func TestAKernelThatFailsToWaitIsMadeUpFor(t *testing.T) {
	d := newBed(t).open(t)
	p := plan(service(vip4, addr("10.0.0.1:1")), service(vip6, addr("[fd00::1]:1")))
	if err := d.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	wait, broken := d.services.wait, errors.New("broken")
	d.services.wait = func() error { return broken }
	apply(t, d) // removing needs no wait, adding afterwards does
	for what, err := range map[string]error{"Apply": d.Apply(t.Context(), p), "Repair": d.Repair(t.Context())} {
		if !errors.Is(err, broken) || errors.As(err, new(*lb.ServiceError)) {
			t.Errorf("%s = %v, want %v for the whole", what, err, broken)
		}
	}
	d.services.wait = wait
	if err := d.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	sameState(t, wantState(p), kernelState(t, d))
	checkRoom(t, d)
}

func TestRepairWithoutDamageChangesNothing(t *testing.T) {
	d := newBed(t).open(t)
	if err := d.Repair(t.Context()); err != nil {
		t.Errorf("before the first Plan: %v", err)
	}
	apply(t, d, service(vip4, addr("10.0.0.1:1")))
	before := d.v4.held[tcp(addr(vip4))]
	if err := d.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := d.v4.held[tcp(addr(vip4))]; after != before {
		t.Errorf("id and slots were %+v, are %+v", before, after)
	}
}

func TestAClosedDataplaneSaysSo(t *testing.T) {
	d := newBed(t).open(t)
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	if d.Apply(t.Context(), plan()) == nil || d.Repair(t.Context()) == nil {
		t.Error("it works after Close")
	}
}
