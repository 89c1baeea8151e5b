package api

import (
	"time"

	"waggle/dns/forward"
)

// Status says in one screen whether a node is well and what is wrong.
type Status struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready"` // names are served, and VIPs where there is a balancer
	// Reasons say, one sentence each, what keeps the node from being ready or
	// does not work as wished.
	Reasons  []string `json:"reasons"`
	Source   Source   `json:"source"`
	Balancer Balancer `json:"balancer"`
	DNS      []string `json:"dns"`               // addresses listened on
	Forward  *Forward `json:"forward,omitempty"` // nil where names of others are refused
	HTTP     []string `json:"http"`              // likewise
	Counts   Counts   `json:"counts"`
}

// Source is how the scheduler is followed.
type Source struct {
	Connected bool      `json:"connected"`
	Leader    string    `json:"leader"` // empty while unknown
	Published time.Time `json:"published,omitzero"`
	LastEvent time.Time `json:"last_event,omitzero"`
	// Restored is when the Snapshot from the disk that is still served was
	// published; absent once every source has spoken.
	Restored time.Time `json:"restored,omitzero"`
	Error    string    `json:"error,omitempty"` // the last one, while not connected

	ZooKeeper *ZooKeeper `json:"zookeeper,omitempty"` // nil where masters are not found through it
	Marathon  *Marathon  `json:"marathon,omitempty"`  // nil where none is followed
	Files     *Files     `json:"files,omitempty"`     // nil where no files are read
}

// Marathon is how Marathon is followed.
type Marathon struct {
	Connected bool      `json:"connected"`
	Host      string    `json:"host"`       // the last one followed; empty before
	LastEvent time.Time `json:"last_event"` // zero before the first
	Error     string    `json:"error,omitempty"`
}

// Files is how the files with services that no scheduler starts are read.
type Files struct {
	Files int       `json:"files"`
	Read  time.Time `json:"read,omitzero"`   // when they were last looked at
	Error string    `json:"error,omitempty"` // what keeps some from being served as they are
}

// ZooKeeper is how the election of masters is seen.
type ZooKeeper struct {
	Location  string    `json:"location"` // the URL without its password
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`           // when Connected became what it is
	Leader    string    `json:"leader"`          // the last one seen; empty before
	Masters   int       `json:"masters"`         // in the last answer
	Read      time.Time `json:"read,omitzero"`   // when that was
	Error     string    `json:"error,omitempty"` // why the election cannot be seen now
}

// Balancer is how VIPs reach the kernel.
type Balancer struct {
	Kind   string `json:"kind"`            // ebpf, ipvs or none
	Chosen string `json:"chosen"`          // why that
	Error  string `json:"error,omitempty"` // why it is none, or what it could not program
	// Excluded are the clients that are left alone.
	Excluded []string `json:"excluded,omitempty"`
	// Ejected are the backends that get no new connections because they
	// refused some, sorted.
	Ejected []Ejected `json:"ejected,omitempty"`
	// Missing are the programs that this kernel does not take, with its words.
	Missing  map[string]string `json:"missing,omitempty"`
	SelfTest *SelfTest         `json:"self_test,omitempty"` // nil before the first
	Events   []BalancerEvent   `json:"events,omitempty"`    // the last, oldest first
}

// Ejected is a backend that is left out of a VIP.
type Ejected struct {
	VIP      string `json:"vip"` // address and port
	Protocol string `json:"protocol"`
	Backend  string `json:"backend"`
	Ejection
}

// SelfTest is how a process in a cgroup of its own fared with a VIP.
type SelfTest struct {
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"` // empty if it got through
}

// BalancerEvent is something rare that the kernel told.
type BalancerEvent struct {
	At       time.Time `json:"at"`
	What     string    `json:"what"` // no backend, denied or failed
	VIP      string    `json:"vip"`
	Protocol string    `json:"protocol"`
	Backend  string    `json:"backend,omitempty"` // of a connect that failed
	Cgroup   uint64    `json:"cgroup,omitempty"`  // id of the client's
}

// Forward is how names that are not ours are answered.
type Forward struct {
	Upstreams []forward.Status    `json:"upstreams"`
	Cache     forward.CacheStatus `json:"cache"`
}

// Counts are the sizes of what the node knows and serves.
type Counts struct {
	Apps     int `json:"apps"`
	Tasks    int `json:"tasks"`
	Agents   int `json:"agents"`
	VIPs     int `json:"vips"`
	Names    int `json:"names"`
	Problems int `json:"problems"`
}
