package explain

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// vips explains the services that query means: an address, an address and port,
// a name with or without the zone, or a label's value.
func (w World) vips(query string) []Subject {
	match := w.matcher(query)
	var rows []*vip.Service
	for _, row := range w.Table.Services.All() {
		if match(row.Frontend, row.Name) {
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b *vip.Service) int {
		return strings.Compare(frontend(a.Frontend), frontend(b.Frontend))
	})
	var out []Subject
	for _, row := range rows {
		out = append(out, w.vip(row))
	}
	if len(rows) > 0 {
		return out
	}
	if s := w.retired(match); s != nil {
		out = append(out, *s)
	}
	if s := w.wanted(query, match); s != nil {
		out = append(out, *s)
	}
	return out
}

func frontend(f vip.Frontend) string { return f.Addr.String() + "/" + f.Proto.String() }

// matcher returns what tells whether a service is meant by query.
func (w World) matcher(query string) func(vip.Frontend, string) bool {
	if a, err := netip.ParseAddr(strings.Trim(query, "[]")); err == nil {
		return func(f vip.Frontend, _ string) bool { return f.Addr.Addr() == a.Unmap() }
	}
	if a, err := netip.ParseAddrPort(query); err == nil {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		return func(f vip.Frontend, _ string) bool { return f.Addr == a }
	}
	name := strings.ToLower(strings.TrimSuffix(query, "."))
	name = strings.TrimSuffix(name, "."+strings.TrimSuffix(w.VIPZone, "."))
	label, port, ported := strings.Cut(name, ":")
	label = vip.FoldName(label)
	return func(f vip.Frontend, called string) bool {
		// A label's value leaves the framework open, and has a slash or a port.
		open := (ported || strings.HasPrefix(query, "/")) && label != "" && strings.HasPrefix(called, label+".")
		samePort := !ported || port == "" || port == portOf(f)
		return called != "" && (called == name || called == label && ported || open) && samePort
	}
}

func portOf(f vip.Frontend) string {
	_, port, _ := strings.Cut(netip.AddrPortFrom(netip.IPv4Unspecified(), f.Addr.Port()).String(), ":")
	return port
}

func (w World) vip(row *vip.Service) Subject {
	s := Subject{Kind: "vip", Name: frontend(row.Frontend)}
	at := row.Frontend.Addr.Addr()
	if row.Name == "" {
		s.say("vip-by-address", "VIP %s is given by its address in labels", frontend(row.Frontend))
	} else {
		s.say("vip-by-name", "VIP %s: label %q and framework %s fold to %s", frontend(row.Frontend), row.Label, row.Framework, row.Name)
		if home := w.VIP.Home(row.Name, at); home == at {
			s.say("address-home", "%s is the hash of its name", at)
		} else {
			s.say("address-moved", "the hash of its name is %s, which a name before it in the alphabet has; %s is the next that is free", home, at)
		}
	}
	up := 0
	for i, b := range row.Backends {
		if b.State == vip.Up {
			up++
		}
		if i < most {
			s.say("backend-"+b.State.String(), "backend %s is %s, weight %d: task %s%s", b.Addr, b.State, b.Weight, b.Task.ID, w.appOf(b.Task))
		}
	}
	if n := len(row.Backends) - most; n > 0 {
		s.say("more", "and %d backends more", n)
	}
	w.ejected(&s, w.Plan.Ejected(row.Frontend), len(row.Backends))
	switch {
	case len(row.Backends) == 0:
		s.miss("no-backend", "it has no backend: connections are refused at once")
	case up == 0:
		s.miss("fail-open", "no backend is up, so all of them are used")
	}
	w.balanced(&s, row)
	if row.Name != "" {
		w.vipName(&s, row)
	}
	var ids []string
	for _, b := range row.Backends {
		ids = append(ids, b.Task.ID)
	}
	w.problems(&s, ids...)
	return s
}

// ejected tells which backends this node leaves out of n, and why.
func (w World) ejected(s *Subject, out map[netip.AddrPort]lb.Ejection, n int) {
	if len(out) == 0 {
		return
	}
	s.miss("ejections", "%d of %d backends are ejected by this node and get no new connections: it leaves out those that fail or are slow, never more than a third", len(out), n)
	for i, addr := range slices.SortedFunc(maps.Keys(out), netip.AddrPort.Compare) {
		if e := out[addr]; i < most {
			s.miss("ejected", "backend %s is ejected from %s to %s: %s", addr, e.Since.Format(time.TimeOnly), e.Until.Format(time.TimeOnly), e.Reason())
		}
	}
}

// appOf says which app a task is of.
func (w World) appOf(key model.TaskKey) string {
	for _, app := range w.Snapshot.Apps.All() {
		if app.Key.FrameworkID != key.FrameworkID {
			continue
		}
		if _, ok := slices.BinarySearchFunc(app.Tasks, key.ID, func(t *model.Task, id string) int { return strings.Compare(t.Key.ID, id) }); ok {
			return " of app " + app.Key.Name
		}
	}
	return ""
}

// balanced says whether the kernel balances row as the Table has it.
func (w World) balanced(s *Subject, row *vip.Service) {
	if w.Unbalanced == nil {
		return
	}
	var applied *vip.Service
	if w.Applied != nil {
		applied, _ = w.Applied.Services.Get(row.Frontend)
	}
	switch {
	case applied == row:
		s.say("balanced", "this node balances %s", frontend(row.Frontend))
		if list := w.Plan.Excluded(); list != "" {
			s.say("excluded", "but not for %s: they are left alone", list)
		}
	case applied != nil:
		s.miss("kernel-behind", "this node balances an older state of %s: %s", frontend(row.Frontend), w.Unbalanced(row.Frontend))
	default:
		s.miss("not-balanced", "this node does not balance %s: %s", frontend(row.Frontend), w.Unbalanced(row.Frontend))
	}
}

func (w World) vipName(s *Subject, row *vip.Service) {
	name := row.Name + "." + strings.TrimSuffix(w.VIPZone, ".") + "."
	switch _, exists, _ := w.Zone.Lookup(name); {
	case exists:
		s.say("name", "its name is %s", name)
	case w.Applied == nil:
		s.miss("name-withheld", "%s is not named: a VIP that is not balanced here has no name", name)
	default:
		s.miss("name-withheld", "%s is not named: the kernel has not taken the VIP, or the name is longer than DNS allows", name)
	}
}

// retired explains a service that has left the Table and refuses connections.
func (w World) retired(match func(vip.Frontend, string) bool) *Subject {
	if w.Plan == nil {
		return nil
	}
	for f, p := range w.Plan.Services.All() {
		if !p.Retired.IsZero() && match(f, "") {
			s := &Subject{Kind: "vip", Name: frontend(f)}
			s.miss("retired", "VIP %s was given up at %s: it refuses connections until its name has left all caches", frontend(f), p.Retired.Format("15:04:05"))
			return s
		}
	}
	return nil
}

// wanted explains a VIP that does not exist though labels ask for it.
func (w World) wanted(query string, match func(vip.Frontend, string) bool) *Subject {
	s := &Subject{Kind: "vip", Name: query}
	tell := func(app *model.App, t *model.Task) {
		runs := *t
		runs.State = model.Running
		asks, _ := vip.Asks(w.VIP, app.Framework, &runs)
		for _, a := range asks {
			f := vip.Frontend{Addr: netip.AddrPortFrom(a.Addr, a.Port), Proto: a.Proto}
			if !match(f, a.Name) || len(s.Facts) >= most {
				continue
			}
			if len(s.Facts) == 0 {
				s.miss("vip-absent", "the VIP does not exist, though labels ask for it")
			}
			s.miss("asked-by", "label %s=%q of task %s, which is %s", a.Key, a.Value, t.Key.ID, t.State)
			w.problems(s, t.Key.ID)
		}
	}
	for _, app := range w.Snapshot.Apps.All() {
		for _, t := range app.Tasks {
			tell(app, t)
		}
	}
	if len(s.Facts) == 0 {
		return nil
	}
	return s
}
