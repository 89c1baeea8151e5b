package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// Change is one step from one picture to the next. It says what is now, so that
// taking one twice does no harm.
type Change struct {
	VIP     *VIP          `json:"vip,omitempty"`     // what it is now
	Gone    *Frontend     `json:"gone,omitempty"`    // a VIP that is no more
	Records *NamedRecords `json:"records,omitempty"` // what a name has now
}

// Frontend is what tells a VIP from all others.
type Frontend struct {
	Name     string `json:"name"` // as it had; empty for a VIP given by address
	Address  string `json:"address"`
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"`
}

// NamedRecords are all records of a name; none of one that is no more.
type NamedRecords struct {
	Name    string   `json:"name"`
	Records []Record `json:"records"`
}

// topic is a kind of change that a client can ask for.
type topic string

const (
	topicVIPs    topic = "vips"
	topicRecords topic = "records"
	topicTraffic topic = "traffic" // not kept: only what is now is of interest
)

// entry is a Change as it is sent.
type entry struct {
	of   topic
	data []byte
}

// How much of the past is kept for clients that come back, or are slow: each
// reads from the one list, so that a client costs no memory however far behind
// it is, and what it can miss is bounded for all by these.
const (
	keptChanges = 16384
	keptBytes   = 16 << 20
	// keptIdle is for how long changes are worked out with nobody listening.
	keptIdle = 5 * time.Minute
	// together is for how long changes are collected before they are worked out.
	together = 25 * time.Millisecond
)

// feed turns Views that follow each other into numbered changes.
type feed struct {
	zone  string // below which VIPs have their names
	epoch string // tells the numbers of one process from those of another

	mu       sync.Mutex // guards the following
	last     View       // what entries lead to
	entries  []entry
	bytes    int           // in entries
	first    uint64        // the number of entries[0]; the next one's where there is none
	more     chan struct{} // closed with the next entry
	clients  int
	leftLast time.Time // when the last client went
}

func newFeed(zone string) *feed {
	return &feed{zone: zone, epoch: strconv.FormatUint(rand.Uint64(), 36), first: 1, more: make(chan struct{})}
}

// run follows what view returns until ctx ends.
func (f *feed) run(ctx context.Context, view func() View) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		}
		v := f.take(view)
		select { // a View that nobody follows has a nil channel, which never is ready
		case <-ctx.Done():
			return ctx.Err()
		case <-v.Next:
		}
		pause.Reset(together)
	}
}

// take notes what has changed since the last View, and returns the one that is.
// Where nobody has listened for long, or all is new, it only forgets what was.
func (f *feed) take(view func() View) View {
	f.mu.Lock()
	defer f.mu.Unlock()
	was, v := f.last, view() // with the lock held, or an older one might follow
	f.last = v
	if v.Table == was.Table && v.Plan == was.Plan && v.Zone == was.Zone {
		return v
	}
	if was.Zone == nil || f.clients == 0 && time.Since(f.leftLast) > keptIdle {
		f.forgetLocked()
		return v
	}
	f.diffLocked(was, v)
	for len(f.entries) > 0 && (len(f.entries) > keptChanges || f.bytes > keptBytes) {
		f.bytes -= len(f.entries[0].data)
		f.entries, f.first = f.entries[1:], f.first+1
	}
	f.wakeLocked()
	return v
}

// forgetLocked makes every client start anew.
func (f *feed) forgetLocked() {
	f.first += uint64(len(f.entries)) + 1
	f.entries, f.bytes = nil, 0
	f.wakeLocked()
}

func (f *feed) wakeLocked() {
	close(f.more)
	f.more = make(chan struct{})
}

func (f *feed) diffLocked(was, v View) {
	for _, c := range vipChanges(was, v, f.zone) {
		f.addLocked(topicVIPs, c)
	}
	var records []NamedRecords
	for name, list := range v.Zone.Changed(was.Zone) {
		n := NamedRecords{Name: name, Records: []Record{}}
		for _, r := range list {
			n.Records = append(n.Records, Record(r))
		}
		records = append(records, n)
	}
	slices.SortFunc(records, func(a, b NamedRecords) int { return strings.Compare(a.Name, b.Name) })
	for _, n := range records {
		f.addLocked(topicRecords, Change{Records: &n})
	}
}

func (f *feed) addLocked(of topic, c Change) {
	data, err := json.Marshal(c)
	if err != nil {
		panic(err) // plain structs of ours
	}
	f.entries = append(f.entries, entry{of, data})
	f.bytes += len(data)
}

// vipChanges returns what differs between two Views in VIPs, in the order of
// lists.
func vipChanges(was, is View, zone string) []Change {
	before, now := services(was), services(is)
	var set []VIP
	var gone []Frontend
	seen := map[vip.Frontend]bool{}
	for c := range model.Diff(before, now) {
		seen[c.Key] = true
		if c.InNew {
			set = append(set, newVIP(c.New, is.Plan, zone))
			continue
		}
		v := newVIP(c.Old, nil, zone)
		gone = append(gone, Frontend{Name: v.Name, Address: v.Address.String(), Port: v.Port, Protocol: v.Protocol})
	}
	for _, p := range []*lb.Plan{was.Plan, is.Plan} { // who is ejected is in no Table
		for f := range p.AllEjected() {
			if s, ok := now.Get(f); ok && !seen[f] && !maps.Equal(was.Plan.Ejected(f), is.Plan.Ejected(f)) {
				seen[f] = true
				set = append(set, newVIP(s, is.Plan, zone))
			}
		}
	}
	slices.SortFunc(set, CompareVIPs)
	slices.SortFunc(gone, func(a, b Frontend) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port), strings.Compare(a.Protocol, b.Protocol))
	})
	var out []Change
	for _, g := range gone { // first, in case an address has gone to another name
		out = append(out, Change{Gone: &g})
	}
	for _, v := range set {
		out = append(out, Change{VIP: &v})
	}
	return out
}

func services(v View) model.Groups[vip.Frontend, *vip.Service] {
	if v.Table == nil {
		return model.Groups[vip.Frontend, *vip.Service]{}
	}
	return v.Table.Services
}

// position is where in the feed a client is: it has all before next.
type position struct{ next uint64 }

// id is the position as text, for Last-Event-ID and Waggle-Sequence.
func (f *feed) id(p position) string { return f.epoch + "-" + strconv.FormatUint(p.next-1, 10) }

// now is where a client is that has what lists say after this call.
func (f *feed) now() position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return position{f.first + uint64(len(f.entries))}
}

// at reads an id. Why is why what follows it cannot be had.
func (f *feed) at(id string) (p position, why string) {
	epoch, text, ok := strings.Cut(id, "-")
	n, err := strconv.ParseUint(text, 10, 64)
	switch {
	case !ok || err != nil:
		return p, fmt.Sprintf("%q is no position of a stream", id)
	case epoch != f.epoch:
		return p, "the daemon has been restarted"
	}
	return position{n + 1}, ""
}

// after returns up to n entries from p on, where that leaves the client, and a
// channel that is closed once there is more. It returns false if some of what
// follows p has been forgotten.
func (f *feed) after(p position, n int) (list []entry, next position, more <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := f.first + uint64(len(f.entries))
	if p.next < f.first || p.next > end {
		return nil, p, f.more, false
	}
	from := int(p.next - f.first)
	to := min(from+n, len(f.entries))
	// entries is only appended to and cut at the front, so what is handed out stays.
	return f.entries[from:to:to], position{f.first + uint64(to)}, f.more, true
}

// join counts a client until leave is called; it returns false where there are
// too many.
func (f *feed) join(most int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.clients >= most {
		return false
	}
	f.clients++
	return true
}

func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clients--
	f.leftLast = time.Now()
}

// following returns how many clients there are.
func (f *feed) following() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clients
}
