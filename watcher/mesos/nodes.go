package mesos

import (
	"encoding/json"
	"net/netip"
	"time"

	"waggle/model"
)

func (w *world) addAgent(raw json.RawMessage) {
	var a v1Agent
	err := readInto(raw, &a)
	w.agentsTold++
	w.putAgent(a.model(), a.PID, err)
}

// model returns the agent without its address.
func (a *v1Agent) model() model.Agent {
	i := a.AgentInfo
	return model.Agent{
		ID: i.ID.Value, Hostname: i.Hostname, Port: i.Port, Active: a.Active == nil || *a.Active, Zone: i.Domain.zone(),
	}
}

// putAgent takes the address from pid, else from the host name, which may have
// to be looked up first; until then the one it had stands.
func (w *world) putAgent(a model.Agent, pid string, err error) {
	if !w.noted("agent", a.ID, err) {
		return
	}
	a.ID = w.name(a.ID)
	old, exists := w.agents.Get(a.ID)
	if !exists {
		old, _ = w.before.Agents.Get(a.ID)
	}
	if old != nil && old.Hostname == a.Hostname {
		a.Addr = old.Addr
	}
	host, port := parsePID(pid)
	if port != 0 {
		a.Port = port
	}
	a.Addr = w.address(a.ID, host, a.Hostname, a.Addr)
	delete(w.removed, a.ID)
	w.back(a.ID)
	if old == nil || *old != a {
		old = &a
	}
	w.setAgent(old)
}

func (w *world) setAgent(a *model.Agent) {
	if old, _ := w.agents.Get(a.ID); old == a {
		return
	}
	w.agents.Set(a.ID, a)
	w.changed = true
	for _, r := range w.members[a.ID] {
		w.dirty[r.app()] = struct{}{}
	}
}

// address reads host, or hostname if there is none. A name is to be looked up
// for id, and known stands until then.
func (w *world) address(id, host, hostname string, known netip.Addr) netip.Addr {
	if host == "" {
		host = hostname
	}
	delete(w.unresolved, id)
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap()
	}
	if host != "" {
		w.unresolved[id] = host
	}
	return known
}

// resolved sets the address of the agent or framework that waited for it.
func (w *world) resolved(id string, addr netip.Addr) {
	if _, waits := w.unresolved[id]; !waits {
		return
	}
	delete(w.unresolved, id)
	w.changed = true // its problem is gone
	if a, ok := w.agents.Get(id); ok && a.Addr != addr {
		c := *a
		c.Addr = addr
		w.setAgent(&c)
	}
	if f, ok := w.frameworks.Get(id); ok && f.Addr != addr {
		c := *f
		c.Addr = addr
		w.setFramework(&c)
	}
}

func (w *world) addFramework(raw json.RawMessage) {
	var f v1Framework
	err := readInto(raw, &f)
	i := f.FrameworkInfo
	w.putFramework(model.Framework{ID: i.ID.Value, Name: i.Name, Hostname: i.Hostname, Active: f.Active}, "", err)
}

func (w *world) putFramework(f model.Framework, pid string, err error) {
	if !w.noted("framework", f.ID, err) {
		return
	}
	f.ID = w.name(f.ID)
	old, exists := w.frameworks.Get(f.ID)
	if !exists {
		old, _ = w.before.Frameworks.Get(f.ID)
	}
	if old != nil && old.Hostname == f.Hostname {
		f.Addr = old.Addr
	}
	var host string
	host, f.Port = parsePID(pid)
	f.Addr = w.address(f.ID, host, f.Hostname, f.Addr)
	delete(w.kept, f.ID)
	if old == nil || *old != f {
		old = &f
	}
	w.setFramework(old)
}

func (w *world) setFramework(f *model.Framework) {
	if old, _ := w.frameworks.Get(f.ID); old == f {
		return
	}
	w.frameworks.Set(f.ID, f)
	w.touchApps(f.ID)
}

func (w *world) touchApps(frameworkID string) {
	w.changed = true
	for key := range w.apps {
		if key.FrameworkID == frameworkID {
			w.dirty[key] = struct{}{}
		}
	}
}

// removeAgent starts the grace of the agent's tasks.
func (w *world) removeAgent(raw json.RawMessage) {
	var id v1ID
	if err := readInto(raw, &id); !w.noted("agent_removed", id.Value, err) {
		return
	}
	if _, ok := w.agents.Get(id.Value); ok {
		now := time.Now()
		w.removed[id.Value] = now
		w.soon(now.Add(keepRemoved))
	}
}

// removeFramework forgets a framework. Its tasks were reported killed before.
func (w *world) removeFramework(raw json.RawMessage) {
	var f v1FrameworkInfo
	if err := readInto(raw, &f); !w.noted("framework_removed", f.ID.Value, err) {
		return
	}
	w.forgetFramework(f.ID.Value)
}

func (w *world) forgetFramework(id string) {
	w.frameworks.Delete(id)
	delete(w.kept, id)
	delete(w.unresolved, id)
	w.right(id)
	w.touchApps(id)
}
