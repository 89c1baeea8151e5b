package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
)

// Choice is how a backend is chosen for a new connection.
type Choice uint8

// The Choices.
const (
	Random      Choice = iota // by weight
	LeastActive               // of two at random, that with fewer open sockets for its weight
)

// By says what a client is, for Affinity.
type By uint8

// What may be a client.
const (
	ByNothing   By = iota // no affinity
	ByNamespace           // a network namespace
	ByCgroup              // a cgroup
	BySource              // the address a socket is bound to, or else its namespace
)

// Affinity says that a client keeps its backend until Timeout has passed since
// its last connection, as long as the backend takes new connections.
type Affinity struct {
	By      By
	Timeout time.Duration // rounded up to whole seconds
}

// Client says who may connect. Exactly one field is set.
type Client struct {
	Cgroup    string       // path below the root of cgroup v2; those below it are meant too
	Namespace string       // file of a network namespace, /run/netns/x for one
	Source    netip.Prefix // namespaces that have an address in it
}

// String returns c as ParseClients reads it.
func (c Client) String() string {
	switch {
	case c.Cgroup != "":
		return "cgroup:" + c.Cgroup
	case c.Namespace != "":
		return "namespace:" + c.Namespace
	}
	return c.Source.String()
}

// Locality says which backends are preferred while they take connections.
type Locality uint8

// The Localities, each including the one before it.
const (
	Anywhere  Locality = iota
	SameZone           // those in the node's fault domain
	SameAgent          // those on the node itself, then those in its fault domain
)

// Options are what a service asks for besides its backends. The zero value asks
// for nothing.
type Options struct {
	Choice   Choice
	Affinity Affinity
	Locality Locality
	// Drain is how long connections to a backend that was taken away go on
	// before their clients are told; 0 leaves them alone for good.
	Drain time.Duration
	Allow []Client // sorted, who may connect; empty means everyone
	said  said
}

// said tells which Options were given, be it as what they are without.
type said uint8

const (
	saidChoice said = 1 << iota
	saidAffinity
	saidLocality
	saidDrain
	saidAllow
)

// keepFor is how long a client keeps its backend where no timeout is given.
const keepFor = 3 * time.Hour

// Equal reports whether o and p ask for the same.
func (o Options) Equal(p Options) bool {
	return o.Choice == p.Choice && o.Affinity == p.Affinity && o.Locality == p.Locality && o.Drain == p.Drain &&
		slices.Equal(o.Allow, p.Allow)
}

// Strings returns what o asks for as option=value, nothing for what it does not.
func (o Options) Strings() []string {
	var out []string
	if o.Choice == LeastActive {
		out = append(out, "choice=least-active")
	}
	if a := o.Affinity; a.By != ByNothing {
		out = append(out, fmt.Sprintf("affinity=%s:%s", [...]string{"none", "namespace", "cgroup", "source"}[a.By&3], a.Timeout))
	}
	if o.Locality != Anywhere {
		out = append(out, "locality="+[...]string{"none", "zone", "agent"}[o.Locality%3])
	}
	if o.Drain > 0 {
		out = append(out, "drain="+o.Drain.String())
	}
	if len(o.Allow) > 0 {
		var list []string
		for _, c := range o.Allow {
			list = append(list, c.String())
		}
		out = append(out, "allow="+strings.Join(list, ","))
	}
	return out
}

// Set reads the value of one option: choice, affinity, locality, drain or allow,
// in any letter case. An error leaves o as it was.
func (o *Options) Set(option, value string) (err error) {
	next := *o
	value = strings.TrimSpace(value)
	switch strings.ToLower(option) {
	case "choice":
		next.said |= saidChoice
		next.Choice, err = oneOf(value, map[string]Choice{"random": Random, "least-active": LeastActive})
	case "affinity":
		next.said |= saidAffinity
		next.Affinity, err = parseAffinity(value)
	case "locality":
		next.said |= saidLocality
		next.Locality, err = oneOf(value, map[string]Locality{"none": Anywhere, "zone": SameZone, "agent": SameAgent})
	case "drain":
		next.said |= saidDrain
		next.Drain, err = parseTime(value, 0)
	case "allow":
		next.said |= saidAllow
		next.Allow, err = ParseClients(value)
	default:
		err = errors.New("none of choice, affinity, locality, drain, allow")
	}
	if err == nil {
		*o = next
	}
	return err
}

// or returns o with what it does not say taken from p.
func (o Options) or(p Options) Options {
	missing := p.said &^ o.said
	if missing&saidChoice != 0 {
		o.Choice = p.Choice
	}
	if missing&saidAffinity != 0 {
		o.Affinity = p.Affinity
	}
	if missing&saidLocality != 0 {
		o.Locality = p.Locality
	}
	if missing&saidDrain != 0 {
		o.Drain = p.Drain
	}
	if missing&saidAllow != 0 {
		o.Allow = p.Allow
	}
	o.said |= p.said
	return o
}

// join returns what a service asks for whose labels say o and p. Of two values
// of one option the greater counts, and who is allowed by one label is allowed:
// so neither the order of tasks nor their number matters.
func (o Options) join(p Options) Options {
	both := o.or(p)
	both.Choice = max(both.Choice, p.Choice)
	both.Locality = max(both.Locality, p.Locality)
	both.Drain = max(both.Drain, p.Drain)
	if a, b := both.Affinity, p.Affinity; b.By > a.By || b.By == a.By && b.Timeout > a.Timeout {
		both.Affinity = b
	}
	if !slices.Equal(both.Allow, p.Allow) {
		both.Allow = sortClients(slices.Concat(both.Allow, p.Allow))
	}
	return both
}

func oneOf[T any](value string, known map[string]T) (T, error) {
	v, ok := known[strings.ToLower(value)]
	if !ok {
		var names []string
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		return v, fmt.Errorf("%q is none of %s", value, strings.Join(names, ", "))
	}
	return v, nil
}

// parseAffinity reads what a client is and, behind a colon, for how long it
// keeps its backend.
func parseAffinity(value string) (Affinity, error) {
	what, timeout, timed := strings.Cut(value, ":")
	by, err := oneOf(what, map[string]By{
		"none": ByNothing, "client": ByNamespace, "namespace": ByNamespace, "cgroup": ByCgroup, "source": BySource,
	})
	if err != nil || by == ByNothing {
		return Affinity{}, err
	}
	a := Affinity{By: by, Timeout: keepFor}
	if timed {
		a.Timeout, err = parseTime(timeout, time.Second)
	}
	return a, err
}

func parseTime(value string, least time.Duration) (time.Duration, error) {
	const most = 30 * 24 * time.Hour
	d, err := time.ParseDuration(value)
	if err != nil || d < least || d > most {
		return 0, fmt.Errorf("%q is not a time within %s to %s, like 90s", value, least, most)
	}
	return d, nil
}

// ParseClients reads clients separated by commas: networks, addresses,
// cgroup:PATH and namespace:FILE. They are sorted, each once.
func ParseClients(value string) ([]Client, error) {
	var out []Client
	for text := range strings.SplitSeq(value, ",") {
		c, err := parseClient(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return sortClients(out), nil
}

func parseClient(text string) (Client, error) {
	if p, ok := strings.CutPrefix(text, "cgroup:"); ok && strings.Trim(p, "/") != "" {
		return Client{Cgroup: path.Clean("/" + p)}, nil
	}
	if p, ok := strings.CutPrefix(text, "namespace:"); ok && path.IsAbs(p) {
		return Client{Namespace: path.Clean(p)}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return Client{Source: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return Client{Source: p.Masked()}, nil
	}
	return Client{}, fmt.Errorf("%q is no network, cgroup:PATH or namespace:/FILE", text)
}

func sortClients(list []Client) []Client {
	text := func(c Client) string { return c.Source.String() + " " + c.Cgroup + " " + c.Namespace }
	slices.SortFunc(list, func(a, b Client) int { return strings.Compare(text(a), text(b)) })
	return slices.Compact(list)
}
