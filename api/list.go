package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxPage is the largest ?limit=.
const maxPage = 10_000

// listOf is how one kind of thing is listed: in the order of its key, whose
// parts are compared as text.
type listOf[T any] struct {
	all   func(View) []T // sorted
	key   func(T) []string
	holds func(item T, text string) bool // text is in lower case
}

// page answers GET for a list. Without parameters that is all of it. ?q= keeps
// what has the text in it, ?limit= is the most that is wanted, and what follows
// is at the Link with rel="next", whose ?after= is the key of the last one. The
// position in the stream of changes is taken before the list, so that none is
// missed by who follows from there.
func page[T any](s *Server, l listOf[T]) http.HandlerFunc {
	return s.viewed(func(w http.ResponseWriter, r *http.Request, v View) {
		q := r.URL.Query()
		limit := 0
		if text := q.Get("limit"); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > maxPage {
				refuse(w, http.StatusBadRequest, "limit: %q is not a number from 1 to %d", text, maxPage)
				return
			}
			limit = n
		}
		after, err := parseKey(q.Get("after"))
		if err != nil {
			refuse(w, http.StatusBadRequest, "after: %v", err)
			return
		}
		list := l.all(v)
		if text := strings.ToLower(q.Get("q")); text != "" {
			list = slices.DeleteFunc(list, func(item T) bool { return !l.holds(item, text) })
		}
		w.Header().Set("Waggle-Total", strconv.Itoa(len(list)))
		if after != nil {
			i, found := slices.BinarySearchFunc(list, after, func(item T, after []string) int { return slices.Compare(l.key(item), after) })
			if found {
				i++
			}
			list = list[i:]
		}
		if limit > 0 && len(list) > limit {
			list = list[:limit]
			q.Set("after", formatKey(l.key(list[limit-1])))
			w.Header().Set("Link", fmt.Sprintf("<%s?%s>; rel=\"next\"", r.URL.Path, q.Encode()))
		}
		reply(w, list)
	})
}

// formatKey writes a key for ?after=: its parts, none of which has a comma left
// in it, with commas between.
func formatKey(parts []string) string {
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = url.QueryEscape(p)
	}
	return strings.Join(out, ",")
}

// parseKey reads what formatKey wrote; a name alone is the start of a key.
func parseKey(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		p, err := url.QueryUnescape(part)
		if err != nil {
			return nil, fmt.Errorf("%q is no place in a list", text)
		}
		out = append(out, p)
	}
	return out, nil
}

// sortKey is an address as text that sorts like the address.
func sortKey(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	b := a.As16()
	return fmt.Sprintf("%d.%x", a.BitLen()/128, b)
}

func vipKey(v VIP) []string {
	return []string{v.Name, sortKey(v.Address), fmt.Sprintf("%05d", v.Port), v.Protocol}
}

// CompareVIPs orders VIPs as lists have them.
func CompareVIPs(a, b VIP) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), a.Address.Compare(b.Address),
		cmp.Compare(a.Port, b.Port), strings.Compare(a.Protocol, b.Protocol))
}

func (s *Server) vips() listOf[VIP] {
	return listOf[VIP]{
		all: func(v View) []VIP { return VIPs(v.Table, v.Plan, s.cfg.VIPZone) },
		key: vipKey,
		holds: func(v VIP, text string) bool {
			return has(text, v.Name, v.Address.String(), v.Label, v.Framework) || slices.ContainsFunc(v.Backends, func(b Backend) bool {
				return has(text, b.Address.String(), b.Task, b.Agent)
			})
		},
	}
}

func (s *Server) tasks() listOf[Task] {
	return listOf[Task]{
		all:   func(v View) []Task { return Tasks(v.Snapshot) },
		key:   func(t Task) []string { return []string{t.Framework, t.Name, t.ID} },
		holds: func(t Task, text string) bool { return has(text, t.ID, t.Name, t.Framework, t.AgentIP) },
	}
}

func (s *Server) records() listOf[Record] {
	return listOf[Record]{
		all:   func(v View) []Record { return recordsByText(Records(v.Zone)) },
		key:   recordKey,
		holds: func(r Record, text string) bool { return has(text, r.Name, r.Data) },
	}
}

func recordKey(r Record) []string { return []string{r.Name, r.Type, r.Data} }

// recordsByText sorts records, which are by name, type and data in wire format,
// by their text, which is what a place in the list is given by.
func recordsByText(list []Record) []Record {
	slices.SortFunc(list, func(a, b Record) int { return slices.Compare(recordKey(a), recordKey(b)) })
	return list
}

func has(text string, in ...string) bool {
	return slices.ContainsFunc(in, func(s string) bool { return strings.Contains(strings.ToLower(s), text) })
}

// oneVIP answers with the VIPs of a name or an address: one for each port and
// protocol.
func (s *Server) oneVIP(w http.ResponseWriter, r *http.Request, v View) {
	asked := r.PathValue("vip")
	name := strings.TrimSuffix(strings.ToLower(asked), ".") + "."
	list := slices.DeleteFunc(VIPs(v.Table, v.Plan, s.cfg.VIPZone), func(v VIP) bool {
		return v.Name != name && v.Address.String() != asked && strings.TrimSuffix(v.Name, s.cfg.VIPZone+".") != name
	})
	if len(list) == 0 {
		refuse(w, http.StatusNotFound, "no VIP has the name or address %q", asked)
		return
	}
	reply(w, list)
}

// oneName answers with the records of a name. One that is there for the names
// below it has none.
func (s *Server) oneName(w http.ResponseWriter, r *http.Request, v View) {
	_, exists, records := v.Zone.Lookup(r.PathValue("name"))
	if !exists {
		refuse(w, http.StatusNotFound, "there is no name %q here", r.PathValue("name"))
		return
	}
	out := []Record{}
	for _, r := range records {
		out = append(out, Record(r))
	}
	reply(w, out)
}

// Failure is the body of every answer of /v2 that is none.
type Failure struct {
	Error string `json:"error"` // one sentence
}

func refuse(w http.ResponseWriter, code int, format string, args ...any) {
	body, err := json.Marshal(Failure{fmt.Sprintf(format, args...)})
	if err != nil {
		panic(err) // a struct of ours
	}
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	_, _ = w.Write(body)
}
