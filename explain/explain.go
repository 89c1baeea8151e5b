// Package explain says why a task, a name or a VIP is served as it is, or is
// not: which object it comes from, which rule decided, what is missing. It is
// pure: it looks at one turn of the pipeline and knows no scheduler or kernel.
package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"waggle/dns"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// World is what one turn of the pipeline made, and how.
type World struct {
	Snapshot *model.Snapshot
	Table    *vip.Table // what the Snapshot asks for
	Applied  *vip.Table // what is balanced; nil without a balancer
	Plan     *lb.Plan   // nil likewise
	Zone     *dns.Zone
	Problems []model.Problem

	VIP     vip.Config
	VIPZone string // the name below which named VIPs are served
	// Unbalanced says why a service is not balanced as the Table has it. Nil
	// means that there is no kernel to ask about: a recorded document.
	Unbalanced func(vip.Frontend) string
}

// Answer is what there is to say about a query.
type Answer struct {
	Query    string    `json:"query"`
	Found    bool      `json:"found"` // a task, an app, a VIP or a name of that kind exists
	Subjects []Subject `json:"subjects"`
}

// Subject is one thing that the query may mean, with what is true of it.
type Subject struct {
	Kind  string `json:"kind"` // task, app, vip, name or nothing
	Name  string `json:"name"`
	Facts []Fact `json:"facts"`
}

// Fact is one thing that is true, by a rule whose name does not change.
type Fact struct {
	Rule string `json:"rule"`
	Text string `json:"text"`
	// Missing says that this keeps something from being served, or from being
	// used as it might be.
	Missing bool `json:"missing"`
}

// most bounds how many tasks, backends and names are told of one by one.
const most = 10

// Ask answers a query: a task's id, an app's name, a DNS name, or a VIP as an
// address, address and port, folded name or label. A query may mean several.
func Ask(w World, query string) Answer {
	query = strings.TrimSpace(query)
	a := Answer{Query: query, Subjects: w.tasks(query)}
	a.Subjects = append(a.Subjects, w.vips(query)...)
	a.Found = len(a.Subjects) > 0
	if s, exists, ours := w.name(query); exists || ours || len(a.Subjects) == 0 && strings.Contains(query, ".") && !isAddr(query) {
		a.Found = a.Found || exists
		a.Subjects = append(a.Subjects, s)
	}
	if len(a.Subjects) == 0 {
		a.Subjects = append(a.Subjects, w.nothing(query))
	}
	return a
}

func isAddr(query string) bool {
	_, err := netip.ParseAddr(query)
	_, errPort := netip.ParseAddrPort(query)
	return err == nil || errPort == nil
}

func (s *Subject) say(rule, format string, args ...any) {
	s.Facts = append(s.Facts, Fact{Rule: rule, Text: fmt.Sprintf(format, args...)})
}

func (s *Subject) miss(rule, format string, args ...any) {
	s.Facts = append(s.Facts, Fact{Rule: rule, Text: fmt.Sprintf(format, args...), Missing: true})
}

// problems tells the problems that concern one of the ids.
func (w World) problems(s *Subject, ids ...string) {
	var mine []model.Problem
	for _, p := range w.Problems {
		if slices.Contains(ids, p.Task) && p.Task != "" {
			mine = append(mine, p)
		}
	}
	slices.SortFunc(mine, model.Problem.Compare)
	for _, p := range slices.Compact(mine) {
		s.miss("problem", "%s %q: %s", p.Field, p.Value, p.Error)
	}
}

// nothing tells what comes nearest to a query that means nothing.
func (w World) nothing(query string) Subject {
	s := Subject{Kind: "nothing", Name: query}
	s.miss("unknown", "no task, app, VIP or name is called that")
	for _, p := range w.Problems {
		if query != "" && strings.Contains(p.Task+" "+p.Field+" "+p.Value, query) && len(s.Facts) <= most {
			s.miss("problem", "%s: %s %q: %s", p.Task, p.Field, p.Value, p.Error)
		}
	}
	folded := vip.FoldLabel(query)
	var near []string
	for key := range w.Snapshot.Apps.All() {
		if folded != "" && strings.Contains(vip.FoldLabel(key.Name), folded) {
			near = append(near, key.Name)
		}
	}
	slices.Sort(near)
	if near = slices.Compact(near); len(near) > 0 {
		s.say("similar", "there are apps called %s", some(near))
	}
	return s
}

// some joins the first few of a list and says how many are left.
func some(list []string) string {
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}
