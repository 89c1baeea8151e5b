package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"waggle/model"
	"waggle/vip"
)

// Origin is one thing that has a name, and what it gives to it.
type Origin struct {
	// One of these is set; none for the name server and for masters, which What
	// names.
	App       *model.App // of Task
	Task      *model.Task
	Service   *vip.Service
	Agent     *model.Agent
	Framework *model.Framework
	What      string
	Records   []Record // sorted
}

// Lookup returns the records at name, in any case and with the final dot or
// not; the domain it is in, empty if that is none of ours; and whether it
// exists: a name without records may be there for the names below it.
func (z *Zone) Lookup(name string) (domain string, exists bool, records []Record) {
	name = fqdn(strings.ToLower(name))
	d, n := z.find(name)
	if d == nil {
		return "", false, nil
	}
	if n == nil {
		return d.apex, false, nil
	}
	return d.apex, true, n.recordsOf(name, d.ttl)
}

// Origins returns what gives name its records. It looks through everything
// there is: it is for people who ask, not for queries.
func (z *Zone) Origins(name string) []Origin {
	name, _, _ = z.layout.real(fqdn(strings.ToLower(name)))
	var out []Origin
	take := func(o Origin, names func(addFunc)) {
		if o.Records = z.layout.recordsOf(names, func(n string) bool { return n == name }); len(o.Records) > 0 {
			out = append(out, o)
		}
	}
	take(Origin{What: "configuration"}, z.layout.given)
	take(Origin{What: "masters"}, func(add addFunc) { z.layout.masters(z.snap.Leader, z.snap.Masters, add) })
	for _, a := range z.snap.Agents.All() {
		take(Origin{Agent: a}, func(add addFunc) { z.layout.agent(a, add) })
	}
	for _, f := range z.snap.Frameworks.All() {
		take(Origin{Framework: f}, func(add addFunc) { z.layout.framework(f, add) })
	}
	for _, s := range z.services.All() {
		take(Origin{Service: s}, func(add addFunc) { z.layout.virtual(s, add) })
	}
	for _, a := range z.snap.Apps.All() {
		of := z.layout.app(a)
		if !of.in(name) {
			continue
		}
		for _, t := range a.Tasks {
			take(Origin{App: a, Task: t}, func(add addFunc) { z.layout.allOf(of, a, t, add) })
		}
	}
	return out
}

// allOf names t, of a, by all names, that by its number included.
func (l *layout) allOf(of appNames, a *model.App, t *model.Task, add addFunc) {
	l.task(of, t, add)
	if i := slices.Index(instancesOf(a), t); i >= 0 && !l.cfg.Exact {
		l.instanceOf(of, i, t, add)
	}
}

// in reports whether name may be one of the app's: all of those but the names of
// addresses have the app's name in them.
func (a *appNames) in(name string) bool {
	dcos, _, _ := strings.Cut(a.dcos, ".")
	return strings.HasSuffix(name, ".arpa.") || a.unique != "" && strings.Contains(name, a.unique) || strings.Contains(name, a.folded) || strings.Contains(name, a.raw) || dcos != "" && strings.Contains(name, dcos)
}

// TaskRecords returns the records that t, of app, gives to all of its names,
// sorted, and the names that are left out because they are longer than DNS
// allows. It is none unless t runs.
func (z *Zone) TaskRecords(app *model.App, t *model.Task) (records []Record, tooLong []string) {
	of := z.layout.app(app)
	z.layout.allOf(of, app, t, func(name string, _ value) {
		if !askable(name) && !slices.Contains(tooLong, name) {
			tooLong = append(tooLong, name)
		}
	})
	return z.layout.recordsOf(func(add addFunc) { z.layout.allOf(of, app, t, add) }, func(string) bool { return true }), tooLong
}

// TaskAddrs returns the addresses that t's names have in the domain of
// mesos-dns, and the rule that chose them.
func (z *Zone) TaskAddrs(t *model.Task) (addrs []netip.Addr, rule string) {
	p := placeOf(t)
	switch {
	case len(z.layout.cfg.IPSources) > 0:
		return p.fromSources(z.layout.cfg.IPSources, t), fmt.Sprintf("the first of dns.ip_sources %v that has any", z.layout.cfg.IPSources)
	case len(p.own) == 0:
		return p.reached, "the agent's, for the task reports none"
	case p.agent.IsValid() && published(t):
		return p.reached, "the agent's, for the agent publishes a port of the task"
	}
	return p.reached, "the task's own"
}

// recordsOf returns the records that names says, those whose name is wanted and
// could be asked for.
func (l *layout) recordsOf(names func(addFunc), wanted func(string) bool) []Record {
	var out []Record
	names(func(name string, v value) {
		if wanted(name) && findable(name, v) {
			out = append(out, l.record(name, v))
		}
	})
	slices.SortFunc(out, func(a, b Record) int {
		return strings.Compare(a.Name+" "+a.Type+" "+a.Data, b.Name+" "+b.Type+" "+b.Data)
	})
	return slices.Compact(out)
}
