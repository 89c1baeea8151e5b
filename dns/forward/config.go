package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Config says whom to ask for what and how much to remember.
type Config struct {
	// Upstreams are asked for every name that no zone of Zones has. None means
	// that such names are refused.
	Upstreams []Upstream
	// Zones are upstreams of their own for a name and all names below it. Of
	// several that fit a name the longest counts.
	Zones map[string][]Upstream
	// Local are names of which nothing is ever asked outside, themselves and all
	// below them: they do not exist, unless a zone of Zones is below or at one.
	Local []string

	// Timeout is how long a question may take in all before it fails.
	Timeout time.Duration
	// AttemptTimeout is how long an upstream may take before its silence counts
	// against it. Another is asked long before.
	AttemptTimeout time.Duration
	// MinHedge and MaxHedge bound how long one upstream is waited for before the
	// next is asked too. Between them it is what the upstream usually takes,
	// twice, and four times what that varies by.
	MinHedge, MaxHedge time.Duration
	// MaxBackoff bounds how long an upstream that does not answer is left alone,
	// which doubles from one second. When that is over it is tried beside
	// another one, so that nobody waits for the trial.
	MaxBackoff time.Duration

	// Sockets is how many UDP sockets there are to each upstream; each has a
	// random port and is replaced within a minute. One to be forged must be hit
	// with the right one of these and the right id and letter case.
	Sockets int
	// Eager lets the thread that reads these sockets wait without telling Go's
	// scheduler while answers come often, where that can be interrupted; see
	// wire.Watch. It then holds one slot, for which the caller raises GOMAXPROCS.
	// New decides; Reconfigure does not look at it.
	Eager bool
	// InFlight bounds the questions that wait for upstreams. Of these a client
	// (an IPv4 address, an IPv6 /64) gets at most its share, the bound divided
	// by the clients that wait; what is more is answered SERVFAIL at once.
	InFlight int

	// AnswerBytes and NegativeBytes bound the memory of what is remembered:
	// answers, and that there is none. They are apart so that a flood of
	// questions for names that do not exist displaces no answer.
	AnswerBytes, NegativeBytes int
	// MaxTTL and MaxNegativeTTL cut what upstreams allow to remember.
	MaxTTL, MaxNegativeTTL time.Duration
	// NoSOATTL is how long a negative answer without a SOA record is remembered:
	// RFC 2308 forbids to keep it, but then every such question hits upstreams.
	NoSOATTL time.Duration
	// FailureTTL is how long a question that failed is not asked again (RFC 9520).
	FailureTTL time.Duration
	// StaleFor is how long an answer that has expired is kept, to be served when
	// no upstream answers (RFC 8767); zero keeps none. StaleTTL is the TTL it
	// then has, StaleAfter how long a client waits for a fresh one first.
	StaleFor, StaleTTL, StaleAfter time.Duration

	// MaxUDP is the longest answer over UDP, whatever a client takes.
	MaxUDP int
}

// DefaultConfig returns a Config without upstreams.
func DefaultConfig() Config {
	return Config{
		Timeout:        5 * time.Second,
		AttemptTimeout: time.Second,
		MinHedge:       10 * time.Millisecond,
		MaxHedge:       250 * time.Millisecond,
		MaxBackoff:     30 * time.Second,
		Sockets:        8,
		InFlight:       4096,
		AnswerBytes:    32 << 20,
		NegativeBytes:  4 << 20,
		MaxTTL:         24 * time.Hour,
		MaxNegativeTTL: time.Hour,
		NoSOATTL:       5 * time.Second,
		FailureTTL:     5 * time.Second,
		StaleFor:       24 * time.Hour,
		StaleTTL:       30 * time.Second,
		StaleAfter:     1800 * time.Millisecond,
		MaxUDP:         1232,
	}
}

// Check returns what is wrong with c, all of it joined, or nil.
func (c Config) Check() error {
	var errs []error
	for zone, ups := range c.Zones {
		if _, err := wireName(zone); err != nil {
			errs = append(errs, fmt.Errorf("zone %q: %w", zone, err))
		}
		if len(ups) == 0 {
			errs = append(errs, fmt.Errorf("zone %q: no upstream to ask", zone))
		}
	}
	for _, name := range c.Local {
		if _, err := wireName(name); err != nil {
			errs = append(errs, fmt.Errorf("local name %q: %w", name, err))
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"timeout", c.Timeout}, {"timeout of an attempt", c.AttemptTimeout}, {"shortest hedge", c.MinHedge},
	} {
		if d.value <= 0 {
			errs = append(errs, fmt.Errorf("%s %v is not above zero", d.name, d.value))
		}
	}
	if c.MaxHedge < c.MinHedge {
		errs = append(errs, fmt.Errorf("longest hedge %v is shorter than the shortest, %v", c.MaxHedge, c.MinHedge))
	}
	if c.Sockets < 1 || c.Sockets > 64 {
		errs = append(errs, fmt.Errorf("%d sockets to an upstream are not within 1 to 64", c.Sockets))
	}
	if c.InFlight < 1 {
		errs = append(errs, fmt.Errorf("%d questions in flight are not at least 1", c.InFlight))
	}
	if c.MaxUDP < minUDP || c.MaxUDP > 4096 {
		errs = append(errs, fmt.Errorf("longest answer over UDP of %d octets is not within %d to 4096", c.MaxUDP, minUDP))
	}
	return errors.Join(errs...)
}

// Upstream is a DNS server to ask.
type Upstream struct {
	Addr netip.AddrPort
	// TLSName is the name that the server's certificate must have; it is asked
	// by DNS over TLS (RFC 7858) then. Empty asks over UDP and TCP.
	TLSName string
}

// String returns the form that ParseUpstream reads.
func (u Upstream) String() string {
	if u.TLSName != "" {
		return "tls://" + u.Addr.String() + "#" + u.TLSName
	}
	return u.Addr.String()
}

// ParseUpstream reads an upstream: an address with or without a port (53), or
// tls://address[:port]#name with the name of its certificate (port 853).
func ParseUpstream(text string) (Upstream, error) {
	rest, secure := strings.CutPrefix(text, "tls://")
	var u Upstream
	port := uint16(53)
	if secure {
		port = 853
		if rest, u.TLSName, _ = strings.Cut(rest, "#"); u.TLSName == "" {
			return u, fmt.Errorf("upstream %q: tls:// needs #name, the name its certificate must have", text)
		}
	}
	if addr, err := netip.ParseAddr(strings.Trim(rest, "[]")); err == nil {
		u.Addr = netip.AddrPortFrom(addr, port)
	} else if u.Addr, err = netip.ParseAddrPort(rest); err != nil || u.Addr.Port() == 0 {
		return u, fmt.Errorf("upstream %q is not an address, address:port or tls://address#name", text)
	}
	u.Addr = netip.AddrPortFrom(u.Addr.Addr().Unmap(), u.Addr.Port())
	if u.Addr.Addr().IsUnspecified() || u.Addr.Addr().IsMulticast() {
		return u, fmt.Errorf("upstream %q is not the address of one server", text)
	}
	return u, nil
}
