package marathon

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"waggle/model"
)

// world is what Marathon has told, from which Snapshots are made. Of a Snapshot
// and the next, what did not change is shared.
type world struct {
	framework *model.Framework
	leader    netip.AddrPort // of Mesos

	specs  map[string]*runSpec                // by path
	keyed  map[model.AppKey]map[string]bool   // paths whose tasks have a key
	agents map[string]map[string]*model.Agent // by id: what each path tells of it
	hosts  map[string]netip.Addr              // names that were found; addresses are not in it
	wants  map[string]map[string]bool         // names that were not: the paths that wait for them
	asked  map[string]time.Time               // when they were last looked up
	apps   *model.Editor[model.AppKey, *model.App]
	nodes  *model.Editor[string, *model.Agent]
	lost   []model.Problem            // documents without a name
	alone  map[string][]model.Problem // of paths without tasks
}

func newWorld(f *model.Framework) *world {
	return &world{
		framework: f,
		specs:     map[string]*runSpec{}, keyed: map[model.AppKey]map[string]bool{}, agents: map[string]map[string]*model.Agent{},
		hosts: map[string]netip.Addr{}, wants: map[string]map[string]bool{}, asked: map[string]time.Time{}, alone: map[string][]model.Problem{},
		apps: model.Groups[model.AppKey, *model.App]{}.Edit(), nodes: model.Groups[string, *model.Agent]{}.Edit(),
	}
}

// put makes r what runs under its path.
func (w *world) put(r *runSpec) {
	old := w.specs[r.id]
	if old != nil {
		r.remember(old)
	}
	w.specs[r.id] = r
	w.forgetWants(r.id)
	w.placeAgents(r.id, old, r)
	touched := w.index(r.id, old, r)
	for _, key := range touched {
		w.rebuild(key)
	}
	if delete(w.alone, r.id); len(r.instances) == 0 && len(r.problems) > 0 {
		w.alone[r.id] = r.problems
	}
}

// remember keeps the verdicts of old for tasks whose checks have not spoken
// again: those of Marathon's own checks are in its leader's memory, and a new
// leader starts without any.
func (r *runSpec) remember(old *runSpec) {
	was := map[string]*instance{}
	for i := range old.instances {
		if o := &old.instances[i]; o.spoken {
			was[o.id] = o
		}
	}
	for i := range r.instances {
		n := &r.instances[i]
		if o := was[n.id]; o != nil && !n.spoken && n.spec.checks == o.spec.checks {
			n.health, n.spoken = o.health, true
		}
	}
}

// remove forgets what runs under a path.
func (w *world) remove(path string) {
	old := w.specs[path]
	if old == nil {
		return
	}
	delete(w.specs, path)
	delete(w.alone, path)
	w.forgetWants(path)
	w.placeAgents(path, old, nil)
	for _, key := range w.index(path, old, nil) {
		w.rebuild(key)
	}
}

// replace makes what all holds what runs.
func (w *world) replace(all *collection) {
	w.lost = all.lost
	told := map[string]bool{}
	for _, r := range all.specs {
		told[r.id] = true
		w.put(r)
	}
	for path := range w.specs {
		if !told[path] && len(all.lost) == 0 {
			w.remove(path)
		}
	}
}

// index moves path from the keys of old to those of r, and returns all of them.
func (w *world) index(path string, old, r *runSpec) (touched []model.AppKey) {
	for _, spec := range []*runSpec{old, r} {
		if spec == nil {
			continue
		}
		for i := range spec.instances {
			if key := w.key(&spec.instances[i]); !slices.Contains(touched, key) {
				touched = append(touched, key)
				delete(w.keyed[key], path)
			}
		}
	}
	if r == nil {
		return touched
	}
	for i := range r.instances {
		key := w.key(&r.instances[i])
		if w.keyed[key] == nil {
			w.keyed[key] = map[string]bool{}
		}
		w.keyed[key][path] = true
	}
	return touched
}

func (w *world) key(i *instance) model.AppKey {
	name := i.spec.discovery
	if name == "" {
		name = i.spec.name
	}
	return model.AppKey{FrameworkID: w.framework.ID, Name: name}
}

// rebuild makes the app of a key anew. Two paths may have one: /a/b and /a.b do
// not, but /b.c/a and /c/b/a do.
func (w *world) rebuild(key model.AppKey) {
	app := &model.App{Key: key, Framework: w.framework.Name}
	for _, path := range slices.Sorted(maps.Keys(w.keyed[key])) {
		r := w.specs[path]
		app.Problems = append(app.Problems, r.problems...)
		for i := range r.instances {
			in := &r.instances[i]
			if in.state == model.Terminal || w.key(in) != key {
				continue
			}
			t, problems := w.task(path, in)
			app.Tasks = append(app.Tasks, t)
			app.Problems = append(app.Problems, problems...)
		}
	}
	if len(app.Tasks) == 0 {
		if w.apps.Delete(key); len(w.keyed[key]) == 0 {
			delete(w.keyed, key)
		}
		return
	}
	slices.SortStableFunc(app.Tasks, func(a, b *model.Task) int { return strings.Compare(a.Key.ID, b.Key.ID) })
	app.Tasks = slices.CompactFunc(app.Tasks, func(a, b *model.Task) bool { return a.Key == b.Key })
	slices.SortFunc(app.Problems, model.Problem.Compare)
	was, _ := w.apps.Get(key)
	w.apps.Set(key, app.Keep(was))
}

// task makes a task of an instance of path.
func (w *world) task(path string, in *instance) (*model.Task, []model.Problem) {
	ports, mappings := in.spec.discover(in.ports)
	t := &model.Task{
		Key:  model.TaskKey{FrameworkID: w.framework.ID, ID: in.id},
		Name: in.spec.name, Framework: w.framework.Name, AgentID: in.agentID, AgentAddr: w.addr(path, in.host),
		State: in.state, Health: in.health, Addrs: in.addrs,
		Discovery: &model.Discovery{Name: in.spec.discovery, Ports: ports}, Mappings: mappings,
		Resources: ranges(in.ports), Labels: in.spec.labels,
	}
	if !in.ready {
		t.Health = model.Unhealthy
	}
	if in.spec.host && len(t.Addrs) == 0 && t.AgentAddr.IsValid() && t.State == model.Running {
		t.Addrs = []model.Address{{Addr: t.AgentAddr}}
	}
	var problems []model.Problem
	t.Ports, problems = model.JoinPorts(t)
	return t, problems
}

// addr returns the address of an agent's host, or notes that path waits for it.
func (w *world) addr(path, host string) netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap()
	}
	a, known := w.hosts[host]
	if !known && host != "" {
		if w.wants[host] == nil {
			w.wants[host] = map[string]bool{}
		}
		w.wants[host][path] = true
	}
	return a
}

func (w *world) forgetWants(path string) {
	for host, paths := range w.wants {
		if delete(paths, path); len(paths) == 0 {
			delete(w.wants, host)
		}
	}
}

// due returns the names to look up now, by themselves, and notes that they were
// asked for.
func (w *world) due(now time.Time) map[string]string {
	out := map[string]string{}
	for host := range w.wants {
		if now.Sub(w.asked[host]) >= lookupRetry {
			out[host], w.asked[host] = host, now
		}
	}
	for host := range w.asked {
		if w.wants[host] == nil {
			delete(w.asked, host)
		}
	}
	return out
}

// resolved takes the addresses of names and redoes what they change.
func (w *world) resolved(found map[string]netip.Addr) (changed bool) {
	for host, addr := range found {
		if w.hosts[host] == addr {
			continue
		}
		changed = true
		w.hosts[host] = addr
		delete(w.wants, host)
		for _, r := range w.specs {
			if slices.ContainsFunc(r.instances, func(in instance) bool { return in.host == host }) {
				w.put(r)
			}
		}
	}
	return changed
}

// placeAgents makes what r tells of agents, in place of old, all that path does.
// Either may be nil.
func (w *world) placeAgents(path string, old, r *runSpec) {
	touched := map[string]bool{}
	if old != nil {
		for i := range old.instances {
			id := old.instances[i].agentID
			delete(w.agents[id], path)
			touched[id] = true
		}
	}
	if r != nil {
		for i := range r.instances {
			in := &r.instances[i]
			if w.agents[in.agentID] == nil {
				w.agents[in.agentID] = map[string]*model.Agent{}
			}
			w.agents[in.agentID][path] = &model.Agent{ID: in.agentID, Hostname: in.host, Addr: w.addr(path, in.host), Active: true, Zone: in.zone}
			touched[in.agentID] = true
		}
	}
	delete(touched, "") // an instance that has no agent yet
	delete(w.agents, "")
	for id := range touched {
		w.placeAgent(id)
	}
}

// placeAgent sets an agent to the best of what the paths tell.
func (w *world) placeAgent(id string) {
	by := w.agents[id]
	if len(by) == 0 {
		delete(w.agents, id)
		w.nodes.Delete(id)
		return
	}
	var best *model.Agent
	for _, a := range by {
		if best == nil || better(a, best) {
			best = a
		}
	}
	if was, known := w.nodes.Get(id); !known || *was != *best {
		w.nodes.Set(id, best)
	}
}

// better reports whether a counts rather than b: the paths agree, or one of them
// is behind.
func better(a, b *model.Agent) bool {
	if a.Addr.IsValid() != b.Addr.IsValid() {
		return a.Addr.IsValid()
	}
	return cmp.Or(strings.Compare(a.Hostname, b.Hostname), strings.Compare(a.Zone, b.Zone)) < 0
}

// snapshot returns the world as it is.
func (w *world) snapshot() *model.Snapshot {
	frameworks := model.Groups[string, *model.Framework]{}.Edit()
	frameworks.Set(w.framework.ID, w.framework)
	s := &model.Snapshot{Apps: w.apps.Groups(), Agents: w.nodes.Groups(), Frameworks: frameworks.Groups(), Leader: w.leader}
	s.Problems = slices.Clone(w.lost)
	for _, list := range w.alone {
		s.Problems = append(s.Problems, list...)
	}
	slices.SortFunc(s.Problems, model.Problem.Compare)
	return s
}

// same reports whether two Snapshots of one world say the same.
func same(a, b *model.Snapshot) bool {
	for range model.Diff(a.Apps, b.Apps) {
		return false
	}
	for range model.Diff(a.Agents, b.Agents) {
		return false
	}
	for range model.Diff(a.Frameworks, b.Frameworks) {
		return false
	}
	return a.Leader == b.Leader && slices.Equal(a.Problems, b.Problems)
}

// ranges are the ports in the order given, as Mesos' own API has them.
func ranges(ports []int64) []model.PortRange {
	var out []model.PortRange
	for _, p := range ports {
		if 0 < p && p <= 65535 {
			out = append(out, model.PortRange{First: uint16(p), Last: uint16(p)})
		}
	}
	return out
}
