package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"waggle/internal/hostnet"
	"waggle/watcher"
	"waggle/watcher/mesos"
	"waggle/watcher/zk"
)

type mesosConfig struct {
	Masters []string `yaml:"masters" help:"Mesos masters, host:port or http(s)://host:port, any of which leads to the leader"`
	ZK      zkURL    `yaml:"zk" help:"where masters are elected, zk://[user:password@]host:port,.../path, or file:///name of a file with that"`
	HTTPS   bool     `yaml:"https" help:"speak HTTPS to masters found in ZooKeeper"`

	Poll         mesos.Poll    `yaml:"poll" help:"ask for the whole state again and again in place of the event stream: refused for where a master refuses it, always, or never"`
	PollInterval time.Duration `yaml:"poll_interval" help:"how often to ask for the whole state"`
	Reregister   time.Duration `yaml:"reregister_timeout" help:"how long to serve the tasks of agents that a new master has not heard from, where it does not say"`
	EmptyHold    time.Duration `yaml:"empty_hold" help:"how long a master must show no agents at all before that is believed"`

	Auth authConfig `yaml:"auth"`
	TLS  tlsConfig  `yaml:"tls"`
}

func defaultMesosConfig() mesosConfig {
	m := mesos.DefaultConfig()
	return mesosConfig{
		Poll: m.Poll, PollInterval: m.PollInterval, Reregister: m.ReregisterTimeout, EmptyHold: m.EmptyHold,
		Auth: defaultAuthConfig(), TLS: defaultTLSConfig(),
	}
}

// zkURL is a ZooKeeper URL as configured. It is printed without its password.
type zkURL string

// UnmarshalText takes the text as it is; check reads it.
func (u *zkURL) UnmarshalText(text []byte) error {
	*u = zkURL(text)
	return nil
}

// String returns the URL with the password left out, and nothing of one that
// cannot be read and might have a password anywhere.
func (u zkURL) String() string {
	l, err := zk.Parse(string(u))
	switch {
	case err == nil && l.Auth != "":
		return l.String()
	case err != nil && strings.Contains(string(u), "@"):
		return "***"
	}
	return string(u)
}

// configured reports whether there is a master to follow.
func (c mesosConfig) configured() bool { return len(c.Masters) > 0 || c.ZK != "" }

// check returns what is wrong with the keys.
func (c mesosConfig) check() error {
	var errs []error
	if err := c.source(nil, nil).Check(); err != nil {
		errs = append(errs, fmt.Errorf("mesos.masters: %w", err))
	}
	if c.ZK != "" {
		if _, err := zk.Read(string(c.ZK)); err != nil {
			errs = append(errs, fmt.Errorf("mesos.zk: %w", err))
		}
	}
	if !slices.Contains(mesos.Polls(), string(c.Poll)) {
		errs = append(errs, fmt.Errorf("mesos.poll: %q is none of %s", c.Poll, strings.Join(mesos.Polls(), ", ")))
	}
	if c.PollInterval < time.Second {
		errs = append(errs, fmt.Errorf("mesos.poll_interval: %s is less than a second", c.PollInterval))
	}
	return errors.Join(errs...)
}

// detector is where the masters are elected; ok is false where that is not
// configured.
func (c mesosConfig) detector(r *hostnet.Resolver) (_ zk.Config, ok bool, err error) {
	d := zk.DefaultConfig()
	if c.ZK == "" {
		return d, false, nil
	}
	d.Resolve = r.Lookup
	d.Location, err = zk.Read(string(c.ZK))
	return d, true, err
}

func (c mesosConfig) source(lookup watcher.Lookup, e mesos.Election) mesos.Config {
	m := mesos.DefaultConfig()
	m.Masters, m.HTTPS, m.Resolve, m.Election = c.Masters, c.HTTPS, lookup, e
	m.Poll, m.PollInterval = c.Poll, c.PollInterval
	m.ReregisterTimeout, m.EmptyHold = c.Reregister, c.EmptyHold
	m.TLS, m.Auth = c.TLS.transport(), c.Auth.transport()
	return m
}
