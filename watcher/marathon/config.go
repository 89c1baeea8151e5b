package marathon

import (
	"fmt"
	"time"

	"waggle/watcher"
	"waggle/watcher/transport"
)

// Config says which Marathons to follow and how patiently.
type Config struct {
	// Hosts are asked in turn; each leads to the leader. Each is host:port or
	// http(s)://host[:port][/path]: behind DC/OS' Admin Router it is
	// https://leader/service/marathon.
	Hosts []string
	// Transport says how they are asked. Its Hosts are those above.
	Transport transport.Config
	// Resolve looks up the host names of agents. Nil means net.DefaultResolver.
	Resolve watcher.Lookup

	// Idle is how long a stream of events may be silent, and how long an answer may
	// take to begin: Marathon sends a heartbeat every 10 s.
	Idle time.Duration
	// MinBackoff and MaxBackoff bound the wait before Marathon is asked again,
	// which doubles with every round in vain and is spread at random over half its
	// length.
	MinBackoff, MaxBackoff time.Duration
	// Resync is how often everything is read again beside the events, of which
	// older Marathons lose some, spread at random over half its length. Where there
	// are no events, Poll is.
	Resync, Poll time.Duration
	// EmptyHold is how long Marathon must show nothing at all, where something was
	// known, before that is believed.
	EmptyHold time.Duration
	// MaxAnswer and MaxEvent bound an answer and an event, in bytes. Neither is
	// memory: an answer is taken app by app, and of an event too long only its type.
	MaxAnswer int64
	MaxEvent  int
}

// DefaultConfig follows no Marathon with a back-off of 2 s to 30 s.
func DefaultConfig() Config {
	return Config{
		Transport: transport.DefaultConfig(),

		Idle:       45 * time.Second,
		MinBackoff: 2 * time.Second,
		MaxBackoff: 30 * time.Second,
		Resync:     5 * time.Minute,
		Poll:       30 * time.Second,
		EmptyHold:  10 * time.Minute,
		MaxAnswer:  2 << 30,
		MaxEvent:   16 << 20,
	}
}

// Asks returns how the hosts are asked, or an error that says which of them cannot
// be one, without quoting it: it may hold a password.
func (c Config) Asks() (transport.Config, error) {
	t := c.Transport
	t.Name, t.Resolve, t.Hosts = "marathon", c.Resolve, nil
	for i, h := range c.Hosts {
		u, err := parseHost(h)
		if err != nil {
			return t, fmt.Errorf("host %d: %w", i+1, err)
		}
		t.Hosts = append(t.Hosts, transport.Host{URL: u})
	}
	return t, nil
}
