package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"waggle/model"
	"waggle/vip"
)

// tasks explains the tasks whose id is the query, else the apps of that name.
func (w World) tasks(query string) []Subject {
	var out, apps []Subject
	for _, app := range w.Snapshot.Apps.All() {
		at, ok := slices.BinarySearchFunc(app.Tasks, query, func(t *model.Task, id string) int { return strings.Compare(t.Key.ID, id) })
		if ok {
			out = append(out, w.task(app, app.Tasks[at]))
		}
		if called(app, query) {
			apps = append(apps, w.app(app))
		}
	}
	if len(out) == 0 {
		out = apps
	}
	slices.SortFunc(out, func(a, b Subject) int { return strings.Compare(a.Facts[0].Text, b.Facts[0].Text) })
	return out
}

// called reports whether query is the app's name: as it is, or as Marathon
// writes it, /group/app for app.group.
func called(app *model.App, query string) bool {
	if query == app.Key.Name {
		return true
	}
	path, ok := strings.CutPrefix(query, "/")
	parts := strings.Split(path, "/")
	slices.Reverse(parts)
	return ok && app.Key.Name == strings.Join(parts, ".")
}

// app explains an app by its tasks: in one line each if they are many.
func (w World) app(app *model.App) Subject {
	if len(app.Tasks) == 1 {
		return w.task(app, app.Tasks[0])
	}
	s := Subject{Kind: "app", Name: app.Key.Name}
	s.say("source", "app %s of framework %s (%s), %d tasks, from %s", app.Key.Name, app.Framework, app.Key.FrameworkID, len(app.Tasks), source(app.Key.FrameworkID))
	for i, t := range app.Tasks {
		if i == most {
			s.say("more", "and %d tasks more; ask for one by its id", len(app.Tasks)-most)
			break
		}
		one := w.task(app, t)
		text := fmt.Sprintf("task %s is %s", t.Key.ID, t.State)
		for _, f := range one.Facts {
			if f.Missing {
				text += "; " + f.Text
			}
		}
		s.say("task", "%s", text)
	}
	return s
}

func source(frameworkID string) string {
	if strings.HasPrefix(frameworkID, "file:") {
		return "a file"
	}
	return "the scheduler"
}

func (w World) task(app *model.App, t *model.Task) Subject {
	s := Subject{Kind: "task", Name: t.Key.ID}
	agent := "agent " + t.AgentID
	if t.AgentAddr.IsValid() {
		agent += " at " + t.AgentAddr.String()
	}
	s.say("source", "task %s of app %s, framework %s (%s), %s, from %s", t.Key.ID, app.Key.Name, app.Framework, t.Key.FrameworkID, agent, source(t.Key.FrameworkID))
	if !t.AgentAddr.IsValid() {
		s.miss("no-agent-address", "the address of agent %s is not known, so no port of the agent can be used", t.AgentID)
	}
	if h, ok := w.Snapshot.Held.Get(t.AgentID); ok {
		s.say("held", "the leading master has not heard all of agent %s: what is told here may be as old as %s, and is held until %s",
			t.AgentID, h.Since.Format(time.TimeOnly), h.Until.Format(time.TimeOnly))
	}
	state(&s, t)
	health(&s, t)
	w.addresses(&s, t)
	for i := range t.Ports {
		port(&s, t, t.Ports[i])
		w.shortCut(&s, t, t.Ports[i])
	}
	w.labels(&s, app, t)
	w.taskNames(&s, app, t)
	w.problems(&s, t.Key.ID)
	return s
}

func state(s *Subject, t *model.Task) {
	switch t.State {
	case model.Running:
		s.say("state-running", "it runs: it is named and takes connections")
	case model.Preparing:
		s.miss("state-preparing", "it does not run yet, or cannot be reached now: no name, no backend")
	case model.Killing:
		s.miss("state-killing", "it is being killed: it keeps its connections, gets new ones only if no other backend is up, and has no name")
	case model.Terminal:
		s.miss("state-terminal", "it has ended: no name, no backend")
	}
}

func health(s *Subject, t *model.Task) {
	switch t.Health {
	case model.HealthUnknown:
		s.say("health-unchecked", "nobody checks its health, which counts as healthy")
	case model.Healthy:
		s.say("health-good", "its health check passes")
	case model.Unhealthy:
		s.miss("health-bad", "its health check fails or has not spoken yet: it gets new connections only if no other backend is up")
	}
}

func (w World) addresses(s *Subject, t *model.Task) {
	addrs, rule := w.Zone.TaskAddrs(t)
	if len(addrs) == 0 {
		s.miss("no-address", "no address of it is known (%s)", rule)
		return
	}
	s.say("address", "its names have %v: %s", addrs, rule)
	if t.AddrsKept {
		s.say("address-kept", "its newest status has no address; that of an older one stands")
	}
}

// port explains where one port is reached.
func port(s *Subject, t *model.Task, p model.Port) {
	what := fmt.Sprintf("port %s/%s", p.Name, p.Proto)
	scope := ""
	for _, l := range p.Labels {
		if l.Key == "network-scope" {
			scope = l.Value
		}
	}
	at := t.Endpoints(p)
	switch {
	case len(at) == 0:
		s.miss("port-nowhere", "%s: nothing is known that leads there", what)
	case p.HostPort != 0 && scope == "host":
		s.say("port-host-scope", "%s is at %v: label network-scope is host, so its number is the agent's", what, at)
	case p.HostPort != 0:
		s.say("port-mapped", "%s is at %v: a port mapping leads from the agent to port %d of the container", what, at, p.Number)
	case t.HostNetwork():
		s.say("port-host-network", "%s is at %v: the task shares its agent's network", what, at)
	case p.Network != "":
		s.say("port-network", "%s is at %v: the addresses in network %s", what, at, p.Network)
	default:
		s.say("port-container", "%s is at %v: the container's own", what, at)
	}
	if p.ServicePort != 0 {
		s.say("service-port", "%s: Marathon keeps port %d for load balancers of it", what, p.ServicePort)
	}
}

// shortCut tells where this node reaches a port that others reach by a mapping.
func (w World) shortCut(s *Subject, t *model.Task, p model.Port) {
	if at, ok := w.VIP.Near(t, p); ok {
		s.say("port-short-cut", "port %s/%s is %s for the VIPs of this node, on which it runs: past the port mapping (lb.short_cut is %s)", p.Name, p.Proto, at, w.VIP.ShortCut)
	}
}

// labels explains what the VIP labels of a task come to.
func (w World) labels(s *Subject, app *model.App, t *model.Task) {
	runs := *t
	if t.State == model.Preparing || t.State == model.Terminal {
		runs.State = model.Running // what it would ask for
	}
	asks, _ := vip.Asks(w.VIP, app.Framework, &runs)
	for _, a := range asks {
		w.ask(s, t, a)
	}
	for _, l := range t.Labels {
		if key := strings.ToLower(l.Key); strings.HasPrefix(key, "vip") && !strings.HasPrefix(key, "vip_port") {
			s.miss("label-on-task", "label %s=%q is on the task: a VIP label counts on a port only", l.Key, l.Value)
		}
	}
	for _, p := range t.Ports {
		for _, l := range p.Labels {
			if strings.HasPrefix(strings.ToLower(l.Key), "vip") && !strings.HasPrefix(l.Key, "vip") && !strings.HasPrefix(l.Key, "VIP") {
				s.miss("label-case", "label %s=%q is not read: the key begins with VIP or vip", l.Key, l.Value)
			}
		}
	}
	switch {
	case len(asks) > 0:
	case len(t.Ports) == 0:
		s.miss("no-port", "it has no port in its discovery information, so it can have no VIP")
	case !slices.ContainsFunc(s.Facts, func(f Fact) bool { return f.Rule == "label-case" || f.Rule == "label-on-task" }):
		s.miss("no-vip-label", "none of its ports has a VIP label that can be read")
	}
}

// ask explains one backend that a label asks for, and whether it is one.
func (w World) ask(s *Subject, t *model.Task, a vip.Ask) {
	to := "the VIP " + a.Name
	if a.Name == "" {
		to = "the VIP at " + a.Addr.String()
	}
	row := w.rowOf(a)
	switch {
	case !a.Backend.Addr.IsValid():
		s.miss("no-backend-address", "label %s=%q asks for %s, but the task has no address for it", a.Key, a.Value, to)
	case t.State == model.Preparing || t.State == model.Terminal:
		s.miss("not-a-backend", "label %s=%q asks for %s, of which it would be backend %s if it ran", a.Key, a.Value, to, a.Backend.Addr)
	case row == nil:
		s.miss("no-vip", "label %s=%q asks for %s, which could not be made", a.Key, a.Value, to)
	default:
		s.say("backend-"+a.Backend.State.String(), "label %s=%q makes it backend %s of %s, %s/%s, weight %d", a.Key, a.Value, a.Backend.Addr, to, row.Frontend.Addr, a.Proto, a.Backend.Weight)
		w.balanced(s, row)
	}
}

// rowOf returns the service that a is a backend of.
func (w World) rowOf(a vip.Ask) *vip.Service {
	for f, row := range w.Table.Services.All() {
		same := row.Name == a.Name && f.Addr.Port() == a.Port && f.Proto == a.Proto
		if same && slices.ContainsFunc(row.Backends, func(b vip.Backend) bool { return b.Task == a.Backend.Task && b.Addr == a.Backend.Addr }) {
			return row
		}
	}
	return nil
}

// taskNames tells a task's names, those with addresses only.
func (w World) taskNames(s *Subject, app *model.App, t *model.Task) {
	records, tooLong := w.Zone.TaskRecords(app, t)
	var names []string
	for _, r := range records {
		if r.Type != "SRV" && !slices.Contains(names, r.Name) {
			names = append(names, r.Name)
		}
	}
	if len(names) > 0 {
		s.say("names", "its names: %s", some(names))
	} else {
		s.miss("no-name", "it has no name")
	}
	for _, n := range tooLong {
		s.miss("name-too-long", "%s is left out: DNS allows 63 bytes in a label and 255 in a name", n)
	}
}
