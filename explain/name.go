package explain

import (
	"slices"
	"strings"

	"waggle/dns"
	"waggle/model"
	"waggle/vip"
)

// name explains a DNS name. ours says that it is in one of our domains.
func (w World) name(query string) (s Subject, exists, ours bool) {
	name := strings.ToLower(strings.TrimSuffix(query, ".")) + "."
	s = Subject{Kind: "name", Name: name}
	domain, exists, records := w.Zone.Lookup(name)
	switch {
	case domain == "":
		s.miss("not-ours", "%s is in none of the domains this node serves", name)
		return s, false, false
	case !exists:
		s.miss("no-such-name", "%s does not exist in %s", name, domain)
		w.absent(&s, name, domain)
		return s, false, true
	}
	for i, r := range records {
		if i == most {
			s.say("more", "and %d records more", len(records)-most)
			break
		}
		s.say("record", "%s %s", r.Type, r.Data)
	}
	origins := w.Zone.Origins(name)
	for i, o := range origins {
		if i == most {
			s.say("more", "and %d things more give it records", len(origins)-most)
			break
		}
		w.origin(&s, o)
	}
	if len(records) == 0 {
		s.say("nodata", "%s has no records of its own: it exists because of names below it, or as the top of a domain", name)
	}
	return s, true, true
}

func (w World) origin(s *Subject, o dns.Origin) {
	var data []string
	for _, r := range o.Records {
		data = append(data, r.Type+" "+r.Data)
	}
	list := some(data)
	switch {
	case o.Task != nil:
		_, rule := w.Zone.TaskAddrs(o.Task)
		s.say("from-task", "%s from task %s of app %s, framework %s (addresses: %s)", list, o.Task.Key.ID, o.App.Key.Name, o.App.Framework, rule)
	case o.Service != nil:
		s.say("from-vip", "%s from VIP %s, label %q of framework %s", list, frontend(o.Service.Frontend), o.Service.Label, o.Service.Framework)
	case o.Agent != nil:
		s.say("from-agent", "%s from agent %s", list, o.Agent.ID)
	case o.Framework != nil:
		s.say("from-framework", "%s from framework %s (%s)", list, o.Framework.Name, o.Framework.ID)
	default:
		s.say("from-"+strings.ReplaceAll(o.What, " ", "-"), "%s from the %s", list, o.What)
	}
}

// absent says why a name of ours does not exist, if it would under other
// circumstances.
func (w World) absent(s *Subject, name, domain string) {
	for _, row := range w.Table.Services.All() {
		if row.Name != "" && row.Name+"."+strings.TrimSuffix(w.VIPZone, ".")+"." == name {
			s.miss("name-withheld", "VIP %s would have it", frontend(row.Frontend))
			w.balanced(s, row)
		}
	}
	for _, app := range w.Snapshot.Apps.All() {
		if !strings.Contains(name, vip.FoldLabel(app.Key.Name)) && !strings.Contains(name, strings.ToLower(app.Key.Name)) {
			continue
		}
		for _, t := range app.Tasks {
			if t.State != model.Running && len(s.Facts) < most && w.wouldName(app, t, name) {
				s.miss("task-not-running", "task %s of app %s would give it, but is %s", t.Key.ID, app.Key.Name, t.State)
			}
		}
	}
	for _, f := range w.Snapshot.Frameworks.All() {
		if n := vip.FoldName(f.Name); n != "" && n+"."+domain == name && !f.Addr.IsValid() {
			s.miss("framework-address", "framework %s would have it, but its address is not known (%q)", f.Name, f.Hostname)
		}
	}
}

// wouldName reports whether t would have the name if it ran.
func (w World) wouldName(app *model.App, t *model.Task, name string) bool {
	runs := *t
	runs.State = model.Running
	records, _ := w.Zone.TaskRecords(app, &runs)
	return slices.ContainsFunc(records, func(r dns.Record) bool { return r.Name == name })
}
