package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// IPSource is a place that mesos-dns takes a task's addresses from.
type IPSource string

// The sources mesos-dns knows.
const (
	IPSourceHost    IPSource = "host"    // the agent's address
	IPSourceDocker  IPSource = "docker"  // a label old Docker containerizers set
	IPSourceMesos   IPSource = "mesos"   // a label old Mesos containerizers set
	IPSourceNetInfo IPSource = "netinfo" // the task's own addresses
)

// Config says which names are served and how. It is a plain value; Build does
// not change what its slices point to.
type Config struct {
	// Domain is where mesos-dns' names are: memcached.marathon.<Domain>.
	Domain string
	// DCOSDomain is where DC/OS' names are: memcached.marathon.l4lb.<DCOSDomain>.
	// Empty means that they are not served. It may be above Domain, not the same.
	DCOSDomain string

	// IPSources makes the addresses of tasks those of a mesos-dns with this
	// list: the first source that has any is used for all. Empty means that
	// each task and port gets the address at which it is reached.
	IPSources []IPSource
	// EnforceRFC952 folds task and framework names to at most 24 characters
	// that do not start with a digit, instead of 63.
	EnforceRFC952 bool
	// SRVWeight is the weight of every SRV record; all are alike, so any value
	// spreads the load evenly.
	SRVWeight uint16

	// TTL is how long clients may keep a record of Domain, DCOSTTL one of
	// DCOSDomain, in whole seconds. A client may use an address that much
	// longer than its task lives.
	TTL, DCOSTTL time.Duration

	// SOAMname is the name server that both domains state, SOARname the
	// mailbox of who runs it, with a dot or an @ behind the user's name.
	SOAMname, SOARname string
	// SOARefresh, SOARetry and SOAExpire are for secondary servers, of which
	// there are none, but tools show them.
	SOARefresh, SOARetry, SOAExpire time.Duration
	// SOAMinimum is how long clients may keep "no such name", if that is less
	// than the domain's TTL: the longest time for which a client that asked too
	// early does not see a task that has started since.
	SOAMinimum time.Duration
	// NSAddrs are the addresses of SOAMname: those this server listens on.
	NSAddrs []netip.Addr

	// Exact leaves out of Domain every name that mesos-dns has not.
	Exact bool
	// CryptoID is DC/OS' name of the cluster, the z-base-32 of its public key:
	// names of DCOSDomain are below <CryptoID>.dcos.directory too. Empty for none.
	CryptoID string
	// NodeAddrs are the addresses of this machine, thisnode.<DCOSDomain>, and
	// PublicAddrs those at which the outside reaches it.
	NodeAddrs, PublicAddrs []netip.Addr
	// Records are further records, each as "name type data" in the form of RFC
	// 1035 section 5, without a TTL. Names are whole, with the final dot or not.
	// A name may be anywhere; beside its records nothing runs that has the name.
	Records []string
}

// DefaultConfig returns the domains, times and weights that mesos-dns and DC/OS
// use, with the address choice of our own.
func DefaultConfig() Config {
	return Config{
		Domain:     "mesos",
		DCOSDomain: "thisdcos.directory",
		SRVWeight:  1,
		TTL:        time.Minute,
		DCOSTTL:    5 * time.Second,
		SOAMname:   "ns1.mesos",
		SOARname:   "root.ns1.mesos",
		SOARefresh: time.Minute,
		SOARetry:   10 * time.Minute,
		SOAExpire:  24 * time.Hour,
		SOAMinimum: time.Minute,
	}
}

// Check returns what is wrong with c, all of it joined, or nil.
func (c Config) Check() error {
	errs := []error{
		checkName("domain", c.Domain),
		checkName("SOA mname", c.SOAMname),
		checkName("SOA rname", mailbox(c.SOARname)),
	}
	if c.DCOSDomain != "" {
		errs = append(errs, checkName("DC/OS domain", c.DCOSDomain))
	}
	if fqdn(c.Domain) == fqdn(c.DCOSDomain) {
		errs = append(errs, fmt.Errorf("domain and DC/OS domain are both %q", c.Domain))
	}
	if errors.Join(errs...) == nil {
		errs = append(errs, c.checkZones())
	}
	for i, src := range c.IPSources {
		switch src {
		case IPSourceHost, IPSourceDocker, IPSourceMesos, IPSourceNetInfo:
		default:
			errs = append(errs, fmt.Errorf("IP source %q is not one of host, docker, mesos, netinfo", src))
		}
		if slices.Contains(c.IPSources[:i], src) {
			errs = append(errs, fmt.Errorf("IP source %q is listed twice", src))
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"TTL", c.TTL}, {"DC/OS TTL", c.DCOSTTL}, {"SOA refresh", c.SOARefresh}, {"SOA retry", c.SOARetry},
		{"SOA expire", c.SOAExpire}, {"SOA minimum", c.SOAMinimum},
	} {
		// RFC 2181 section 8: a TTL is less than 2^31 seconds.
		if d.value < 0 || d.value >= 1<<31*time.Second || d.value%time.Second != 0 {
			errs = append(errs, fmt.Errorf("%s %v is not a whole number of seconds from 0 to 2^31-1", d.name, d.value))
		}
	}
	return errors.Join(errs...)
}

// checkZones says which domains are in each other's way, and what is wrong with
// names in them.
func (c Config) checkZones() error {
	var errs []error
	if id := c.CryptoID; id != "" && (!askable(id+".") || strings.Contains(id, ".")) {
		errs = append(errs, fmt.Errorf("crypto id %q is not a label", id))
	}
	seen := map[string]bool{}
	for _, d := range newDomains(c) {
		if seen[d.apex] {
			errs = append(errs, fmt.Errorf("domain %s is there twice", d.apex))
		}
		seen[d.apex] = true
	}
	_, err := staticRecords(c)
	return errors.Join(append(errs, err)...)
}

// maxDomain is short enough for a SOA with two such names to fit into 512
// octets with the longest question, so that "no such name" is never cut.
const maxDomain = 96

func checkName(what, name string) error {
	if full := fqdn(name); !askable(full) || len(full) > maxDomain {
		return fmt.Errorf("%s %q is not a domain name of at most %d characters", what, name, maxDomain-1)
	}
	return nil
}

// mailbox writes a mail address as a domain name.
func mailbox(rname string) string { return strings.ReplaceAll(rname, "@", ".") }

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }
